"""What the report says of the extras: a function each gives the blocks of what its file of metrics holds.

The first block has the facts that sum the finding up.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from skinlesion.audits.findings import extra_path
from skinlesion.report.blocks import Block, Details, Facts, Note, Paragraph, Table
from skinlesion.report.formats import DASH, HEADLINE, bounded, count, decimal, level, measured, name_of, percent

LEAK_GROUPS = {
    "all": "all test images",
    "with_siblings": "those with a sibling in the leaking training list",
    "without_siblings": "those without (a control: about 0)",
}
LEAK_CONTROL = "Nothing can leak to test images without a sibling: only what exceeds their inflation is the leak's."


def leak_blocks(content: Mapping[str, Any]) -> list[Block]:
    """The share of siblings, and what they add to each metric."""
    siblings = content["siblings"]["image_level"]
    facts = [
        ("test images with a sibling in training, dealt by images", percent(siblings["share"])),
        ("melanomas of test with one", percent(siblings["per_class"].get("mel", {}).get("share"))),
    ]
    facts += [
        (f"{name_of(metric)}, inflation in {LEAK_GROUPS[group]}", bounded(part["metrics"][metric], "inflation", signed=True))
        for group, metric in (("all", "macro_auc"), ("with_siblings", "accuracy"), ("without_siblings", "accuracy"))
        if (part := content.get(group))
    ]
    tables = [inflation_table(content, group, name) for group, name in LEAK_GROUPS.items() if content.get(group)]
    return [Facts(facts), Paragraph(LEAK_CONTROL), *tables]


def inflation_table(content: Mapping[str, Any], group: str, name: str) -> Table:
    """Metrics of both trainings and their difference in one group of test images."""
    part = content[group]
    rows = []
    for metric, values in part["metrics"].items():
        by_lesions, by_images, p = (decimal(values[key]) for key in ("lesion_level", "image_level", "p"))
        rows.append([name_of(metric), by_lesions, by_images, bounded(values, "inflation", signed=True), p])
    sizes = f"{count(part['images'])} images of {count(part['lesions'])} lesions"
    caption = f"Inflation by a leak in {name}: {sizes}; {level(content['bootstrap'])}"
    return Table(caption, ["metric", "dealt by lesions", "dealt by images", "inflation", "p"], rows)


def near_duplicates_blocks(content: Mapping[str, Any]) -> list[Block]:
    """How many pairs there are, how many cross the split, and how many of known siblings the method finds."""
    accepted, known, false = content["accepted"], content["known_siblings"], content["false_matches"]
    crossing = content["crossing_the_split"]
    rows = [
        ("images", count(content["images"])),
        ("pairs of one diagnosis under two lesion ids, taken for views of one lesion", count(accepted["same_dx"])),
        ("pairs of one diagnosis, by diagnosis", ", ".join(f"{dx} {count(n)}" for dx, n in accepted["by_dx"].items()) or "none"),
        ("pairs under two diagnoses (one is wrong, or the match)", count(accepted["different_dx"])),
        ("pairs across the split", count(sum(crossing.values()))),
        ("pairs across the split, by lists", ", ".join(f"{name} {count(n)}" for name, n in crossing.items())),
        ("candidates that were verified", count(content["candidates"]["pairs"])),
        ("recall on pairs of known siblings", f"{percent(known['recall_on_known_siblings'])} of {count(known['pairs'])}"),
        ("false matches expected among pairs of one diagnosis", decimal(false["expected_among_same_dx"], digits=1)),
    ]
    return [Facts(rows)]


SHOWN = ("accuracy", "macro_auc", "mel_sensitivity", "ece")


def robustness_blocks(content: Mapping[str, Any]) -> list[Block]:
    """The mean over corruptions, then each corruption over its severities."""
    facts = [
        ("kinds of corruption", count(len(content["corruptions"]))),
        ("macro AUC, mean over them", bounded(content["mean_corruption"]["macro_auc"], "mean", prefix="mean_")),
        ("macro AUC, clean", decimal(content["clean"]["macro_auc"])),
        ("macro AUC, worst under", content["worst"]["macro_auc"] or DASH),
    ]
    return [Facts(facts), mean_table(content), severity_table(content)]


def mean_table(content: Mapping[str, Any]) -> Table:
    """Means over the severities of each corruption, and their mean, beside the clean images."""
    rows = [["none (clean)", *(measured(content["clean"], metric) for metric in SHOWN)]]
    for name, values in {**content["corruptions"], "mean of all": content["mean_corruption"]}.items():
        rows.append([name, *(bounded(values[metric], "mean", prefix="mean_") for metric in SHOWN)])
    caption = f"Corrupted test images, mean over severities; {level(content['bootstrap'])}"
    return Table(caption, ["corruption", *(name_of(metric) for metric in SHOWN)], rows)


def severity_table(content: Mapping[str, Any]) -> Table:
    """Macro AUC of each corruption by severity."""
    severities = content["severities"]
    rows = [
        [name, *(decimal(value) for value in values["macro_auc"]["by_severity"])]
        for name, values in content["corruptions"].items()
    ]
    return Table("Macro AUC by severity", ["corruption", *(f"severity {number}" for number in severities)], rows)


RATES = ("sensitivity", "specificity")
SETS = ("external", "test", "difference")


def external_blocks(content: Mapping[str, Any]) -> list[Block]:
    """The proof that the sets share nothing, headline metrics, and what the frozen thresholds achieve."""
    compared, proof = content["compared"], content["proof"]
    facts = [
        ("source", f"`{content['data']['source']}`"),
        ("images / lesions", f"{count(proof['external']['images'])} / {count(proof['external']['lesions'])}"),
        ("shared with this data set, by id, file, pixels or thumbnail", count(sum(proof["shared"].values()))),
        ("macro AUC", bounded(compared["external"]["macro_auc"])),
        ("macro AUC, internal test", bounded(compared["test"]["macro_auc"])),
    ]
    rows = [
        [name_of(metric), *(bounded(compared[key][metric], signed=key == "difference") for key in SETS)]
        for metric in HEADLINE
        if metric in compared["external"]
    ]
    caption = f"External beside internal test; {level(content['bootstrap'])}"
    tables = [Table(caption, ["metric", *SETS], rows), points_table(content["operating_points"])]
    note = Note("The external images are synthetic: these figures say nothing about skin.")
    return [Facts(facts), note, *tables] if content["data"]["synthetic"] else [Facts(facts), *tables]


def points_table(found: Mapping[str, Any]) -> Table:
    """Sensitivity and specificity of the frozen thresholds in both sets."""
    rows = [
        [name, f"{point['threshold']:.4f}", *(bounded(point[where][rate]) for rate in RATES for where in ("external", "test"))]
        for name, point in found["points"].items()
    ]
    header = ["operating point", "threshold", *(f"{rate}, {where}" for rate in RATES for where in ("external", "test"))]
    return Table(f"Frozen thresholds for {found['target']}", header, rows)


ENGINES = {"torch": "torch", "float32": "ONNX, float32", "int8": "ONNX, int8"}


def export_blocks(content: Mapping[str, Any]) -> list[Block]:
    """Parity and size of both graphs, the metrics of int8 beside torch's, and times."""
    facts = [("test images", count(content["images"]))]
    facts += [
        (f"largest difference of a probability from torch's, {ENGINES[name]}", f"{parity['largest_difference']:.2g}")
        for name, parity in content["parity"].items()
    ]
    facts.append(("macro AUC of int8 less torch", bounded(content["compared"]["difference"]["macro_auc"], signed=True)))
    return [Facts(facts), parity_table(content), engines_table(content), speed_table(content["speed"])]


