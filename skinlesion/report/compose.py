"""Which chapters a report has, in which order; and what the short text for pull requests contains."""

from skinlesion.report import behaviour, card, checklist, explanations, results
from skinlesion.report.blocks import Block, Chapter, Facts, Note, Paragraph, Report
from skinlesion.report.extras import EXTRAS, describe_extra
from skinlesion.report.figures import Plots
from skinlesion.report.inputs import Inputs

TITLE = "Skin-lesion classification by deep learning: report on a run"
PAGE = "report/index.html"


def compose(inputs: Inputs, plots: Plots) -> Report:
    """The report on what the stages left in the workspace."""
    extras = {name: describe_extra(name, extra) for name, extra in inputs.extras.items()}
    chapters = [
        card.use(inputs),
        results.headline(inputs, plots),
        results.operating_points(inputs, plots),
        results.calibration(inputs, plots),
        behaviour.subgroups(inputs, plots),
        behaviour.failures(inputs),
        results.selective(inputs, plots),
        explanations.explanations(inputs, plots),
        behaviour.neighbors(inputs, plots),
        results.baselines(inputs, plots),
        *(Chapter(name.replace("_", "-"), EXTRAS[name][0], blocks) for name, blocks in extras.items()),
        card.data(inputs, plots),
        card.training(inputs),
        card.limits(inputs),
        *(checklist.chapter(key, inputs) for key in checklist.CHECKLISTS),
        card.reproducibility(inputs),
        card.references(),
    ]
    banners = [card.SYNTHETIC] if inputs.synthetic else []
    return Report(TITLE, subtitle(inputs), banners, chapters, brief(inputs, extras))


def subtitle(inputs: Inputs) -> str:
    """Images, networks and code in a line."""
    names = " and ".join(dict.fromkeys(member["backbone"] for member in inputs.ensemble["members"]))
    members = len(inputs.ensemble["members"])
    networks = f"{names}, {members} networks averaged" if members > 1 else names
    subject = f"Images: `{inputs.provenance['source']}`; classifier: `{networks}`; code: `{inputs.commit or 'unknown'}`"
    return f"{subject}. {card.NOT_CLINICAL}"


def brief(inputs: Inputs, extras: dict[str, list[Block]]) -> list[Block]:
    """What a reviewer of a change wants to see first."""
    few = {name: results.CALIBRATION[name] for name in ("ece", "nll", "brier")}
    found = [row for name, blocks in extras.items() for row in sum_up(EXTRAS[name][0], blocks)]
    return [
        results.headline_table(inputs, list(results.BRIEF)),
        *results.proven(inputs, ["macro_auc", "mel_sensitivity"]),
        results.points_table(inputs),
        behaviour.worst_table(inputs.metrics["subgroups"]),
        results.calibration_table(inputs, few),
        Facts([*behaviour.failure_facts(inputs).rows, *found, *checklist.counts(inputs)]),
        Paragraph(f"The whole report: `{PAGE}`, one page that opens without a network."),
    ]


def sum_up(title: str, blocks: list[Block]) -> list[tuple[str, str]]:
    """Of an extra the texts and facts, each under the extra's title."""
    texts = [(title, block.text) for block in blocks if isinstance(block, Note | Paragraph)]
    facts = [row for block in blocks if isinstance(block, Facts) for row in block.rows]
    return texts + [(f"{title}, {name}", text) for name, text in facts]
