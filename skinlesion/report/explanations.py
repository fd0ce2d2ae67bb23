"""The section on where the classifier looks, and on how far its maps can be believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from skinlesion.diagnoses import CLASSES
from skinlesion.report.blocks import Block, Facts, Note, Paragraph, Points, Section, Table
from skinlesion.report.figures import Plots
from skinlesion.report.formats import DASH, bounded, count, decimal, level, percent, rate
from skinlesion.report.inputs import Inputs

MEASURES: dict[str, str] = {
    "energy": "energy ratio",
    "pointing": "peak on the lesion",
    "deletion": "deletion AUC",
    "insertion": "insertion AUC",
    "flip": "mirrored image",
    "shuffled": "all weights shuffled",
}
CONTROLS: dict[str, str] = {
    "other": "map of another lesion",
    "center": "image's centre",
    "random": "random maps",
}
VERDICTS: dict[str | None, str] = {"better": "better", "worse": "worse", "undecided": "no difference shown", None: DASH}
LEGEND = (
    "Energy ratio: the share of a map's energy inside the lesion over the lesion's share of the area, 1 is chance. Deletion and "
    "insertion AUC: area under the class's probability as the patches that a map ranks first are taken away (low is good) or "
    "shown (high is good). Mirrored image, all weights shuffled: rank correlation of a map with that of the mirrored image (high "
    "is good) and of the network with shuffled weights (must be near 0). AUCs of methods with other cells do not compare: fine "
    "orders, even random ones, take more away. A map says where the network looked, not why."
)

Content = Mapping[str, Any]


def explanations(inputs: Inputs, plots: Plots) -> Section:
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
    said = Paragraph("The cases, page by page, are in `plots/gradcam/index.html`.")
    return Section("explanations", "Explanations", [said, *blocks])


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
        facts += [("energy ratio, mean", rate(ratio["mean"], ratio)), ("energy ratio, median", decimal(ratio["median"]))]
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
    yield Points(reading(faithful))
    yield groups_table(first, faithful["methods"][first])
    for name in ("faithfulness", "groups", "curves", "sanity"):
        yield plots.draw(f"gradcam_{name}")


def measures_of(faithful: Content) -> dict[str, Content]:
    """Each method's measures over all images that it was measured on."""
    return {name: each["measures"] for name, each in faithful["methods"].items()}


def methods_table(faithful: Content) -> Table:
    """Every method's measures with intervals."""
    rows = [
        [name, count(each["images"]), *(bounded(each["measures"][measure]) for measure in MEASURES)]
        for name, each in faithful["methods"].items()
    ]
    caption = f"Faithfulness by method, {faithful['split']}; {level(faithful['bootstrap'])}"
    return Table(caption, ["method", "images", *MEASURES.values()], rows)


def compared_table(faithful: Content) -> Table | None:
    """The same on the images that all methods have; None where these are all images of every method, or there is but one."""
    compared = faithful["compared"]
    if compared is None or all(each["images"] == compared["images"] for each in faithful["methods"].values()):
        return None
    rows = [[name, *(bounded(each[measure]) for measure in MEASURES)] for name, each in compared["methods"].items()]
    return Table(f"The methods on the same {compared['images']:,} images", ["method", *MEASURES.values()], rows)


def controls_table(faithful: Content) -> Table:
    """Every measure of every method beside what it is held against."""
    rows = [
        [
            name,
            f"{MEASURES[measure]} against {words}",
            VERDICTS[against["verdict"]],
            rate(measures[measure]["value"]),
            rate(against["value"]),
            bounded(against, "difference", prefix="difference_", signed=True),
        ]
        for name, measures in measures_of(faithful).items()
        for measure in MEASURES
        for control, words in CONTROLS.items()
        if (against := measures[measure].get(control)) and against["value"] is not None
    ]
    header = ["method", "measure", "verdict", "maps", "control", "difference"]
    return Table("Maps against controls that know nothing of the image", header, rows, labels=3)


def sanity_table(faithful: Content) -> Table:
    """Every method's sanity check."""
    rows = []
    for name, each in faithful["methods"].items():
        full = each["sanity"]["by_depth"]["all layers"]
        passed = {True: "passed", False: "failed", None: "undecided"}[each["sanity"]["passed"]]
        rows.append([name, passed, bounded(full["shared"]), count(full["images"]), percent(full["without_ranks"])])
    limit = next(iter(faithful["methods"].values()))["sanity"]["limit"]
    caption = f"Sanity check: what a map shares with that of the network with all weights shuffled; passed surely below {limit:g}"
    header = ["method", "check", "shared variance of the ranks", "images", "a map ranks nothing (share)"]
    return Table(caption, header, rows, labels=2)