def parity_table(content: Mapping[str, Any]) -> Table:
    """Agreement with torch, and bytes."""
    points = list(content["parity"]["float32"]["same_flag"])
    rows = [["torch", *[""] * (2 + len(points)), megabytes(content["bytes"]["torch"])]]
    for name, parity in content["parity"].items():
        shares = (parity["same_diagnosis"], *(parity["same_flag"][point] for point in points))
        largest = f"{parity['largest_difference']:.2g}"
        rows.append([ENGINES[name], largest, *map(percent, shares), megabytes(content["bytes"][name])])
    header = ["engine", "largest difference", "same diagnosis", *(f"same flag, {point}" for point in points), "size"]
    return Table("Exported networks beside torch on the test images", header, rows)


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:.1f} MB"


def engines_table(content: Mapping[str, Any]) -> Table:
    """Metrics of int8 and of torch, and their paired difference."""
    compared = content["compared"]

    def cells(metric: str) -> list[str]:
        return [bounded(each[metric], signed=which == "difference") for which, each in compared.items()]

    rows = [[name_of(metric).replace("@", " at "), *cells(metric)] for metric in compared["int8"]]
    header = ["metric", *("int8 less torch" if which == "difference" else which for which in compared)]
    return Table(f"int8 beside torch; {level(content['bootstrap'])}", header, rows)


