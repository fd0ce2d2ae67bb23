"""Operating points of a target (a diagnosis or a group of them): chosen on validation, only audited on test.

The score of an image is the sum of the calibrated probabilities of the target's classes; the image is flagged when
score >= threshold. The thresholds that can be chosen are the distinct scores of the validation images: between two of them
nothing changes, so a grid could only miss the best one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from skinlesion.artifacts import PROBABILITY_COLUMNS
from skinlesion.bootstrap import Measure, point_estimate
from skinlesion.diagnoses import CLASSES
from skinlesion.errors import PipelineError
from skinlesion.metrics import area_under_roc, flagged_counts, rank_scores, ratio, thin

YOUDEN = "youden"


def target_scores(predictions: pd.DataFrame, classes: list[str], *, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth (bool) and score (float64) of every image of a prediction table for the target, both of shape (images,).

    Raises
    ------
    PipelineError
        No image of the split belongs to the target, or all do: sensitivity or specificity would be undefined.
    """
    positive = predictions["dx"].isin(classes).to_numpy(dtype=bool)
    if positive.all() or not positive.any():
        share = "all" if positive.any() else "none"
        raise PipelineError(
            f"{split}: {share} of the {len(positive)} images show the target ({', '.join(classes)}), and an operating point "
            "needs images with and without it: choose another threshold_sweep.target or larger splits"
        )
    columns = [column for column, dx in zip(PROBABILITY_COLUMNS, CLASSES, strict=True) if dx in classes]
    return positive, predictions[columns].to_numpy(dtype=np.float64).sum(axis=1)


def point_name(constraint: float) -> str:
    """Name of the operating point of a recall constraint: 0.9 gives `recall_0.90`; further decimals are kept."""
    text = f"{constraint:.2f}"
    return f"recall_{text if float(text) == constraint else repr(constraint)}"


def threshold_for_recall(positive: np.ndarray, scores: np.ndarray, constraint: float) -> float:
    """The largest threshold whose sensitivity is at least `constraint` (> 0 to 1).

    positive : bool (images,), at least one. scores : float (images,).
    """
    ranking = rank_scores(positive, scores)
    true_positives = flagged_counts(ranking, np.ones((1, len(scores))))[0][0]
    # Divided, not multiplied: 55 / 100 is the float that 0.55 is, but 0.55 * 100 is more than 55.
    enough = true_positives / true_positives[-1] >= constraint
    return float(ranking.thresholds[np.argmax(enough)])


def youden_threshold(positive: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the largest J = sensitivity + specificity - 1, the larger threshold among equals.

    Youden, Cancer 3 (1950). positive : bool (images,), some true, some false. scores : float (images,).
    """
    ranking = rank_scores(positive, scores)
    true_positives, false_positives = (counts[0] for counts in flagged_counts(ranking, np.ones((1, len(scores)))))
    # J times positives times negatives: whole numbers, so that equal J compare as equal.
    scaled = true_positives * false_positives[-1] - false_positives * true_positives[-1]
    return float(ranking.thresholds[np.argmax(scaled)])


def choose_thresholds(positive: np.ndarray, scores: np.ndarray, constraints: list[float]) -> dict[str, float]:
    """Threshold of every operating point, by name, from validation alone: one a recall constraint, then Youden's."""
    chosen = {point_name(constraint): threshold_for_recall(positive, scores, constraint) for constraint in constraints}
    return chosen | {YOUDEN: youden_threshold(positive, scores)}


def audit(positive: np.ndarray, scores: np.ndarray, threshold: float) -> Measure:
    """What a threshold achieves, as a function of image weights of shape (draws, images), each float64 (draws,).

    `sensitivity` and `specificity` are NaN in a draw without positives or negatives; `precision` and `f1` are 0 where
    nothing is flagged (f1 is NaN without positives); `flagged` is the share of images that are flagged.
    """
    flagged = scores >= threshold
    indicators = np.stack([positive & flagged, positive, flagged], axis=1).astype(np.float64)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        hits, positives, flags = (weights @ indicators).T
        return _rates(hits, flags - hits, positives, weights.sum(axis=1) - positives)

    return measure


def _rates(
    true_positives: np.ndarray, false_positives: np.ndarray, positives: np.ndarray, negatives: np.ndarray
) -> dict[str, np.ndarray]:
    """The rates of an operating point from counts of one shape."""
    flagged = true_positives + false_positives
    f1 = ratio(2 * true_positives, positives + flagged, undefined=np.nan)
    return {
        "sensitivity": ratio(true_positives, positives, undefined=np.nan),
        "specificity": ratio(negatives - false_positives, negatives, undefined=np.nan),
        "precision": ratio(true_positives, flagged, undefined=0.0),
        "f1": np.where(positives > 0, f1, np.nan),
        "flagged": flagged / (positives + negatives),
    }


def target_auc(positive: np.ndarray, scores: np.ndarray) -> Measure:
    """Area under the ROC curve of the target as `{"auc": float64 (draws,)}`, a function of image weights."""
    ranking = rank_scores(positive, scores)
    return lambda weights: {"auc": area_under_roc(*flagged_counts(ranking, weights))}


def achieved(positive: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """The values of `audit` when every image counts once."""
    return point_estimate(audit(positive, scores, threshold), len(scores))


def sweep(positive: np.ndarray, scores: np.ndarray, keep: list[float], *, most: int) -> pd.DataFrame:
    """The rates at every distinct score, thinned to about `most` rows, and at the thresholds in `keep`, always.

    Returns
    -------
    Rows by falling threshold: `threshold, sensitivity, specificity, precision, f1, flagged`.
    """
    ranking = rank_scores(positive, scores)
    true_positives, false_positives = (counts[0] for counts in flagged_counts(ranking, np.ones((1, len(scores)))))
    rates = _rates(true_positives, false_positives, true_positives[-1], false_positives[-1])
    curve = pd.DataFrame({"threshold": ranking.thresholds, **rates})
    curve = curve.iloc[thin(curve[["threshold", "sensitivity", "specificity"]].to_numpy(), most)]
    chosen = pd.DataFrame([{"threshold": threshold, **achieved(positive, scores, threshold)} for threshold in keep])
    both = pd.concat([curve, chosen], ignore_index=True).drop_duplicates("threshold")
    return both.sort_values("threshold", ascending=False, ignore_index=True)
