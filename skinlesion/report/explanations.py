"""The chapter on where the classifier looks, and on how far its maps can be believed."""

from collections.abc import Iterator, Mapping
from typing import Any

from skinlesion.diagnoses import CLASSES
from skinlesion.report.blocks import Block, Chapter, Facts, Note, Paragraph, Table
from skinlesion.report.figures import Plots
from skinlesion.report.formats import DASH, bounded, count, decimal, level, percent
from skinlesion.report.inputs import Inputs

MEASURES: dict[str, str] = {
    "energy": "energy ratio",
    "pointing": "peak on the lesion",
    "deletion": "deletion AUC",
    "insertion": "insertion AUC",
    "flip": "mirrored image",
    "shuffled": "all weights shuffled",
}
CONTROLS: dict[str, str] = {"other": "map of another lesion", "center": "image's centre", "random": "random maps"}
CHECKS: dict[bool | None, str] = {True: "passed", False: "failed", None: "undecided"}
VERDICTS: dict[str | None, str] = {"better": "better", "worse": "worse", "undecided": "no difference shown", None: DASH}
BY_GRAIN = "better, but not than random maps"
CENTER_NOT_BEATEN = (
    "Some maps do not beat the image's centre, which knows nothing of the image: see their verdicts. What these maps show of the "
    "place is no better than the guess that lesions are photographed in the middle."
)
NOT_SANE = (
    "Some maps fail the sanity check: it was not shown that they change when all weights of the network are shuffled. They may "
    "show the image more than what the network learnt."
)
LEGEND = (
    "Energy ratio: the share of a map's energy inside the lesion over the lesion's share of the area, 1 is chance. Deletion and "
    "insertion AUC: area under the class's probability as the patches that a map ranks first are taken away (low is good) or "
    "shown (high is good). Mirrored image, all weights shuffled: rank correlation of a map with that of the mirrored image (high "
    "is good) and of the network with shuffled weights (must be near 0). AUCs of methods with other cells do not compare: fine "
    "orders, even random ones, take more away. A map says where the network looked, not why."
)

Content = Mapping[str, Any]


def explanations(inputs: Inputs, plots: Plots) -> Chapter:
    """Where the maps lie, and what of them holds against controls."""
    found = inputs.metrics["gradcam"]
    blocks: list[Block] = [Facts(facts_of(found))]
    if found["energy_ratio"] is None:
        blocks.append(Paragraph("The source has no lesion masks: where the maps lie was not measured."))
    else:
        blocks += [energy_table(found), plots.draw("gradcam_energy")]
    faithful = found.get("faithfulness")
    if faithful is None:  # a run that was recorded before the measures were there
        blocks.append(Paragraph("How far the maps can be believed was not measured in this run."))
    else:
        blocks += faithfulness_blocks(faithful, plots)
    cases = Paragraph("The cases, page by page, are in `plots/gradcam/index.html`.")
    return Chapter("explanations", "Explanations", [cases, *blocks])


def facts_of(found: Content) -> list[tuple[str, str]]:
    """Method and layers, counts, energy ratio."""
    layers = ", ".join(f"{name} `{each['layer']}`" for name, each in found["layers"].items())
    facts = [
        ("method and layer", f"{found['method']}; {layers}"),
        ("images with a map / with a lesion mask", f"{count(found['maps'])} / {count(found['images_with_mask'])}"),
        ("maps of nothing but zeros", count(found["zero_maps"])),
    ]
    ratio = found["energy_ratio"]
    if ratio is not None:
        facts += [("energy ratio, mean", decimal(ratio["mean"], ratio)), ("energy ratio, median", decimal(ratio["median"]))]
    return facts


def energy_table(found: Content) -> Table:
    """Median energy ratio by class and outcome."""
    grouped = {**{dx: found["by_class"].get(dx) for dx in CLASSES}, **found["by_outcome"]}
    rows = [[name, count(each["images"]), decimal(each["median"])] for name, each in grouped.items() if each]
    return Table("Energy ratio by class and outcome", ["images of", "images", "median"], rows)


