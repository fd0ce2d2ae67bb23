"""The tables that the plots of a prediction table are drawn from: confusion matrix, ROC and precision-recall curves."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from skinlesion.artifacts.tables import labels_of, logits_of, probabilities_of
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics import calibration_scores
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.metrics.classification import ClassificationMetrics, ratio, thin

CURVE_POINTS = 200


def plot_tables(table: pd.DataFrame, metrics: dict[str, Any], calibrator: Calibrator, bins: int) -> dict[str, pd.DataFrame]:
    """The tables that the plots of a prediction table are drawn from, by file name.

    metrics : what `metrics/evaluate.json` says of it: `per_class`, and `intervals` with the F1 of each class.
    """
    labels, logits, probabilities = labels_of(table), logits_of(table), probabilities_of(table)
    confusion = ClassificationMetrics(labels, probabilities).confusion(np.ones((1, len(table))))[0]
    per_class = [
        {"dx": dx, "f1": values["f1"], **metrics["intervals"][f"f1_{dx}"], "support": values["support"]}
        for dx, values in metrics["per_class"].items()
    ]
    return {
        "confusion": confusion_table(confusion),
        "roc": roc_table(labels, probabilities, most=CURVE_POINTS),
        "precision_recall": precision_recall_table(labels, probabilities, most=CURVE_POINTS),
        "reliability": calibration_scores.reliability_before_after(labels, logits, calibrator=calibrator, bins=bins),
        "reliability_per_class": calibration_scores.reliability_per_class(labels, probabilities, bins),
        "confidence": calibration_scores.confidence_table(labels, probabilities),
        "per_class": pd.DataFrame(per_class),
    }


def confusion_table(confusion: np.ndarray) -> pd.DataFrame:
    """A confusion matrix (classes, classes) as rows: `actual, predicted, images, share` (of the actual class's images)."""
    shares = ratio(confusion, confusion.sum(axis=1, keepdims=True), undefined=np.nan)
    pairs = [(actual, predicted) for actual in CLASSES for predicted in CLASSES]
    table = pd.DataFrame(pairs, columns=["actual", "predicted"])
    return table.assign(images=confusion.ravel().astype(np.int64), share=shares.ravel())


def roc_table(labels: np.ndarray, probabilities: np.ndarray, *, most: int) -> pd.DataFrame:
    """ROC curve of each class against the rest: `dx, false_positive_rate, true_positive_rate`, at most `most` points each.

    Points inside straight runs are left out, then, above `most`, some of the others; those left are points of the curve.
    A class for which the curve is undefined (absent, or alone) has no row.
    """
    names = ["false_positive_rate", "true_positive_rate"]
    curves = [
        _curve(dx, names, *roc_curve(positive, scores)[:2], most=most)
        for dx, positive, scores in _one_against_the_rest(labels, probabilities)
        if not positive.all()
    ]
    return pd.concat(curves, ignore_index=True)


def precision_recall_table(labels: np.ndarray, probabilities: np.ndarray, *, most: int) -> pd.DataFrame:
    """Precision-recall curve of each class against the rest, by rising recall: `dx, recall, precision`, thinned like `roc_table`.

    A class that is absent has no row.
    """
    curves = []
    for dx, positive, scores in _one_against_the_rest(labels, probabilities):
        precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
        curves.append(_curve(dx, ["recall", "precision"], recall[::-1], precision[::-1], most=most))
    return pd.concat(curves, ignore_index=True)


def _one_against_the_rest(labels: np.ndarray, probabilities: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, truth (bool) and scores of each class that is there."""
    for index, dx in enumerate(CLASSES):
        if (labels == index).any():
            yield dx, labels == index, probabilities[:, index]


def _curve(dx: str, names: list[str], x: np.ndarray, y: np.ndarray, *, most: int) -> pd.DataFrame:
    """The thinned curve of a class, columns `dx` and `names`."""
    points = np.stack([x, y], axis=1)
    table = pd.DataFrame(points[thin(points, most)], columns=names)
    table.insert(0, "dx", dx)
    return table
