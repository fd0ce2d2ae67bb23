"""Headline metrics in groups of images: by age band, sex, site, way of diagnosis and, where it is known, acquisition source.

Groups differ in more than what they are named after. A group of follow-up nevi has one diagnosis, so its balanced accuracy is the
recall of nevi; one without melanoma has no melanoma figures at all. Hence every row says how many melanomas it holds.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.config.schema import BootstrapParams
from skinlesion.evaluation.metrics.bootstrap import Measure, estimate
from skinlesion.evaluation.metrics.classification import area_under_roc, flagged_counts, rank_scores
from skinlesion.evaluation.metrics.tables import metrics_of

UNKNOWN = "unknown"
SOURCE = "dataset"  # the column of Dataverse's metadata; Kaggle's lacks it
# Of the patient, the lesion or the camera. `dx_type` is none of them: it says how the truth was found.
ATTRIBUTES_OF_THE_CASE: tuple[str, ...] = ("age", "sex", "localization", SOURCE)
METRICS: tuple[str, ...] = (
    *("accuracy", "balanced_accuracy", "macro_f1", "macro_auc"),
    *("mel_auc", "mel_sensitivity", "mel_specificity"),
)
COLUMNS: tuple[str, ...] = (
    *("attribute", "group", "metric", "value", "low", "high"),
    *("images", "lesions", "melanoma_lesions", "small"),
)


def age_bands(ages: pd.Series, starts: list[float]) -> pd.Categorical:
    """The band of each age, ordered: 'below 30', '30 to below 50', ..., '70 and over', 'unknown'.

    ages : years, NaN where unknown. starts : ages at which the second band and the following ones begin, rising.
    """
    written = [f"{start:g}" for start in starts]
    inner = [f"{low} to below {high}" for low, high in pairwise(written)]
    names = [f"below {written[0]}", *inner, f"{written[-1]} and over", UNKNOWN]
    positions = np.where(ages.isna(), len(names) - 1, np.searchsorted(starts, ages.to_numpy(dtype=np.float64), side="right"))
    return pd.Categorical.from_codes(positions, categories=names, ordered=True)


def assign_groups(table: pd.DataFrame, *, starts: list[float]) -> pd.DataFrame:
    """The group of every row of a prediction table: a column an attribute; `dataset` only where the table has it."""
    groups = {"age": age_bands(table["age"], starts)}
    groups |= {name: table[name] for name in ("sex", "localization", "dx_type", SOURCE) if name in table.columns}
    return pd.DataFrame(groups, index=table.index)


def measures_of(table: pd.DataFrame) -> Measure:
    """`METRICS` of a prediction table as a function of image weights, each float64 (draws,)."""
    measured = metrics_of(table)
    ranking = rank_scores((table["dx"] == "mel").to_numpy(), table["probability_mel"].to_numpy())

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = measured.headline(weights) | {"mel_auc": area_under_roc(*flagged_counts(ranking, weights))}
        return {name: values[name] for name in METRICS}

    return measure


def measure_table(table: pd.DataFrame, how: BootstrapParams) -> dict[str, Any]:
    """`METRICS`, their `intervals` by bootstrap over lesions, and how many `images`, `lesions` and `melanoma_lesions` there are.

    A metric that is undefined, as those of melanoma where there is none, is NaN, and so are the ends of its interval.
    """
    return {
        "images": len(table),
        "lesions": int(table["lesion_id"].nunique()),
        "melanoma_lesions": int(table.loc[table["dx"] == "mel", "lesion_id"].nunique()),
        **estimate(measures_of(table), table["lesion_id"], how),
    }


def measure_groups(table: pd.DataFrame, groups: pd.DataFrame, how: BootstrapParams) -> pd.DataFrame:
    """`measure_table` of every group, as rows of `COLUMNS` but `small`: one an attribute, group and metric."""
    rows = []
    for attribute in groups:
        for group, positions in groups.groupby(attribute, observed=True).groups.items():
            measured = measure_table(table.loc[positions], how)
            counts = {name: measured[name] for name in ("images", "lesions", "melanoma_lesions")}
            for metric in METRICS:
                interval = measured["intervals"][metric]
                named = {"attribute": attribute, "group": group, "metric": metric, "value": measured[metric]}
                rows.append(named | interval | counts)
    return pd.DataFrame(rows)


def flag_small(rows: pd.DataFrame, *, min_lesions: int, min_melanomas: int) -> pd.Series:
    """Whether a row rests on too little: fewer lesions than `min_lesions`, or, of a melanoma metric, fewer melanomas."""
    of_melanoma = rows["metric"].str.startswith("mel_")
    return (rows["lesions"] < min_lesions) | (of_melanoma & (rows["melanoma_lesions"] < min_melanomas))


def worst_groups(rows: pd.DataFrame, metrics: Iterable[str] = METRICS) -> dict[str, dict[str, Any] | None]:
    """For each metric the group of the lowest value, the first among equals; None where no group has one.

    Only groups of the patient, the lesion or the camera that are not `small` and not of unknown attribute: those for whom a
    user would ask.
    """
    asked = rows[rows["attribute"].isin(ATTRIBUTES_OF_THE_CASE) & ~rows["small"] & (rows["group"] != UNKNOWN)]
    worst: dict[str, dict[str, Any] | None] = {}
    for metric in metrics:
        defined = asked[asked["metric"] == metric].dropna(subset=["value"])
        if defined.empty:
            worst[metric] = None
            continue
        row = defined.loc[defined["value"].idxmin()]
        names = ("attribute", "group", "value", "low", "high", "images", "lesions", "melanoma_lesions")
        worst[metric] = {name: row[name].item() if hasattr(row[name], "item") else row[name] for name in names}
    return worst
