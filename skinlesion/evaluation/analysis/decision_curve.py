"""What an operating point means for those who are examined: predictive values at another prevalence, and net benefit."""

import numpy as np
import pandas as pd

from skinlesion.evaluation.metrics.bootstrap import Measure
from skinlesion.evaluation.metrics.classification import ratio

# Beyond it hardly anyone would still wait and see.
HIGHEST_THRESHOLD_PROBABILITY = 0.6
CURVE_COLUMNS = ("strategy", "threshold_probability", "net_benefit")


def predictive_values(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float) -> dict[str, np.ndarray]:
    """`ppv`, `npv` and `number_needed_to_biopsy` (1 / ppv), each of the shape of the inputs, by Bayes' theorem.

    NaN where nothing would be flagged (`ppv`) or everything (`npv`), where no flag is right (`number_needed_to_biopsy`), and
    where an input is NaN.
    """
    flagged = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    cleared = (1 - sensitivity) * prevalence + specificity * (1 - prevalence)
    ppv = ratio(sensitivity * prevalence, flagged, undefined=np.nan)
    return {
        "ppv": ppv,
        "npv": ratio(specificity * (1 - prevalence), cleared, undefined=np.nan),
        "number_needed_to_biopsy": ratio(1.0, ppv, undefined=np.nan),
    }


def at_prevalence(rates: Measure, prevalence: float) -> Measure:
    """`predictive_values` of an audit (`skinlesion.evaluation.analysis.thresholds.audit`), as a function of image weights."""

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        achieved = rates(weights)
        return predictive_values(achieved["sensitivity"], achieved["specificity"], prevalence)

    return measure


def net_benefit(positive: np.ndarray, scores: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Net benefit of flagging at score >= p for each threshold probability p, float64 of the shape of `probabilities`.

    True positives an image, less false positives an image weighted by p / (1 - p), the odds at which one who would just
    accept a biopsy trades one against the other (Vickers, Elkin, Medical Decision Making 26, 2006). Scores must be calibrated.

    positive : bool (images,). scores : float (images,). probabilities : > 0 to < 1.
    """
    flagged = scores[None, :] >= probabilities[:, None]
    true_positives, false_positives = (flagged & positive).mean(axis=1), (flagged & ~positive).mean(axis=1)
    return np.asarray(true_positives - false_positives * probabilities / (1 - probabilities))


def decision_curve(positive: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Net benefit of the classifier, of flagging all and of flagging none: `strategy, threshold_probability, net_benefit`."""
    probabilities = np.arange(1, 100 * HIGHEST_THRESHOLD_PROBABILITY + 1) / 100
    curves = {
        "classifier": net_benefit(positive, scores, probabilities),
        "flag all": net_benefit(positive, np.ones(len(scores)), probabilities),
        "flag none": np.zeros(len(probabilities)),
    }
    table = pd.DataFrame(curves).assign(threshold_probability=probabilities)
    return table.melt("threshold_probability", var_name="strategy", value_name="net_benefit")[list(CURVE_COLUMNS)]
