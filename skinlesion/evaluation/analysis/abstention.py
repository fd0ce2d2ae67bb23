"""Answering only where the classifier is confident: the risk among those answered over the share of them.

The confidence of an image is its highest calibrated probability. Where a user lets the classifier answer only above some
confidence, the others are left to a dermatologist; `coverage` is the share of images that are answered, `risk` the share of wrong
answers.
"""

import numpy as np
import pandas as pd

from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import Measure
from skinlesion.evaluation.metrics.classification import flagged_counts, mean_of_defined, rank_scores, ratio, thin


def confidence_threshold(confidence: np.ndarray, coverage: float) -> float:
    """The largest of the confidences, float (images,), at or above which at least `coverage` (> 0 to 1) of the images lie."""
    ordered = np.sort(confidence)[::-1]
    answered = np.searchsorted(-ordered, -ordered, side="right")  # equal ones are answered together
    return float(ordered[np.flatnonzero(answered / len(ordered) >= coverage)[0]])


def area_under_risk_coverage(wrong: np.ndarray, confidence: np.ndarray) -> Measure:
    """Area under the risk-coverage curve, 0 (best) to 1, as `{"aurc": float64 (draws,)}`, a function of image weights.

    The risk at every coverage that the confidences allow, weighted by the step of coverage to it (Geifman, El-Yaniv, Selective
    Classification for Deep Neural Networks, NeurIPS 2017).

    wrong : bool (images,). confidence : float (images,).
    """
    ranking = rank_scores(wrong, confidence)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        wrong_ones, right_ones = flagged_counts(ranking, weights)
        answered = wrong_ones + right_ones
        risk = ratio(wrong_ones, answered, undefined=0.0)  # where nothing is answered the step of coverage is 0 too
        steps = np.diff(answered, axis=1, prepend=0) / answered[:, -1:]
        return {"aurc": (risk * steps).sum(axis=1)}

    return measure


def risk_coverage_curve(wrong: np.ndarray, confidence: np.ndarray, *, most: int) -> pd.DataFrame:
    """`coverage, risk, confidence` at every distinct confidence, by rising coverage, thinned to at most `most` rows."""
    ranking = rank_scores(wrong, confidence)
    wrong_ones, right_ones = (counts[0] for counts in flagged_counts(ranking, np.ones((1, len(wrong)))))
    answered = wrong_ones + right_ones
    curve = pd.DataFrame({"coverage": answered / len(wrong), "risk": wrong_ones / answered, "confidence": ranking.thresholds})
    return curve.iloc[thin(curve[["coverage", "risk"]].to_numpy(), most)].reset_index(drop=True)


def audit_abstention(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> Measure:
    """What answering at confidence >= `threshold` achieves, as a function of image weights, each float64 (draws,).

    `coverage`; `accuracy`, `balanced_accuracy` and `mel_sensitivity` of those answered; `melanomas_answered`, the share of all
    melanomas that are answered; `melanomas_missed`, the share of all melanomas that are answered with another diagnosis. NaN
    where there is nothing to divide by.

    labels : int (images,), indices into `CLASSES`. probabilities : float (images, classes).
    """
    answered, predicted = probabilities.max(axis=1) >= threshold, probabilities.argmax(axis=1)
    right, mel = predicted == labels, labels == CLASSES.index("mel")
    of_class = labels[:, None] == np.arange(len(CLASSES))
    shared = np.column_stack([answered, answered & right, mel, mel & answered, mel & answered & right]).astype(np.float64)
    per_class = np.hstack([of_class & answered[:, None], of_class & (answered & right)[:, None]]).astype(np.float64)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        answers, hits, melanomas, answered_ones, found = (weights @ shared).T
        asked, correct = np.split(weights @ per_class, 2, axis=1)
        return {
            "coverage": answers / weights.sum(axis=1),
            "accuracy": ratio(hits, answers, undefined=np.nan),
            "balanced_accuracy": mean_of_defined(ratio(correct, asked, undefined=np.nan)),
            "mel_sensitivity": ratio(found, answered_ones, undefined=np.nan),
            "melanomas_answered": ratio(answered_ones, melanomas, undefined=np.nan),
            "melanomas_missed": ratio(answered_ones - found, melanomas, undefined=np.nan),
        }

    return measure
