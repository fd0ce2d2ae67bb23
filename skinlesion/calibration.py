"""How far a probability can be believed: temperature scaling, and what it is judged by."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import logsumexp

# Temperatures that are searched. At an end of it something else than overconfidence is wrong.
TEMPERATURE_RANGE: tuple[float, float] = (0.05, 20.0)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities, float64 (images, classes), of logits divided by a temperature > 0."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def negative_log_likelihood(labels: np.ndarray, logits: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log of the probability of the true class, in nats (log loss), from logits and so without clipping.

    labels : int (images,), columns of `logits`. logits : float (images, classes).
    """
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature within `TEMPERATURE_RANGE` of the smallest negative log-likelihood.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 4.2. The likelihood is convex
    in the inverse temperature, so its minimum is where the slope changes its sign, or an end of the range where it does not.
    Unlike the likelihood, the slope can still be told from 0 for a nearly perfect classifier. Predictions do not change.
    """
    logits = np.asarray(logits, dtype=np.float64)
    above_truth = logits - logits[np.arange(len(labels)), labels][:, None]

    def slope(log_temperature: float) -> float:
        """Of the negative log-likelihood by the inverse temperature: it falls with rising temperature."""
        return float((softmax(logits, float(np.exp(log_temperature))) * above_truth).sum(axis=1).mean())

    lowest, highest = np.log(TEMPERATURE_RANGE)
    if slope(lowest) <= 0:
        return TEMPERATURE_RANGE[0]
    if slope(highest) >= 0:
        return TEMPERATURE_RANGE[1]
    return float(np.exp(brentq(slope, lowest, highest, xtol=1e-9)))


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Multi-class Brier score, 0 (best) to 2: mean over images of the squared distances to truth, summed over classes.

    Brier, Monthly Weather Review 78 (1950). labels : int (images,). probabilities : float (images, classes).
    """
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.mean(((probabilities - truth) ** 2).sum(axis=1)))


def reliability_table(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> pd.DataFrame:
    """Confidence against accuracy in bins of equal width of the highest probability.

    Bin b of B holds confidences in [b/B, (b+1)/B), the last one also 1.

    Returns
    -------
    A row a bin that holds an image: `bin` (0 to bins - 1), `confidence` (mean), `accuracy`, `images`.
    """
    confidence = probabilities.max(axis=1)
    frame = pd.DataFrame(
        {
            "bin": np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1]),
            "confidence": confidence,
            "correct": probabilities.argmax(axis=1) == labels,
        }
    )
    grouped = frame.groupby("bin")
    table = grouped.agg(confidence=("confidence", "mean"), accuracy=("correct", "mean"), images=("correct", "size"))
    return table.reset_index()


def expected_calibration_error(table: pd.DataFrame) -> float:
    """ECE, 0 (best) to 1, of a `reliability_table`: distance of accuracy to confidence, averaged over images.

    Naeini, Cooper, Hauskrecht, AAAI 2015; with the top label, as Guo et al. 2017, equation 3.
    """
    distance = (table["accuracy"] - table["confidence"]).abs()
    return float((distance * table["images"]).sum() / table["images"].sum())


def calibration_scores(labels: np.ndarray, logits: np.ndarray, *, temperature: float, bins: int) -> dict[str, float]:
    """`nll`, `ece` and `brier`, each as `<score>_before` and `<score>_after` division of the logits by the temperature."""
    before, after = softmax(logits), softmax(logits, temperature)
    return {
        "nll_before": negative_log_likelihood(labels, logits),
        "nll_after": negative_log_likelihood(labels, logits, temperature),
        "ece_before": expected_calibration_error(reliability_table(labels, before, bins)),
        "ece_after": expected_calibration_error(reliability_table(labels, after, bins)),
        "brier_before": brier_score(labels, before),
        "brier_after": brier_score(labels, after),
    }


def reliability_before_after(labels: np.ndarray, logits: np.ndarray, *, temperature: float, bins: int) -> pd.DataFrame:
    """Two `reliability_table`s in one, told apart by the first column, `calibration` (`before | after`)."""
    before = reliability_table(labels, softmax(logits), bins)
    after = reliability_table(labels, softmax(logits, temperature), bins)
    both = pd.concat([before, after], ignore_index=True)
    both.insert(0, "calibration", ["before"] * len(before) + ["after"] * len(after))
    return both


def confidence_table(labels: np.ndarray, probabilities: np.ndarray, bins: int = 20) -> pd.DataFrame:
    """Histogram of the highest probability: `outcome` (`correct | wrong`), `confidence` (centre of the bin), `images`."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    frames = [
        pd.DataFrame(
            {
                "outcome": outcome,
                "confidence": np.round((edges[:-1] + edges[1:]) / 2, 6),
                "images": np.histogram(confidence[chosen], edges)[0],
            }
        )
        for outcome, chosen in (("correct", correct), ("wrong", ~correct))
    ]
    return pd.concat(frames, ignore_index=True)
