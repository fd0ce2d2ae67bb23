"""What corrupted test images do to the metrics: each measured with its interval, and in pairs with the clean images.

Clean and corrupted predictions are of the same images and are measured in the same bootstrap draws of lesions, so the difference
of two draws is a draw of the difference, as in `skinlesion.evaluation.metrics.pairing`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import labels_of, probabilities_of
from skinlesion.audits.robustness.corruptions import Condition
from skinlesion.config.contents import OperatingPoints
from skinlesion.config.schema import BootstrapParams
from skinlesion.evaluation.analysis.thresholds import audit, target_scores
from skinlesion.evaluation.metrics.bootstrap import Measure, Measured, percentile_intervals
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.metrics.tables import metrics_of

METRICS: tuple[str, ...] = (*HEADLINE, "ece")
RATES: tuple[str, ...] = ("sensitivity", "specificity")  # of an operating point
SUMMARY: tuple[str, ...] = ("accuracy", "macro_auc", "mel_sensitivity", "ece")
WORSE_IF_HIGHER: tuple[str, ...] = ("ece",)

BOUNDS: tuple[str, ...] = ("", "_low", "_high")
METRIC_COLUMNS = (*Condition._fields, "metric", *(f"{name}{bound}" for name in ("value", "difference") for bound in BOUNDS))
POINT_COLUMNS = (*Condition._fields, "point", "threshold", *(f"{rate}{bound}" for rate in RATES for bound in BOUNDS))


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> Measure:
    """ECE as `{"ece": float64 (draws,)}`, a function of image weights; with ones that of `metrics.calibration_scores`.

    A draw has more noise in its bins than the data, so draws of a small ECE lie above it, and so may its interval.

    labels : int (images,). probabilities : float (images, classes). bins : of equal width, of the highest probability.
    """
    confidence = probabilities.max(axis=1)
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    gaps = np.eye(bins)[place] * ((probabilities.argmax(axis=1) == labels) - confidence)[:, None]
    return lambda weights: {"ece": np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1)}


def measure_table(table: pd.DataFrame, points: OperatingPoints, how: BootstrapParams, *, bins: int) -> Measured:
    """Measure a prediction table by `METRICS` and, with frozen thresholds, each of `RATES` a point, as `sensitivity@youden`.

    Raises
    ------
    PipelineError
        No image of the target of the operating points, or no other.
    """
    classified, error = metrics_of(table), calibration_error(labels_of(table), probabilities_of(table), bins)
    positive, scores = target_scores(table, points.classes, split="test")
    audits = {name: audit(positive, scores, point.threshold) for name, point in points.points.items()}

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = classified.headline(weights) | error(weights)
        values = {name: values[name] for name in METRICS}
        for name, audited in audits.items():
            rates = audited(weights)
            values |= {f"{rate}@{name}": rates[rate] for rate in RATES}
        return values

    return Measured.of(measure, table["lesion_id"], how)


def mean_of(several: Iterable[Measured]) -> Measured:
    """The mean of tables of the same images, each of them counting once, draw by draw."""
    tables = list(several)
    values = {name: float(np.mean([each.values[name] for each in tables])) for name in tables[0].values}
    return Measured(values, {name: np.mean([each.drawn[name] for each in tables], axis=0) for name in values})


def bounded(measured: Measured, name: str, confidence: float, *, prefix: str) -> dict[str, float]:
    """A metric with its interval, as `{prefix, prefix_low, prefix_high}`."""
    interval = percentile_intervals({name: measured.drawn[name]}, confidence)[name]
    return {prefix: measured.values[name], f"{prefix}_low": interval["low"], f"{prefix}_high": interval["high"]}


def metric_rows(condition: Condition, measured: Measured, clean: Measured, *, confidence: float) -> list[dict[str, Any]]:
    """Rows of `METRIC_COLUMNS`, one a metric of `METRICS`."""
    apart = measured.less(clean)
    return [
        {
            **condition._asdict(),
            "metric": name,
            **bounded(measured, name, confidence, prefix="value"),
            **bounded(apart, name, confidence, prefix="difference"),
        }
        for name in METRICS
    ]


def point_rows(condition: Condition, measured: Measured, points: OperatingPoints, *, confidence: float) -> list[dict[str, Any]]:
    """Rows of `POINT_COLUMNS`, one an operating point."""
    rows = []
    for name, point in points.points.items():
        row = {**condition._asdict(), "point": name, "threshold": point.threshold}
        for rate in RATES:
            row |= bounded(measured, f"{rate}@{name}", confidence, prefix=rate)
        rows.append(row)
    return rows


def describe_mean(mean: Measured, clean: Measured, *, confidence: float, names: Iterable[str] = SUMMARY) -> dict[str, Any]:
    """Some metrics of a mean, each with interval and paired difference from the clean images."""
    apart = mean.less(clean)
    return {
        name: bounded(mean, name, confidence, prefix="mean") | bounded(apart, name, confidence, prefix="difference")
        for name in names
    }


def summarize(conditions: Mapping[Condition, Measured], clean: Measured, *, confidence: float) -> dict[str, Any]:
    """What metrics/extras/robustness.json says of the corrupted images.

    Returns
    -------
    corruptions : by name, the mean over its severities of each of `SUMMARY`, and the value `by_severity`.
    mean_corruption : the mean over corruptions, each counting as much, also of the rates of the operating points. It is not the
        mCE of ImageNet-C, which divides by the errors of another network.
    worst : by metric, the corruption of the worst mean, as `worst_of`.
    """
    names = list(dict.fromkeys(condition.corruption for condition in conditions))
    grouped = {name: {c: m for c, m in conditions.items() if c.corruption == name} for name in names}
    means = {name: mean_of(group.values()) for name, group in grouped.items()}
    rates = [name for name in clean.values if name not in METRICS]
    corruptions = {}
    for name, group in grouped.items():
        metrics = describe_mean(means[name], clean, confidence=confidence)
        for metric in SUMMARY:
            metrics[metric] |= {"by_severity": [measured.values[metric] for measured in group.values()]}
        corruptions[name] = {"strengths": [condition.strength for condition in group], **metrics}
    return {
        "corruptions": corruptions,
        "mean_corruption": describe_mean(mean_of(means.values()), clean, confidence=confidence, names=[*SUMMARY, *rates]),
        "worst": {
            metric: worst_of({name: mean.values[metric] for name, mean in means.items()}, clean.values[metric], metric)
            for metric in SUMMARY
        },
    }


def worst_of(values: Mapping[str, float], clean: float, metric: str) -> str | None:
    """The name of the worst value of a metric, the first among equals; None where none is worse than `clean` or one is NaN."""
    losses = {name: (value - clean) * (1 if metric in WORSE_IF_HIGHER else -1) for name, value in values.items()}
    if np.isnan(list(losses.values())).any():
        return None
    name = max(losses, key=lambda each: losses[each])
    return name if losses[name] > 1e-12 else None
