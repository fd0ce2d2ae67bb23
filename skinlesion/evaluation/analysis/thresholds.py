"""Operating points of a target (a diagnosis or a group of them): chosen on validation, only audited on test.

The score of an image is the sum of the calibrated probabilities of the target's classes; the image is flagged when
score >= threshold. The thresholds that can be chosen are the distinct scores of the validation images: between two of them
nothing changes, so a grid could only miss the best one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import betainc

from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.base.errors import PipelineError
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import Measure, point_estimate
from skinlesion.evaluation.metrics.classification import area_under_roc, flagged_counts, rank_scores, ratio, thin

POINT_COLUMNS = (
    *("point", "split", "threshold", "sensitivity", "sensitivity_low", "sensitivity_high"),
    *("specificity", "specificity_low", "specificity_high", "precision", "f1", "flagged"),
)


def target_scores(predictions: pd.DataFrame, classes: list[str], *, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Truth (bool) and score (float64) of every image of a prediction table for the target, both of shape (images,).

    Raises
    ------
    PipelineError
        No image of the split belongs to the target, or all do: sensitivity or specificity would be undefined.
    """
    positive, scores = truth_and_scores(predictions, classes)
    if positive.all() or not positive.any():
        share = "all" if positive.any() else "none"
        raise PipelineError(
            f"{split}: {share} of the {len(positive)} images show the target ({', '.join(classes)}), and an operating point "
            "needs images with and without it: choose another threshold_sweep.target or larger splits"
        )
    return positive, scores


