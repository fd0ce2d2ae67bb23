"""By what calibration is judged: scores, their decomposition, recalibration curves and reliability tables."""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.calibration import Calibrator, negative_log_likelihood


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Multi-class Brier score, 0 (best) to 2: mean over images of the squared distances to truth, summed over classes.

    Brier, Monthly Weather Review 78 (1950). labels : int (images,). probabilities : float (images, classes).
    """
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.mean(((probabilities - truth) ** 2).sum(axis=1)))


def brier_decomposition(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> dict[str, float]:
    """`reliability` (0 is best), `resolution` (the higher the better) and `uncertainty` (of the data alone), summed over classes.

    The Brier score is reliability - resolution + uncertainty (Murphy 1973), with bins of equal width of each class's probability.
    Resolution is the generalised one, which counts what bins hide, so that the sum is exact (Stephenson, Coelho, Jolliffe,
    Weather and Forecasting 23, 2008).
    """
    truth = np.eye(probabilities.shape[1])[labels]
    reliability = uncertainty = 0.0
    for column, happened in zip(probabilities.T, truth.T, strict=True):
        place = np.digitize(column, np.linspace(0, 1, bins + 1)[1:-1])
        counts = np.bincount(place, minlength=bins)
        filled = np.maximum(counts, 1)
        forecast, share = (np.bincount(place, values, minlength=bins) / filled for values in (column, happened))
        reliability += float((counts * (forecast - share) ** 2).sum() / len(labels))
        uncertainty += float(happened.mean() * (1 - happened.mean()))
    resolution = reliability + uncertainty - brier_score(labels, probabilities)
    return {"reliability": reliability, "resolution": resolution, "uncertainty": uncertainty}


def reliability_table(labels: np.ndarray, probabilities: np.ndarray, bins: int, *, equal_mass: bool = False) -> pd.DataFrame:
    """Confidence against accuracy in bins of the highest probability.

    Bin b of B holds confidences in [b/B, (b+1)/B), the last one also 1; with `equal_mass` the ends are quantiles of the
    confidence instead (equal confidences share a bin, so bins can be fewer).

    Returns
    -------
    A row a bin that holds an image: `bin` (0 to bins - 1), `confidence` (mean), `accuracy`, `images`.
    """
    confidence = probabilities.max(axis=1)
    edges = _equal_mass_edges(confidence, bins) if equal_mass else np.linspace(0, 1, bins + 1)[1:-1]
    return _binned(np.digitize(confidence, edges), confidence=confidence, accuracy=probabilities.argmax(axis=1) == labels)


def _binned(place: np.ndarray, **values: np.ndarray) -> pd.DataFrame:
    """Means of values, each (images,), in the bins that `place` tells: `bin`, a column a value, `images`; a row a filled bin."""
    grouped = pd.DataFrame(values).groupby(pd.Series(place, name="bin"))
    return grouped.mean().assign(images=grouped.size()).reset_index()


def _equal_mass_edges(values: np.ndarray, bins: int) -> np.ndarray:
    """The inner ends of `bins` bins of about as many values each."""
    return np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))


def expected_calibration_error(table: pd.DataFrame) -> float:
    """ECE, 0 (best) to 1, of a `reliability_table`: distance of accuracy to confidence, averaged over images.

    Naeini, Cooper, Hauskrecht, AAAI 2015; with the top label, as Guo et al. 2017, equation 3. With bins of equal mass: Nguyen,
    O'Connor, EMNLP 2015.
    """
    distance = (table["accuracy"] - table["confidence"]).abs()
    return float((distance * table["images"]).sum() / table["images"].sum())


def calibration_scores(labels: np.ndarray, logits: np.ndarray, *, calibrator: Calibrator, bins: int) -> dict[str, float]:
    """`nll`, `ece`, `ece_equal_mass`, `brier` and its parts (`brier_reliability` and so on), each `_before` and `_after`."""
    calibrated = {"before": np.asarray(logits, dtype=np.float64), "after": calibrator.logits(logits)}
    scores: dict[str, float] = {}
    for when, values in calibrated.items():
        probabilities = softmax(values, axis=1)
        parts = brier_decomposition(labels, probabilities, bins)
        scores |= {
            f"nll_{when}": negative_log_likelihood(labels, values),
            f"ece_{when}": expected_calibration_error(reliability_table(labels, probabilities, bins)),
            f"ece_equal_mass_{when}": expected_calibration_error(reliability_table(labels, probabilities, bins, equal_mass=True)),
            f"brier_{when}": brier_score(labels, probabilities),
            **{f"brier_{name}_{when}": value for name, value in parts.items()},
        }
    return scores


def recalibration(positive: np.ndarray, log_odds: np.ndarray) -> dict[str, float]:
    """Calibration `intercept` (0 is right, below it risks are too high) and `slope` (1 is right, below it they are too extreme).

    The intercept is that of a logistic regression on the log odds with slope 1 (calibration in the large), the slope that of
    one with both (Cox, Biometrika 45, 1958; Van Calster et al., BMC Medicine 17, 2019). NaN without positives or negatives; the
    slope also where the log odds tell them apart without an error, which leaves it unbounded.

    positive : bool (images,). log_odds : float (images,), the logit of the predicted probability.
    """
    if positive.all() or not positive.any():
        return {"intercept": np.nan, "slope": np.nan}
    intercept, others = _intercept(positive, log_odds), log_odds[~positive]
    if log_odds[positive].min() >= others.max() or log_odds[positive].max() <= others.min():
        return {"intercept": intercept, "slope": np.nan}
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(log_odds[:, None], positive)
    return {"intercept": intercept, "slope": float(fitted.coef_[0, 0])}


def _intercept(positive: np.ndarray, log_odds: np.ndarray) -> float:
    """The shift of the log odds with which as many positives are expected as there are."""
    reach = 1 + float(np.abs(log_odds).max()) + np.log(len(positive))
    return float(brentq(lambda shift: expit(log_odds + shift).mean() - positive.mean(), -reach, reach, xtol=1e-12))


def recalibration_per_class(labels: np.ndarray, logits: np.ndarray, calibrator: Calibrator) -> dict[str, dict[str, float]]:
    """`recalibration` of the calibrated probability of each class against the others."""
    values = calibrator.logits(logits)
    odds = [values[:, index] - logsumexp(np.delete(values, index, axis=1), axis=1) for index in range(values.shape[1])]
    return {dx: recalibration(labels == index, odds[index]) for index, dx in enumerate(CLASSES)}


def reliability_before_after(labels: np.ndarray, logits: np.ndarray, *, calibrator: Calibrator, bins: int) -> pd.DataFrame:
    """Two `reliability_table`s in one, told apart by the first column, `calibration` (`before | after`)."""
    before = reliability_table(labels, softmax(np.asarray(logits, dtype=np.float64), axis=1), bins)
    after = reliability_table(labels, calibrator.probabilities(logits), bins)
    return pd.concat({"before": before, "after": after}, names=["calibration"]).reset_index(level=0).reset_index(drop=True)


def reliability_per_class(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> pd.DataFrame:
    """Mean probability of each class against the share of images that have it, in bins of equal mass of that probability.

    Returns
    -------
    `dx, bin, probability, share, images`: most of a rare class's probabilities are near 0, where bins of equal width would hide
    them all in one.
    """
    frames = []
    for index, dx in enumerate(CLASSES):
        values = probabilities[:, index]
        place = np.digitize(values, _equal_mass_edges(values, bins))
        table = _binned(place, probability=values, share=labels == index)
        table.insert(0, "dx", dx)
        frames.append(table)
    return pd.concat(frames, ignore_index=True)


def confidence_table(labels: np.ndarray, probabilities: np.ndarray, bins: int = 20) -> pd.DataFrame:
    """Histogram of the highest probability: `outcome` (`correct | wrong`), `confidence` (centre of the bin), `images`."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    counts = [np.histogram(confidence[chosen], edges)[0] for chosen in (correct, ~correct)]
    centers = np.round((edges[:-1] + edges[1:]) / 2, 6)
    outcomes = np.repeat(["correct", "wrong"], bins)
    return pd.DataFrame({"outcome": outcomes, "confidence": np.tile(centers, 2), "images": np.concatenate(counts)})
