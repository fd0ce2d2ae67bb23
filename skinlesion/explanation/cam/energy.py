"""Does the network look at the lesion? The share of a map's energy inside the lesion's mask, over the lesion's area share."""

import math
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import bootstrap_intervals, describe_draws

OUTCOMES = ("correct", "wrong")


def energy_ratio(placed: np.ndarray, lesion: np.ndarray) -> float:
    """Share of a map's energy inside the lesion, over the lesion's share of the area.

    1 is what a uniform map gives, above 1 the map prefers the lesion; at most 1 / area share. Dividing by the area makes
    small and large lesions comparable, which the plain share (Wang et al., Score-CAM, CVPR workshops 2020, section 4.3)
    does not.

    Parameters
    ----------
    placed : float map >= 0 over those pixels of the original that the network saw, shape (h, w).
    lesion : bool, the same shape.

    Returns
    -------
    NaN where the map is zero everywhere or the lesion has no pixel.
    """
    energy, area = placed.sum(), lesion.mean()
    return float(placed[lesion].sum() / energy / area) if energy > 0 and area > 0 else math.nan


def summarize_energy(table: pd.DataFrame, how: BootstrapParams) -> dict[str, Any]:
    """What `metrics/gradcam.json` says of the energy ratios.

    Parameters
    ----------
    table : a row an image: `lesion_id`, `dx`, `outcome` (correct | wrong), `energy_ratio` (NaN where undefined).

    Returns
    -------
    `bootstrap`: how the interval was made; `energy_ratio`: mean and median over the images in which it is defined, `low` and
    `high` of the mean's interval; `by_class` (truth) and `by_outcome`: number of these images and their median. All None if there
    is none.
    """
    if table["energy_ratio"].isna().all():
        return {"bootstrap": None, "energy_ratio": None, "by_class": None, "by_outcome": None}
    ratios = table["energy_ratio"].to_numpy(dtype=np.float64)
    defined = (~np.isnan(ratios)).astype(np.float64)

    def means(weights: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore"):
            return {"mean": (weights @ np.nan_to_num(ratios)) / (weights @ defined)}

    interval = bootstrap_intervals(means, table["lesion_id"], how)["mean"]
    return {
        "bootstrap": describe_draws(how),
        "energy_ratio": {"mean": np.nanmean(ratios), "median": np.nanmedian(ratios), **interval},
        "by_class": {dx: _median_where(table, "dx", dx) for dx in CLASSES},
        "by_outcome": {outcome: _median_where(table, "outcome", outcome) for outcome in OUTCOMES},
    }


def _median_where(table: pd.DataFrame, column: str, value: str) -> dict[str, float | int | None]:
    """Number of images with that value and the median of their energy ratios, None without images."""
    ratios = table.loc[table[column] == value, "energy_ratio"].dropna()
    return {"images": len(ratios), "median": float(ratios.median()) if len(ratios) else None}
