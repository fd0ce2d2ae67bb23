"""How faithful maps are, as `metrics/gradcam.json` says it: means with intervals over lesions, by class and outcome; verdicts."""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import bootstrap_intervals, point_estimate
from skinlesion.explanation.cam.energy import OUTCOMES
from skinlesion.explanation.cam.faithfulness import Faithfulness
from skinlesion.explanation.cam.members import count_zero_maps
from skinlesion.explanation.cam.randomization import DEPTHS, FULL

# What a measure is held against, and whether larger values than those are better (1) or smaller ones (-1).
CONTROLS: dict[str, tuple[str, ...]] = {
    "energy": ("other",),
    "pointing": ("center",),
    "deletion": ("random", "center"),
    "insertion": ("random", "center"),
    "flip": (),
    "shuffled": (),
}
BETTER: dict[str, int] = {"energy": 1, "pointing": 1, "deletion": -1, "insertion": 1}

# The sanity check is passed where even the upper end of the interval lies below: maps of the shuffled network then share less
# than a quarter of the variance of the ranks (the mean squared rank correlation) with the trained one's. Squared, because maps
# that are turned upside down are no other maps.
SHARED_LIMIT = 0.25
LEAST_DEFINED = 0.5  # share of the images whose map, and shuffled map, rank anything: with fewer the check says nothing
LEAST_LESIONS = 10  # with fewer an interval of the bootstrap is too narrow for a verdict

Summary = dict[str, Any]


def summarize(measured: Mapping[str, Faithfulness], table: pd.DataFrame, how: BootstrapParams) -> Summary:
    """Every method's summary, and that of all methods on the images that all of them were measured on.

    Parameters
    ----------
    table : of the subject, a row an image: `lesion_id`, `dx`, `outcome` (correct | wrong).

    Returns
    -------
    `methods`: by name, `layers`, number of `zero_maps` and of `images`, `measures` (by name, see `summarize_groups`) over all
    images, `by_class` and `by_outcome` the same for those images (with `images`), and `sanity`, see `judge_sanity`. `compared`:
    `images` and, by method, `measures`; None with a single method.
    """
    methods: Summary = {}
    for name, one in measured.items():
        rows = table.iloc[one.positions].reset_index(drop=True)
        groups = {"all": np.ones(len(rows), dtype=bool)}
        groups |= {dx: (rows["dx"] == dx).to_numpy() for dx in CLASSES}
        groups |= {outcome: (rows["outcome"] == outcome).to_numpy() for outcome in OUTCOMES}
        found = summarize_groups(one.figures, rows["lesion_id"], groups, how)
        counted = {group: {"images": int(members.sum()), "measures": found[group]} for group, members in groups.items()}
        methods[name] = {
            "layers": layers_of(one),
            "zero_maps": count_zero_maps(list(one.maps.values())),
            **counted["all"],
            "by_class": {dx: counted[dx] for dx in CLASSES},
            "by_outcome": {outcome: counted[outcome] for outcome in OUTCOMES},
            "sanity": judge_sanity(one.figures, rows["lesion_id"], how),
        }
    return {"methods": methods, "compared": compare(measured, table, how) if len(measured) > 1 else None}


def layers_of(measured: Faithfulness) -> Summary:
    """Layer and cells of each member."""
    return {name: {"layer": one.layer.name, "cells": [one.layer.side] * 2} for name, one in measured.maps.items()}


def compare(measured: Mapping[str, Faithfulness], table: pd.DataFrame, how: BootstrapParams) -> Summary:
    """The measures of every method on the same images: those that all were measured on."""
    common = common_positions(measured)
    everyone = {"all": np.ones(len(common), dtype=bool)}
    lesions = table["lesion_id"].iloc[common].reset_index(drop=True)
    methods = {}
    for name, one in measured.items():
        chosen = one.figures.iloc[np.searchsorted(one.positions, common)].reset_index(drop=True)
        methods[name] = summarize_groups(chosen, lesions, everyone, how)["all"]
    return {"images": len(common), "methods": methods}


def common_positions(measured: Mapping[str, Faithfulness]) -> np.ndarray:
    """Positions, rising, of the images that every method was measured on."""
    return reduce(np.intersect1d, [one.positions for one in measured.values()])