def speed_table(speed: Mapping[str, Any]) -> Table:
    """Time of a call by batch and engine."""
    columns = {"p50_ms": "median, ms", "p95_ms": "95th percentile, ms", "images_per_second": "images/s"}
    columns["times_torch"] = "times torch"
    rows = [
        [count(int(batch)), ENGINES[name], *(decimal(each[key], digits=1) for key in columns)]
        for batch, engines in speed["batches"].items()
        for name, each in engines.items()
    ]
    caption = f"Time of a call on {speed['cpu']}, {count(speed['threads'])} threads, load before {speed['load_before']}"
    return Table(caption, ["images a call", "engine", *columns.values()], rows, labels=2)


# What each is called, and who writes its chapter.
EXTRAS: dict[str, tuple[str, Callable[[Mapping[str, Any]], list[Block]]]] = {
    "leak": ("What a leak would add", leak_blocks),
    "near_duplicates": ("Near-duplicates across lesions", near_duplicates_blocks),
    "robustness": ("Corrupted images", robustness_blocks),
    "external": ("Images of another source", external_blocks),
    "export": ("Exported networks", export_blocks),
}
SUBJECTS = {"images": "images", "predictions": "classifier, calibration or test images", "recipe": "recipe"}


def file_of(name: str) -> str:
    """Where an extra writes what it found."""
    return extra_path(name).as_posix()


def command(name: str) -> str:
    """What runs an extra."""
    return f"dvc repro extras/dvc.yaml:{name.replace('_', '-')}"


@dataclass(frozen=True)
class Extra:
    """What an extra found, and of which subjects it is that the workspace has otherwise now (`outdated`)."""

    content: dict[str, Any]
    outdated: list[str]


def describe_extra(name: str, extra: Extra | None) -> list[Block]:
    """The blocks of an extra: what it found, with a warning if that is of something else; or how to run it, if it was not."""
    if extra is None:
        return [Paragraph(f"Not run. `{command(name)}` runs it, and the next `dvc repro` puts what it finds here.")]
    blocks: list[Block] = []
    if extra.outdated:
        others = " and ".join(SUBJECTS[subject] for subject in extra.outdated)
        blocks.append(Note(f"Outdated: measured with other {others} than this report is of. `{command(name)}` measures it anew."))
    try:
        return [*blocks, *EXTRAS[name][1](extra.content)]
    except (KeyError, TypeError, AttributeError) as error:
        unknown = f"`{file_of(name)}` has another layout than the report knows ({error!r}): shown as it stands."
        return [*blocks, Note(unknown), Details(f"`{file_of(name)}`", json.dumps(extra.content, indent=2))]