def groups_table(method: str, found: Content) -> Table:
    """The first method by class and outcome."""
    groups = {**found["by_class"], **found["by_outcome"]}
    rows = [
        [name, count(each["images"]), *(bounded(each["measures"][measure]) for measure in MEASURES)]
        for name, each in groups.items()
        if each["images"]
    ]
    return Table(f"{method} by class and outcome", ["images of", "images", *MEASURES.values()], rows)


def warnings(faithful: Content) -> list[str]:
    """What must not be overlooked: maps that the centre equals or beats, and sanity checks that failed."""
    measures, total = measures_of(faithful), len(faithful["methods"])
    equalled = {
        words: [name for name, each in measures.items() if _verdict(each, measure, "center") in ("worse", "undecided")]
        for measure, words in MEASURES.items()
    }
    said = []
    if any(equalled.values()):
        lost = "; ".join(
            f"in {words} by {_listed(names, of=total, every='any of the')}" for words, names in equalled.items() if names
        )
        said.append(
            f"The image's centre, which knows nothing of the image, is not beaten {lost}. There, what a map shows of the place "
            "is no better than the guess that lesions are photographed in the middle."
        )
    failing = [name for name, each in faithful["methods"].items() if each["sanity"]["passed"] is False]
    if failing:
        said.append(
            f"Sanity check failed: {_listed(failing, of=total)}. It was not shown that these maps change when all weights of the "
            "network are shuffled: they may show the image more than what the network learnt."
        )
    return said


def reading(faithful: Content) -> list[str]:
    """The table of methods in three sentences."""
    measures = measures_of(faithful)
    won, ranges = partial(_won, measures), partial(_range, measures)
    has_masks = any(each["energy"]["value"] is not None for each in measures.values())
    return [
        "Where the maps lie was not measured, for want of lesion masks."
        if not has_masks
        else f"Over {_images(faithful)} maps hold {ranges('energy')} times the energy on the lesion that its area would, more "
        f"than the map of another lesion's image would for {won('energy', 'other')}, and peak on it in a share of "
        f"{ranges('pointing')} of the images, more often than the image's centre lies on it for {won('pointing', 'center')}.",
        f"Taking away first what the map ranks first lowers the class's probability faster than random maps do for "
        f"{won('deletion', 'random')}, and faster than going from the centre outwards for {won('deletion', 'center')}; showing "
        f"it first raises it faster for {won('insertion', 'random')}, and for {won('insertion', 'center')}.",
        f"The map of the mirrored image ranks the patches with a correlation of {ranges('flip')}, that of the network with all "
        f"weights shuffled of {ranges('shuffled')}, so that {_passed(faithful)} the sanity check.",
    ]


def _verdict(measures: Content, measure: str, control: str) -> str | None:
    """The verdict of a measure against a control, None where there is none.

    A fine order beats the centre by its grain alone; so a method is not better than the centre unless it beats random maps of
    its own grain too.
    """
    found = measures[measure].get(control, {}).get("verdict")
    against_random = measures[measure].get("random", {}).get("verdict")
    return "undecided" if control == "center" and found == "better" and against_random not in (None, "better") else found


def _images(faithful: Content) -> str:
    """On how many images the methods were measured: `2,004 images (24 for ScoreCAM)`."""
    counts = {name: each["images"] for name, each in faithful["methods"].items()}
    most = max(counts.values())
    fewer: dict[int, list[str]] = {}
    for name, images in counts.items():
        if images < most:
            fewer.setdefault(images, []).append(name)
    said = "; ".join(f"{images:,} for {_listed(names, of=len(counts))}" for images, names in fewer.items())
    return f"{most:,} images{f' ({said})' if said else ''}"


def _range(measures: Mapping[str, Content], measure: str) -> str:
    """Smallest and largest value over the methods, each with its method."""
    values = {name: each[measure]["value"] for name, each in measures.items() if each[measure]["value"] is not None}
    if not values:
        return "what was not measured"
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    if len(values) == 1:
        return f"{values[low]:.2f} ({low})"
    return f"{values[low]:.2f} ({low}) to {values[high]:.2f} ({high})"


def _won(measures: Mapping[str, Content], measure: str, control: str) -> str:
    """Which methods are better than a control."""
    verdicts = {name: _verdict(each, measure, control) for name, each in measures.items()}
    if not any(verdicts.values()):
        return "methods unknown, for it was not measured"
    winners = [name for name, found in verdicts.items() if found == "better"]
    return _listed(winners, of=len(measures))


def _passed(faithful: Content) -> str:
    """Which methods pass the sanity check."""
    passing = [name for name, each in faithful["methods"].items() if each["sanity"]["passed"]]
    return f"{_listed(passing, of=len(faithful['methods']))} pass{'es' if len(passing) == 1 else ''}"


def _listed(names: list[str], *, of: int, every: str = "all") -> str:
    """Names in a sentence: `no method`, `all 9 methods`, or one by one."""
    if not names:
        return "no method"
    if len(names) == of and of > 2:
        return f"{every} {of} methods"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
