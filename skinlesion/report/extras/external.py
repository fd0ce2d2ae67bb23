"""The classifier on images of another source, beside the test images of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion.report.blocks import Block, Facts, Note, Table
from skinlesion.report.formats import HEADLINE, bounded, count, level, name_of

RATES = ("sensitivity", "specificity")
SETS = ("external", "test", "difference")


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
    rows = [
        [name_of(metric), *(bounded(compared[key][metric], signed=key == "difference") for key in SETS)]
        for metric in HEADLINE
        if metric in compared["external"]
    ]
    caption = f"External beside internal test; {level(content['bootstrap'])}"
    tables = [Table(caption, ["metric", *SETS], rows), points_table(content["operating_points"])]
    note = Note("The external images are synthetic: these figures say nothing about skin.")
    return [Facts(facts), note, *tables] if content["data"]["synthetic"] else [Facts(facts), *tables]


def points_table(measured: Mapping[str, Any]) -> Table:
    """Sensitivity and specificity of the frozen thresholds in both sets."""
    rows = [
        [name, f"{point['threshold']:.4f}", *(bounded(point[where][rate]) for rate in RATES for where in ("external", "test"))]
        for name, point in measured["points"].items()
    ]
    header = ["operating point", "threshold", *(f"{rate}, {where}" for rate in RATES for where in ("external", "test"))]
    return Table(f"Frozen thresholds for {measured['target']}", header, rows)