def faithfulness_blocks(faithful: Content, plots: Plots) -> Iterator[Block]:
    """Tables, verdicts and plots."""
    first = next(iter(faithful["methods"]))
    yield Paragraph(LEGEND)
    yield methods_table(faithful)
    if same := compared_table(faithful):
        yield same
    yield controls_table(faithful)
    yield sanity_table(faithful)
    for warning in warnings(faithful):
        yield Note(warning)
    yield groups_table(first, faithful["methods"][first])
    for name in ("faithfulness", "groups", "curves", "sanity"):
        yield plots.draw(f"gradcam_{name}")


def methods_table(faithful: Content) -> Table:
    """Every method's measures with intervals."""
    rows = [[name, count(each["images"]), *cells(each["measures"])] for name, each in faithful["methods"].items()]
    caption = f"Faithfulness by method, {faithful['split']}; {level(faithful['bootstrap'])}"
    return Table(caption, ["method", "images", *MEASURES.values()], rows)


def cells(measures: Content) -> list[str]:
    """Each of `MEASURES` with its interval."""
    return [bounded(measures[measure]) for measure in MEASURES]


def compared_table(faithful: Content) -> Table | None:
    """The same on the images that all methods have; None where these are all images of every method, or there is but one."""
    compared = faithful["compared"]
    if compared is None or all(each["images"] == compared["images"] for each in faithful["methods"].values()):
        return None
    rows = [[name, *cells(each)] for name, each in compared["methods"].items()]
    return Table(f"The methods on the same {compared['images']:,} images", ["method", *MEASURES.values()], rows)


def controls_table(faithful: Content) -> Table:
    """Every measure of every method beside what it is held against."""
    rows = [
        [
            name,
            f"{MEASURES[measure]} against {words}",
            judge(measures, measure, control),
            decimal(measures[measure]["value"]),
            decimal(against["value"]),
            bounded(against, "difference", prefix="difference_", signed=True),
        ]
        for name, each in faithful["methods"].items()
        for measures in [each["measures"]]
        for measure in MEASURES
        for control, words in CONTROLS.items()
        if (against := measures[measure].get(control)) and against["value"] is not None
    ]
    header = ["method", "measure", "verdict", "maps", "control", "difference"]
    return Table("Maps against controls that know nothing of the image", header, rows, labels=3)


def sanity_table(faithful: Content) -> Table:
    """Every method's sanity check."""
    checks = {name: each["sanity"] for name, each in faithful["methods"].items()}
    rows = [
        [name, CHECKS[check["passed"]], bounded(full["shared"]), count(full["images"]), percent(full["without_ranks"])]
        for name, check in checks.items()
        for full in [check["by_depth"]["all layers"]]
    ]
    limit = next(iter(checks.values()))["limit"]
    caption = f"Sanity check: what a map shares with that of the network with all weights shuffled; passed surely below {limit:g}"
    header = ["method", "check", "shared variance of the ranks", "images", "a map ranks nothing (share)"]
    return Table(caption, header, rows, labels=2)


def groups_table(method: str, found: Content) -> Table:
    """The first method by class and outcome."""
    groups = {**found["by_class"], **found["by_outcome"]}
    rows = [[name, count(each["images"]), *cells(each["measures"])] for name, each in groups.items() if each["images"]]
    return Table(f"{method} by class and outcome", ["images of", "images", *MEASURES.values()], rows)


def warnings(faithful: Content) -> list[str]:
    """What must not be overlooked: maps that do not beat the centre, and maps that fail the sanity check."""
    methods = faithful["methods"].values()
    against_center = {judge(each["measures"], measure, "center") for each in methods for measure in MEASURES}
    failed = any(each["sanity"]["passed"] is False for each in methods)
    found = {CENTER_NOT_BEATEN: against_center - {VERDICTS["better"], DASH}, NOT_SANE: failed}
    return [warning for warning, holds in found.items() if holds]


def judge(measures: Content, measure: str, control: str) -> str:
    """The verdict of a method's measure against a control; a dash where there is none.

    A fine order beats the centre by its grain alone. So a method that is better than the centre, and not shown to be better than
    random maps of its own grain, has a verdict of its own.
    """
    found, random = (measures[measure].get(name, {}).get("verdict") for name in (control, "random"))
    if control == "center" and found == "better" and random in ("worse", "undecided"):
        return BY_GRAIN
    return VERDICTS[found]
