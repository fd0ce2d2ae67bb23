"""The classifier on images of another source, beside the test images of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion.report.blocks import Block, Facts, Note, Table
from skinlesion.report.formats import HEADLINE, bounded, count, level, name_of

RATES = ("sensitivity", "specificity")


def section(content: Mapping[str, Any]) -> list[Block]:
    """The proof that the sets share nothing, headline metrics, and what the frozen thresholds achieve."""
    compared, proof = content["compared"], content["proof"]
    facts = [
        ("source", f"`{content['data']['source']}`"),
        ("images / lesions", f"{count(proof['external']['images'])} / {count(proof['external']['lesions'])}"),
        ("shared with this data set, by id, file, pixels or thumbnail", count(sum(proof["shared"].values()))),
        ("macro AUC", bounded(compared["external"]["macro_auc"])),
        ("macro AUC, internal test", bounded(compared["test"]["macro_auc"])),
    ]
    metrics = [metric for metric in HEADLINE if metric in compared["external"]]
    rows = [
        [name_of(metric), *(bounded(compared[where][metric]) for where in ("external", "test")), difference(compared, metric)]
        for metric in metrics
    ]
    return [
        Facts(facts),
        *(
            [Note("The external images are synthetic: these figures say nothing about skin.")]
            if content["data"]["synthetic"]
            else []
        ),
        Table(
            f"External beside internal test; {level(content['bootstrap'])}", ["metric", "external", "test", "difference"], rows
        ),
        points_table(content["operating_points"]),
    ]


def difference(compared: Mapping[str, Any], metric: str) -> str:
    """External less test, with its sign."""
    return bounded(compared["difference"][metric], signed=True)


def points_table(measured: Mapping[str, Any]) -> Table:
    """Sensitivity and specificity of the frozen thresholds in both sets."""
    rows = [
        [name, f"{point['threshold']:.4f}", *(bounded(point[where][rate]) for rate in RATES for where in ("external", "test"))]
        for name, point in measured["points"].items()
    ]
    header = ["operating point", "threshold", *(f"{rate}, {where}" for rate in RATES for where in ("external", "test"))]
    return Table(f"Frozen thresholds for {measured['target']}", header, rows)