def truth_and_scores(predictions: pd.DataFrame, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """As `target_scores`, for any table, also one without images of the target."""
    columns = [column for column, dx in zip(PROBABILITY_COLUMNS, CLASSES, strict=True) if dx in classes]
    return predictions["dx"].isin(classes).to_numpy(dtype=bool), predictions[columns].to_numpy(dtype=np.float64).sum(axis=1)


def _counts(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores, falling, and how many positives and negatives each flags as a threshold, all float64 (thresholds,)."""
    ranking = rank_scores(positive, scores)
    true_positives, false_positives = flagged_counts(ranking, np.ones((1, len(scores))))
    return ranking.thresholds, true_positives[0], false_positives[0]


def threshold_for_recall(positive: np.ndarray, scores: np.ndarray, constraint: float) -> float:
    """The largest threshold whose sensitivity is at least `constraint` (> 0 to 1).

    positive : bool (images,), at least one. scores : float (images,).
    """
    thresholds, true_positives, _ = _counts(positive, scores)
    # Divided, not multiplied: 55 / 100 is the float that 0.55 is, but 0.55 * 100 is more than 55.
    enough = true_positives / true_positives[-1] >= constraint
    return float(thresholds[np.argmax(enough)])


def youden_threshold(positive: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the largest J = sensitivity + specificity - 1, the larger threshold among equals.

    Youden, Cancer 3 (1950). positive : bool (images,), some true, some false. scores : float (images,).
    """
    thresholds, true_positives, false_positives = _counts(positive, scores)
    # J times positives times negatives: whole numbers, so that equal J compare as equal.
    scaled = true_positives * false_positives[-1] - false_positives * true_positives[-1]
    return float(thresholds[np.argmax(scaled)])


def threshold_for_specificity(positive: np.ndarray, scores: np.ndarray, constraint: float) -> float:
    """The smallest threshold whose specificity is at least `constraint` (> 0 to 1).

    positive : bool (images,), some true, some false. scores : float (images,).

    Raises
    ------
    PipelineError
        Not even the highest score as the threshold reaches it.
    """
    thresholds, _, false_positives = _counts(positive, scores)
    negatives = false_positives[-1]
    enough = (negatives - false_positives) / negatives >= constraint  # true up to some threshold, then false
    if not enough[0]:
        raise PipelineError(
            f"threshold_sweep.specificity_constraints: no threshold reaches a specificity of {constraint} on validation, where "
            f"the highest one gives {1 - false_positives[0] / negatives:.4f}: ask for less"
        )
    return float(thresholds[np.flatnonzero(enough)[-1]])


def cheapest_threshold(positive: np.ndarray, scores: np.ndarray, cost_ratio: float) -> float:
    """The threshold of the smallest cost, the larger one among equals, where a missed positive costs `cost_ratio` false alarms.

    positive : bool (images,). scores : float (images,). cost_ratio : > 0.
    """
    thresholds, true_positives, false_positives = _counts(positive, scores)
    costs = cost_ratio * (true_positives[-1] - true_positives) + false_positives
    return float(thresholds[np.flatnonzero(np.isclose(costs, costs.min(), rtol=1e-12, atol=0))[0]])


def threshold_with_guarantee(scores_of_lesions: np.ndarray, recall: float, probability: float) -> float | None:
    """The largest threshold of which it can be said: with this `probability` it flags at least `recall` of all such lesions.

    The threshold is an order statistic of the scores of n positive lesions. The share of the population below the k-th lowest one
    has the distribution Beta(k, n - k + 1) or lies below it, whatever the distribution of the scores (Wilks, Annals of
    Mathematical Statistics 12, 1941), so k is the largest with P(Beta(k, n - k + 1) <= 1 - recall) >= probability. It holds
    where the lesions to come are drawn as those of validation were, and not for another clinic.

    Parameters
    ----------
    scores_of_lesions : float (lesions,), the lowest score of each positive lesion's images, all of which are then flagged.

    Returns
    -------
    The threshold, or None where there are too few lesions: fewer than log(1 - probability) / log(recall).
    """
    ordered = np.sort(scores_of_lesions)
    ranks = np.arange(1, len(ordered) + 1)
    enough = betainc(ranks, len(ordered) - ranks + 1, 1 - recall) >= probability
    return float(ordered[np.flatnonzero(enough)[-1]]) if enough.any() else None


@dataclass(frozen=True)
class Rule:
    """How the threshold of an operating point is chosen on validation.

    kind : `recall`, `specificity`, `cost`, `guaranteed` or `youden`. value : what is asked for; None for `youden`.
    """

    kind: str
    value: float | None = None

    @property
    def name(self) -> str:
        """Name of the point: `recall_0.90`, `cost_10`, `youden`; at least two decimals of a share, and further ones are kept."""
        if self.value is None:
            return self.kind
        text = f"{self.value:g}" if self.kind == "cost" else f"{self.value:.2f}"
        return f"{self.kind}_{text if float(text) == self.value else repr(self.value)}"


def choose_threshold(rule: Rule, positive: np.ndarray, scores: np.ndarray, lesion_ids: pd.Series, *, guarantee: float) -> float:
    """The threshold of an operating point, from validation alone.

    positive : bool (images,). scores : float (images,). lesion_ids : str (images,). guarantee : probability of `guaranteed` ones.

    A guarantee that so few lesions cannot give is given by flagging everything: the threshold is 0.
    """
    if rule.value is None:
        return youden_threshold(positive, scores)
    if rule.kind == "guaranteed":
        lowest = pd.Series(scores[positive]).groupby(lesion_ids.to_numpy()[positive]).min().to_numpy()
        return threshold_with_guarantee(lowest, rule.value, guarantee) or 0.0
    choose = {"recall": threshold_for_recall, "specificity": threshold_for_specificity, "cost": cheapest_threshold}[rule.kind]
    return choose(positive, scores, rule.value)


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
    thresholds, true_positives, false_positives = _counts(positive, scores)
    rates = _rates(true_positives, false_positives, true_positives[-1], false_positives[-1])
    curve = pd.DataFrame({"threshold": thresholds, **rates})
    curve = curve.iloc[thin(curve[["threshold", "sensitivity", "specificity"]].to_numpy(), most)]
    chosen = pd.DataFrame([{"threshold": threshold, **achieved(positive, scores, threshold)} for threshold in keep])
    both = pd.concat([curve, chosen], ignore_index=True).drop_duplicates("threshold")
    return both.sort_values("threshold", ascending=False, ignore_index=True)


def point_rows(points: dict[str, Any]) -> pd.DataFrame:
    """Operating points of metrics/threshold_sweep.json as rows of `POINT_COLUMNS`, one a split; test's alone have intervals."""
    rows = []
    for name, point in points.items():
        ends = {
            f"{rate}_{end}": point["intervals"][rate][end] for rate in ("sensitivity", "specificity") for end in ("low", "high")
        }
        rows.append({"point": name, "split": "val", "threshold": point["threshold"], **point["val"]})
        rows.append({"point": name, "split": "test", "threshold": point["threshold"], **point["test"], **ends})
    return pd.DataFrame(rows)
