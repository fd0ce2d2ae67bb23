"""Which sections a report has, in which order; and what of it a pull request gets to read."""

from __future__ import annotations

from skinlesion.report import behaviour, card, checklist, explanations, results
from skinlesion.report.blocks import Block, Note, Paragraph, Points, Report, Section
from skinlesion.report.extras import EXTRAS, describe_extra
from skinlesion.report.figures import Plots
from skinlesion.report.formats import count, level, measured
from skinlesion.report.inputs import Inputs

TITLE = "Skin-lesion classification by deep learning: report on a run"
PAGE = "report/index.html"


def compose(inputs: Inputs, plots: Plots) -> Report:
    """The report on what the stages left in the workspace."""
    extras = {name: describe(inputs, name) for name in EXTRAS}
    sections = [
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
        *(Section(name.replace("_", "-"), EXTRAS[name][0], blocks) for name, blocks in extras.items()),
        card.data(inputs, plots),
        card.training(inputs),
        card.limits(inputs),
        *checklist.sections(inputs),
        card.reproducibility(inputs),
        card.references(),
    ]
    banners = [card.SYNTHETIC] if inputs.synthetic else []
    return Report(TITLE, subtitle(inputs), banners, sections, brief(inputs, extras))


def describe(inputs: Inputs, name: str) -> list[Block]:
    """The blocks of an extra."""
    extra = inputs.extras[name]
    return describe_extra(name, None) if extra is None else describe_extra(name, extra.content, extra.outdated)


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
    lines = [f"{EXTRAS[name][0]}: {text}" for name, blocks in extras.items() for text in sum_up(blocks)]
    return [
        results.headline_table(inputs, list(results.BRIEF)),
        Paragraph(f"{level(inputs.metrics['evaluate']['bootstrap'])}; {describe_proven(inputs)}"),
        results.points_table(inputs),
        behaviour.worst_table(inputs.metrics["subgroups"]),
        results.calibration_table(inputs, few),
        Points([describe_failures(inputs), *lines, *checklist.counts(inputs)]),
        Paragraph(f"The whole report: `{PAGE}`, one page that opens without a network."),
    ]


def sum_up(blocks: list[Block]) -> list[str]:
    """Of an extra the warnings and the sentence that sums it up."""
    return [block.text for block in blocks if isinstance(block, Note | Paragraph)]


def describe_proven(inputs: Inputs) -> str:
    """The headline among histologically proven images alone."""
    proven = inputs.metrics["subgroups"]["histology_only"]
    if proven is None:
        return "no test image is proven by histology."
    sizes = f"{count(proven['images'])} images of {count(proven['lesions'])} lesions"
    macro, melanoma = measured(proven, "macro_auc"), measured(proven, "mel_sensitivity")
    return f"proven by histology alone ({sizes}): macro AUC {macro}, melanoma sensitivity {melanoma}."


def describe_failures(inputs: Inputs) -> str:
    """Missed melanomas and confident errors in a line."""
    found = inputs.metrics["failures"]
    missed = f"{count(found['missed_melanomas']['images'])} of {count(found['melanomas']['images'])}"
    confident = f"{count(found['confident_errors']['images'])} of {count(found['errors'])} errors"
    return f"Failures: missed melanomas {missed} images; confident {confident} (`data/failures/failures.csv`)"
