"""Confidence intervals by a bootstrap over lesions.

Images of one lesion resemble each other, so drawing images would feign more evidence than there is. Here lesions are drawn with
replacement, as many as there are, and each brings all of its images: the cluster bootstrap (Davison, Hinkley, Bootstrap Methods
and their Application, 1997, section 3.8). A draw is a row of integer weights, one an image.

How often a 95 % percentile interval of accuracy, sensitivity and AUC holds the true value was simulated with clustered images,
half of them positive (tests/evaluation/test_coverage.py): in 92 to 96 % of 500 sets of 600 lesions, 94 to 95 % on average over
four seeds; in 91 to 96 % of sets of 300 lesions, 93 to 94 % on average. The interval of a class of few lesions is a little too
narrow.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import BootstrapParams

# Weights of a chunk (8 bytes each): bounds memory, and small enough to stay near the processor's cache.
CHUNK_CELLS = 200_000

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]


def lesion_weights(lesion_ids: ArrayLike, *, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the weights of `draws` bootstrap draws in chunks, float64 arrays of whole numbers, shape (rows, images).

    The draws depend on the seed and the set of lesions alone, not on the order of the images or the size of a chunk: two
    models measured on the same images with the same seed see the same draws, which is what a paired comparison needs.

    Parameters
    ----------
    lesion_ids : str, shape (images,): the lesion that each image shows.

    Raises
    ------
    PipelineError
        No image, or an image without a lesion.
    """
    ids = np.asarray(lesion_ids, dtype=np.str_)
    if len(ids) == 0 or (ids == "").any():
        raise PipelineError(f"the bootstrap draws lesions, and {(ids == '').sum()} of {len(ids)} images have no lesion_id")
    lesions, lesion_of_image = np.unique(ids, return_inverse=True)
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK_CELLS // len(ids))
    for start in range(0, draws, rows):
        count = min(rows, draws - start)
        drawn = generator.integers(len(lesions), size=(count, len(lesions)))
        drawn += np.arange(count)[:, None] * len(lesions)
        times = np.bincount(drawn.ravel(), minlength=count * len(lesions)).reshape(count, len(lesions))
        yield times[:, lesion_of_image].astype(np.float64)


def bootstrap(measure: Measure, lesion_ids: ArrayLike, how: BootstrapParams) -> dict[str, np.ndarray]:
    """Apply `measure` to every draw.

    Parameters
    ----------
    measure : takes weights of shape (rows, images), gives a name and an array of shape (rows,) a metric.

    Returns
    -------
    float64 array of shape (draws,) a metric; NaN in the draws in which it is undefined.
    """
    chunks = [measure(weights) for weights in lesion_weights(lesion_ids, draws=how.draws, seed=how.seed)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def percentile_intervals(values: dict[str, np.ndarray], confidence: float) -> dict[str, dict[str, float]]:
    """Percentile interval of each metric as `{"low": ..., "high": ...}`.

    Draws in which a metric is undefined (NaN: for example the sensitivity of a class that was not drawn) are left out of
    that metric's interval; both ends are NaN if it is undefined in all.
    """
    tail = (1 - confidence) / 2
    intervals = {}
    for name, drawn in values.items():
        defined = drawn[~np.isnan(drawn)]
        low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (np.nan, np.nan)
        intervals[name] = {"low": float(low), "high": float(high)}
    return intervals


def bootstrap_intervals(measure: Measure, lesion_ids: ArrayLike, how: BootstrapParams) -> dict[str, dict[str, float]]:
    """`percentile_intervals` of `bootstrap`."""
    return percentile_intervals(bootstrap(measure, lesion_ids, how), how.confidence)


def point_estimate(measure: Measure, images: int) -> dict[str, float]:
    """What `measure` gives when every image counts once."""
    return {name: float(value[0]) for name, value in measure(np.ones((1, images))).items()}


def estimate(measure: Measure, lesion_ids: ArrayLike, how: BootstrapParams) -> dict[str, Any]:
    """`point_estimate`, and beside it `intervals`: `bootstrap_intervals`."""
    return point_estimate(measure, len(np.asarray(lesion_ids))) | {"intervals": bootstrap_intervals(measure, lesion_ids, how)}


class Measured(NamedTuple):
    """Metrics by name: `values` when every image counts once, and `drawn`, float64 (draws,) each, NaN where undefined."""

    values: dict[str, float]
    drawn: dict[str, np.ndarray]

    @classmethod
    def of(cls, measure: Measure, lesion_ids: pd.Series, how: BootstrapParams) -> "Measured":
        """What `measure` gives for some images, which show `lesion_ids`."""
        return cls(point_estimate(measure, len(lesion_ids)), bootstrap(measure, lesion_ids, how))

    def less(self, other: "Measured") -> "Measured":
        """The difference, draw by draw. It is paired where both are of the same images and drawn with one seed."""
        values = {name: self.values[name] - other.values[name] for name in other.values}
        return Measured(values, {name: self.drawn[name] - other.drawn[name] for name in other.drawn})

    def with_intervals(self, confidence: float) -> dict[str, dict[str, float]]:
        """`{metric: {"value", "low", "high"}}`; no interval where there is no value to be in it."""
        intervals = percentile_intervals(self.drawn, confidence)
        intervals |= {name: {"low": np.nan, "high": np.nan} for name, value in self.values.items() if np.isnan(value)}
        return {name: {"value": value, **intervals[name]} for name, value in self.values.items()}


def describe_draws(how: BootstrapParams) -> dict[str, int | float | str]:
    """What a file of metrics says of how its intervals were made."""
    return {"draws": how.draws, "unit": "lesion", "confidence": how.confidence, "seed": how.seed}
