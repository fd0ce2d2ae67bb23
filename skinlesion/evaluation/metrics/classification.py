"""Classification metrics as functions of image weights: one implementation for the point estimate and every bootstrap draw.

Weights are an array of shape (draws, images), >= 0; image i counts as often as its weight says. A row of ones gives the
metric itself, and each row gives what scikit-learn gives for it as `sample_weight`.

Where a metric is undefined:

- A class without images in the (weighted) truth is absent: its recall, F1, AUC and average precision are NaN, and the macro
  averages and balanced accuracy run over the classes that are present. Weighted F1 gives it no weight anyway.
- A class that is never predicted has precision 0, and F1 0 if it is present (scikit-learn's `zero_division=0`).
- Without images of any other class, specificity and AUC are NaN.
- Files of metrics hold NaN as null.

A prediction is the class of highest probability, the first in the order of `CLASSES` among equal ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from skinlesion.diagnoses import CLASSES

HEADLINE: tuple[str, ...] = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "macro_auc",
    "macro_average_precision",
    "top2_accuracy",
    "mel_sensitivity",
    "mel_specificity",
)
# Those that stand for a classifier where there is room for few.
LEADING: tuple[str, ...] = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "mel_sensitivity", "mel_specificity")
PER_CLASS: tuple[str, ...] = ("precision", "recall", "specificity", "f1", "auc", "average_precision", "support")


def ratio(numerator: ArrayLike, denominator: ArrayLike, *, undefined: float) -> np.ndarray:
    """Divide elementwise (float64, broadcast); `undefined` where the denominator is 0."""
    over, under = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    divided: np.ndarray = np.divide(over, under, out=np.full(over.shape, undefined), where=under != 0)
    return divided


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is defined."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1), undefined=np.nan)


@dataclass(frozen=True)
class Ranking:
    """Images sorted once by falling score, for all thresholds and all weights.

    order : int64 (images,), the images' positions by falling score.
    positive : bool (images,), in that order.
    last : int64 (thresholds,), position in that order of the last image of each group of equal scores.
    thresholds : float64 (thresholds,), the distinct scores, falling. An image is flagged when score >= threshold.
    """

    order: np.ndarray
    positive: np.ndarray
    last: np.ndarray
    thresholds: np.ndarray


def rank_scores(positive: np.ndarray, scores: np.ndarray) -> Ranking:
    """Sort images, bool and float of shape (images,), by falling score and group equal scores."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return Ranking(order, np.asarray(positive, dtype=bool)[order], last, ordered[last])


