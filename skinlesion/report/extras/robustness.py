"""The test images corrupted: what each kind does to the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion.report.blocks import Block, Facts, Table
from skinlesion.report.formats import DASH, bounded, count, decimal, level, measured, name_of

SHOWN = ("accuracy", "macro_auc", "mel_sensitivity", "ece")


def section(content: Mapping[str, Any]) -> list[Block]:
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