def summarize_groups(
    figures: pd.DataFrame, lesion_ids: pd.Series, groups: Mapping[str, np.ndarray], how: BootstrapParams
) -> dict[str, Summary]:
    """Each measure's mean over the images of each group, beside what it is held against.

    Parameters
    ----------
    figures : `skinlesion.explanation.cam.faithfulness.FIGURES` of N images.
    groups : by name, bool (N,).

    Returns
    -------
    By group and measure: `images` and `lesions` in which the measure is defined, their mean `value` with `low` and `high`, None
    without any; and by control, over the `images` in which both are defined, its `value`, the mean `difference` (measure minus
    control) with `difference_low` and `difference_high`, and the `verdict`: `better` or `worse` where the interval of the
    difference leaves out zero and there are at least `LEAST_LESIONS` lesions, else `undecided`.
    """
    columns: dict[tuple[str, str], np.ndarray] = {}
    for group, chosen in groups.items():
        for measure, controls in CONTROLS.items():
            values = np.where(chosen, figures[measure].to_numpy(dtype=np.float64), np.nan)
            columns[group, measure] = values
            for control in controls:
                other = figures[f"{measure}_{control}"].to_numpy(dtype=np.float64)
                columns[group, f"{measure} - {control}"] = values - other
                columns[group, f"{control} of {measure}"] = np.where(np.isnan(values), np.nan, other)
    means = mean_intervals(np.column_stack(list(columns.values())), lesion_ids, how)
    found = dict(zip(columns, means, strict=True))
    return {group: {measure: _with_controls(found, group, measure) for measure in CONTROLS} for group in groups}


def _with_controls(found: Mapping[tuple[str, str], Summary], group: str, measure: str) -> Summary:
    """One measure of one group."""
    content = dict(found[group, measure])
    for control in CONTROLS[measure]:
        difference = found[group, f"{measure} - {control}"]
        content[control] = {
            "images": difference["images"],
            "value": found[group, f"{control} of {measure}"]["value"],
            "difference": difference["value"],
            "difference_low": difference["low"],
            "difference_high": difference["high"],
            "verdict": verdict(difference, BETTER[measure]),
        }
    return content


def verdict(difference: Summary, better: int) -> str | None:
    """`better`, `worse` or `undecided`, from the interval of a difference; None where there is no image to judge by."""
    if not difference["images"]:
        return None
    if difference["lesions"] < LEAST_LESIONS:
        return "undecided"
    low, high = sorted(better * difference[end] for end in ("low", "high"))
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def mean_intervals(columns: np.ndarray, lesion_ids: pd.Series, how: BootstrapParams) -> list[Summary]:
    """The mean of each column over its images that are not NaN: `images`, `lesions`, `value`, and its interval `low` and `high`.

    The interval is None where one lesion alone has a value: drawing it again and again says nothing.

    columns : float64 (N, K). lesion_ids : of the N images.
    """
    defined = (~np.isnan(columns)).astype(np.float64)
    filled = np.nan_to_num(columns)

    def means(weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            drawn = (weights @ filled) / (weights @ defined)
        return {str(number): drawn[:, number] for number in range(columns.shape[1])}

    values = point_estimate(means, len(columns))
    intervals = bootstrap_intervals(means, lesion_ids, how)
    ids = lesion_ids.to_numpy()
    described = []
    for number in range(columns.shape[1]):
        chosen = defined[:, number] > 0
        lesions = len(set(ids[chosen]))
        interval = intervals[str(number)] if lesions > 1 else {"low": None, "high": None}
        value = float(values[str(number)]) if chosen.any() else None
        described.append({"images": int(chosen.sum()), "lesions": lesions, "value": value, **interval})
    return described


def judge_sanity(figures: pd.DataFrame, lesion_ids: pd.Series, how: BootstrapParams) -> Summary:
    """Whether maps change as they must when weights are shuffled from the top down.

    Returns
    -------
    `passed`: the upper end of the mean squared rank correlation with the maps of the wholly shuffled network is below the
    `limit`; None where it is undefined, or too few images have one. `by_depth`: the mean rank correlation and its interval,
    `shared`, the mean of its square with its interval, and `without_ranks`, the share of images in which a map is the same
    everywhere, mostly zero, and so ranks nothing.
    """
    names = {depth: "shuffled" if depth == FULL else f"shuffled {depth}" for depth in DEPTHS}
    signed = figures[list(names.values())].to_numpy(dtype=np.float64)
    found = mean_intervals(np.column_stack([signed, signed**2]), lesion_ids, how)
    by_depth = {}
    for depth, correlation, shared in zip(names, found[: len(names)], found[len(names) :], strict=True):
        without = 1 - correlation["images"] / len(figures)
        by_depth[depth] = {**correlation, "shared": shared, "without_ranks": without}
    full = by_depth[FULL]["shared"]
    enough = full["images"] >= LEAST_DEFINED * len(figures) and full["lesions"] >= LEAST_LESIONS
    return {"passed": full["high"] < SHARED_LIMIT if enough else None, "limit": SHARED_LIMIT, "by_depth": by_depth}
