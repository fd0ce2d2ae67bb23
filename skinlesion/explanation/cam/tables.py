"""The tables that the plots of `gradcam` are drawn from: measures, curves, the sanity check, and the figures of each image."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import write_table
from skinlesion.explanation.cam.deletion import shares
from skinlesion.explanation.cam.faithfulness import FIGURES, ORDERS, Faithfulness
from skinlesion.explanation.cam.summary import CONTROLS, common_positions

MEASURE_COLUMNS = ("method", "grouping", "group", "measure", "of", "value", "low", "high", "images")
CURVE_COLUMNS = ("curve", "order", "share", "probability")
SANITY_COLUMNS = ("method", "compared_with", "correlation", "low", "high")
IMAGE_COLUMNS = ("image_id", "lesion_id", "dx", "predicted", "outcome", "method", *(name.replace(" ", "_") for name in FIGURES))

Summary = Mapping[str, Any]


def write_tables(measured: Mapping[str, Faithfulness], summary: Summary, table: pd.DataFrame, folder: Path) -> None:
    """Write `faithfulness.csv`, `groups.csv` (of the first method), `curves.csv`, `sanity.csv` and `images.csv`.

    table : of the subject, a row an image: `image_id`, `lesion_id`, `dx`, `predicted`, `outcome`.
    """
    measures = measures_table(summary)
    of_all = measures["grouping"] == "all"
    write_table(measures[of_all], folder / "faithfulness.csv", MEASURE_COLUMNS)
    write_table(measures[~of_all & (measures["method"] == next(iter(measured)))], folder / "groups.csv", MEASURE_COLUMNS)
    write_table(curves_table(measured), folder / "curves.csv", CURVE_COLUMNS)
    write_table(sanity_table(summary), folder / "sanity.csv", SANITY_COLUMNS)
    write_table(images_table(measured, table), folder / "images.csv", IMAGE_COLUMNS)


def measures_table(summary: Summary) -> pd.DataFrame:
    """A row a method, group, measure and what is measured (`map`, or a control), as `MEASURE_COLUMNS`, but for undefined ones."""
    rows = []
    for method, found in summary["methods"].items():
        groups = [("all", "all images", found)]
        groups += [("class", dx, each) for dx, each in found["by_class"].items()]
        groups += [("outcome", outcome, each) for outcome, each in found["by_outcome"].items()]
        rows += [
            (method, grouping, group, measure, *drawn)
            for grouping, group, each in groups
            for measure in CONTROLS
            for drawn in _drawn(each["measures"][measure], measure)
        ]
    return pd.DataFrame(rows, columns=list(MEASURE_COLUMNS))


def _drawn(found: Summary, measure: str) -> list[tuple[Any, ...]]:
    """`of`, `value`, `low`, `high`, `images` of a measure and of its controls, which have no interval of their own."""
    if found["value"] is None:
        return []
    rows = [("map", found["value"], found["low"], found["high"], found["images"])]
    controls = [(control, found[control]["value"]) for control in CONTROLS[measure]]
    return rows + [(control, value, None, None, found["images"]) for control, value in controls if value is not None]


def curves_table(measured: Mapping[str, Faithfulness]) -> pd.DataFrame:
    """Mean curves of deletion and insertion over the images that all methods have, columns as `CURVE_COLUMNS`.

    `order` is a method, `random` or `center`; the controls are those of the first method.
    """
    common = common_positions(measured)
    rows = []
    for number, (method, one) in enumerate(measured.items()):
        chosen = np.searchsorted(one.positions, common)
        orders = {method: one.curves["map"], **({name: one.curves[name] for name in ORDERS} if number == 0 else {})}
        for order, both in orders.items():
            for curve, values in zip(("deletion", "insertion"), both, strict=True):
                means = values[chosen].mean(axis=0)
                rows += [(curve, order, *point) for point in zip(shares(len(means) - 1), means, strict=True)]
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def sanity_table(summary: Summary) -> pd.DataFrame:
    """Rank correlation with the maps of the network shuffled to each depth, and with those of mirrored images."""
    rows = [
        (method, name, each["value"], each["low"], each["high"])
        for method, found in summary["methods"].items()
        for name, each in ({"mirrored image": found["measures"]["flip"]} | found["sanity"]["by_depth"]).items()
        if each["value"] is not None
    ]
    return pd.DataFrame(rows, columns=list(SANITY_COLUMNS))


def images_table(measured: Mapping[str, Faithfulness], table: pd.DataFrame) -> pd.DataFrame:
    """The figures of each image and method, columns as `IMAGE_COLUMNS`."""
    parts = []
    for method, one in measured.items():
        about = table.iloc[one.positions][["image_id", "lesion_id", "dx", "predicted", "outcome"]].reset_index(drop=True)
        figures = one.figures.rename(columns=lambda name: name.replace(" ", "_"))
        parts.append(pd.concat([about.assign(method=method), figures], axis=1))
    return pd.concat(parts, ignore_index=True)