def flagged_counts(ranking: Ranking, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at every threshold of a ranking: two float64 arrays of shape (draws, thresholds)."""
    ordered = weights[:, ranking.order]
    flagged = np.cumsum(ordered, axis=1, dtype=np.float64)[:, ranking.last]
    true_positives = np.cumsum(ordered * ranking.positive, axis=1, dtype=np.float64)[:, ranking.last]
    return true_positives, flagged - true_positives


def area_under_roc(true_positives: np.ndarray, false_positives: np.ndarray) -> np.ndarray:
    """Area under the ROC curve (trapezoids, so a tie counts half), shape (draws,), from `flagged_counts`."""
    rise = np.diff(true_positives, axis=1, prepend=0)
    above = false_positives - np.diff(false_positives, axis=1, prepend=0) / 2
    below = false_positives[:, -1:] - above  # each positive's negatives with a lower score, and half of the equal ones
    return ratio((rise * below).sum(axis=1), true_positives[:, -1] * false_positives[:, -1], undefined=np.nan)


def average_precision(true_positives: np.ndarray, false_positives: np.ndarray) -> np.ndarray:
    """Average precision (precision weighted by the rise in recall, no interpolation), shape (draws,), from `flagged_counts`."""
    precision = ratio(true_positives, true_positives + false_positives, undefined=0.0)
    rise = np.diff(true_positives, axis=1, prepend=0)
    return ratio((rise * precision).sum(axis=1), true_positives[:, -1], undefined=np.nan)


def thin(points: np.ndarray, most: int) -> np.ndarray:
    """Indices, rising, of at most `most` (>= 2) points of a polyline of shape (points, dimensions).

    Both ends are kept; the others are spread evenly along its length, so that steep parts keep their points.
    """
    if len(points) <= most:
        return np.arange(len(points))
    length = np.append(0.0, np.abs(np.diff(points, axis=0)).sum(axis=1).cumsum())
    return np.unique(np.append(np.searchsorted(length, np.linspace(0, length[-1], most)[:-1]), len(points) - 1))


class ClassificationMetrics:
    """The metrics of one set of predictions for any image weights.

    Parameters
    ----------
    labels : int array of shape (images,), indices into `CLASSES`.
    probabilities : float array of shape (images, classes), columns in the order of `CLASSES`.
    """

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        if probabilities.shape != (len(labels), len(CLASSES)) or len(labels) == 0:
            raise ValueError(f"{len(labels)} labels and probabilities of shape {probabilities.shape}")
        # A stable sort: among equal probabilities the first class leads, as with argmax.
        ranked = np.argsort(-probabilities, axis=1, kind="stable")
        self.predicted = ranked[:, 0]
        self._correct = self.predicted == labels
        self._in_top2 = (ranked[:, :2] == labels[:, None]).any(axis=1)
        self._cells = np.eye(len(CLASSES) ** 2)[labels * len(CLASSES) + self.predicted]
        self._rankings = [rank_scores(labels == index, probabilities[:, index]) for index in range(len(CLASSES))]

    def confusion(self, weights: np.ndarray) -> np.ndarray:
        """Weighted confusion matrices, float64 (draws, classes, classes): rows are the truth, columns the prediction."""
        return (weights @ self._cells).reshape(len(weights), len(CLASSES), len(CLASSES))

    def per_class(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `PER_CLASS` as float64 (draws, classes), one class against the rest."""
        confusion = self.confusion(weights)
        hits = np.einsum("dcc->dc", confusion)
        support, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        others = support.sum(axis=1, keepdims=True) - support
        counts = [flagged_counts(ranking, weights) for ranking in self._rankings]
        return {
            "precision": ratio(hits, predicted, undefined=0.0),
            "recall": ratio(hits, support, undefined=np.nan),
            "specificity": ratio(others - (predicted - hits), others, undefined=np.nan),
            "f1": np.where(support > 0, ratio(2 * hits, support + predicted, undefined=np.nan), np.nan),
            "auc": np.stack([area_under_roc(*pair) for pair in counts], axis=1),
            "average_precision": np.stack([average_precision(*pair) for pair in counts], axis=1),
            "support": support,
        }

    def headline(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `HEADLINE`, then `f1_<class>` a class, as float64 (draws,). AUC is one-vs-rest."""
        each = self.per_class(weights)
        total, mel = weights.sum(axis=1), CLASSES.index("mel")
        values = {
            "accuracy": weights @ self._correct / total,
            "balanced_accuracy": mean_of_defined(each["recall"]),
            "macro_f1": mean_of_defined(each["f1"]),
            "weighted_f1": np.nansum(each["f1"] * each["support"], axis=1) / total,
            "macro_auc": mean_of_defined(each["auc"]),
            "macro_average_precision": mean_of_defined(each["average_precision"]),
            "top2_accuracy": weights @ self._in_top2 / total,
            "mel_sensitivity": each["recall"][:, mel],
            "mel_specificity": each["specificity"][:, mel],
        }
        return values | {f"f1_{dx}": each["f1"][:, index] for index, dx in enumerate(CLASSES)}

    def summary(self) -> dict[str, float]:
        """`HEADLINE` when every image counts once."""
        values = self.headline(np.ones((1, len(self.predicted))))
        return {name: float(values[name][0]) for name in HEADLINE}

    def summary_per_class(self) -> dict[str, dict[str, float]]:
        """`PER_CLASS` by class when every image counts once; `support` is a whole number."""
        each = self.per_class(np.ones((1, len(self.predicted))))
        numbers = {dx: {name: float(each[name][0, index]) for name in PER_CLASS} for index, dx in enumerate(CLASSES)}
        return {dx: values | {"support": int(values["support"])} for dx, values in numbers.items()}
