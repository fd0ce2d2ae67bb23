"""Chapters on how the classifier behaves: for whom it works, what it fails on, what it takes for alike."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from skinlesion.report.blocks import Chapter, Facts, Paragraph, Table
from skinlesion.report.figures import Plots
from skinlesion.report.formats import DASH, bounded, count, decimal, level, measured, name_of, percent
from skinlesion.report.inputs import Inputs

GROUP_METRICS = ("accuracy", "balanced_accuracy", "mel_auc", "mel_sensitivity", "mel_specificity")
ATTRIBUTES = {"dx_type": "way of diagnosis", "dataset": "acquisition source", "localization": "site"}


def subgroups(inputs: Inputs, plots: Plots) -> Chapter:
    """Who is served worst, and every group."""
    found, params = inputs.metrics["subgroups"], inputs.params["subgroups"]
    small = (
        f"Marked small (*) and never named as the worst: fewer than {params['min_lesions']} lesions, and in metrics of melanoma "
        f"fewer than {params['min_melanomas']} melanomas."
    )
    blocks = [worst_table(found), Paragraph(small), groups_table(inputs.groups), plots.draw("subgroups")]
    return Chapter("subgroups", "Subgroups", blocks)


def worst_table(found: dict[str, Any]) -> Table:
    """The worst group of each metric, beside all images."""
    rows = []
    for metric, worst in found["worst"].items():
        group = ["none is large enough", DASH, DASH]
        if worst:
            group = [group_name(worst["attribute"], worst["group"]), count(worst["lesions"]), decimal(worst["value"], worst)]
        rows.append([name_of(metric), *group, measured(found["all"], metric)])
    header = ["metric", "worst group", "its lesions", "its value", "all"]
    return Table(f"The worst group of each metric, test; {level(found['bootstrap'])}", header, rows, labels=2)


def group_name(attribute: str, group: str) -> str:
    """A group by what a person calls its column of metadata, and its value."""
    return f"{ATTRIBUTES.get(attribute, attribute)}: {group}"


def groups_table(groups: pd.DataFrame) -> Table:
    """Every group; a cell of a small group is marked."""
    sizes = ["images", "lesions", "melanoma_lesions"]
    rows = [
        [group_name(*names), *map(count, part[sizes].iloc[0]), *cells(part)]
        for names, part in groups.groupby(["attribute", "group"], sort=False)
    ]
    header = ["group", "images", "lesions", "melanoma lesions", *(name_of(metric) for metric in GROUP_METRICS)]
    return Table("Every group, test", header, rows)


def cells(part: pd.DataFrame) -> Iterator[str]:
    """The metrics of one group, in the order of `GROUP_METRICS`; small ones with a star."""
    by_metric = {row["metric"]: row for row in part.to_dict(orient="records")}
    for metric in GROUP_METRICS:
        row = {name: None if pd.isna(value) else value for name, value in by_metric[metric].items()}
        yield decimal(row["value"], row) + ("\u00a0*" if row["small"] else "")


def failures(inputs: Inputs) -> Chapter:
    """How many melanomas were missed and how many errors were confident; the list lies in a file."""
    listed = Paragraph("Every one of them, with its metadata, is a row of `data/failures/failures.csv`.")
    return Chapter("failures", "Failures", [failure_facts(inputs), listed])


def failure_facts(inputs: Inputs) -> Facts:
    """Missed melanomas and confident errors."""
    found = inputs.metrics["failures"]
    missed, confident = found["missed_melanomas"], found["confident_errors"]
    melanomas = f"{count(missed['images'])} of {count(found['melanomas']['images'])} images"
    errors = f"{count(confident['images'])} of {count(found['errors'])} errors"
    return Facts(
        [
            ("missed melanomas (another diagnosis is the most probable)", melanomas),
            (f"errors with confidence ≥ {found['min_confidence']:g}", errors),
        ]
    )


def neighbors(inputs: Inputs, plots: Plots) -> Chapter:
    """What the training cases nearest to an image say of it, and whether that tells right from wrong."""
    found = inputs.metrics["neighbors"]
    searched = Facts(
        [
            ("neighbours of each test image", count(found["k"])),
            ("training lesions, each by its nearest image", count(found["searched"]["lesions"])),
            ("nearness", "cosine similarity of the features that the head is given"),
            ("all neighbours", "`plots/neighbors/neighbors.csv`"),
            ("errors with their neighbours", "`plots/neighbors/neighbors_1.png` and the pages after it"),
        ]
    )
    shares = found["share_of_truth"]
    by_class = [
        [dx, count(each["images"]), bounded(each), percent(each["training_lesions"])] for dx, each in shares["by_class"].items()
    ]
    by_class.append(["all", count(shares["all"]["images"]), bounded(shares["all"]), DASH])
    metrics = [
        [name_of(metric), bounded(each["vote"]), bounded(each["network"]), bounded(each["difference"], signed=True)]
        for metric, each in found["metrics"].items()
    ]
    beside = f"A vote of the neighbours beside the network, test; {level(found['bootstrap'])}, of the difference paired"
    share = "Share of the neighbours of the true class, test; of neighbours drawn at random it would be the last column"
    blocks = [
        searched,
        agreement_table(found),
        detection_table(found),
        Table(beside, ["metric", "vote of the neighbours", "network", "vote less network"], metrics),
        Table(share, ["true class", "images", "share", "of the training lesions"], by_class),
        plots.draw("neighbors_share"),
    ]
    return Chapter("neighbors", "Nearest training cases", blocks)


def agreement_table(found: dict[str, Any]) -> Table:
    """Whether the network is right more often where its neighbours agree with it."""
    agreement = found["agreement"]
    rows = [
        [words, count(agreement[name]["images"]), bounded(agreement[name])]
        for name, words in {"agree": "the vote agrees with the network", "disagree": "it does not"}.items()
    ]
    rows.append(["difference", DASH, bounded(agreement["difference"], signed=True)])
    return Table("Accuracy of the network by what its neighbours vote, test", ["images of which", "images", "accuracy"], rows)


def detection_table(found: dict[str, Any]) -> Table:
    """Whether neighbours tell right predictions from wrong ones better than the network's own confidence."""
    detection = found["error_detection"]
    rows = [
        ["share of neighbours of the predicted class", bounded(detection["neighbors"])],
        ["the network's confidence", bounded(detection["confidence"])],
        ["difference", bounded(detection["difference"], signed=True)],
    ]
    return Table("Right predictions ranked above wrong ones, test", ["ranked by", "AUC"], rows)
