"""The classifier exported to ONNX: whether it says the same as torch, and what int8 costs and gains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion.report.blocks import Block, Facts, Table
from skinlesion.report.formats import bounded, count, decimal, level, name_of, percent

ENGINES = {"torch": "torch", "float32": "ONNX, float32", "int8": "ONNX, int8"}


def section(content: Mapping[str, Any]) -> list[Block]:
    """Parity and size of both graphs, the metrics of int8 beside torch's, and times."""
    facts = [("test images", count(content["images"]))]
    facts += [
        (f"largest difference of a probability from torch's, {ENGINES[name]}", f"{parity['largest_difference']:.2g}")
        for name, parity in content["parity"].items()
    ]
    facts.append(("macro AUC of int8 less torch", bounded(content["compared"]["difference"]["macro_auc"], signed=True)))
    return [Facts(facts), parity_table(content), metrics_table(content), speed_table(content["speed"])]


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


def metrics_table(content: Mapping[str, Any]) -> Table:
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
