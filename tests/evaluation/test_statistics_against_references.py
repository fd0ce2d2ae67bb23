"""Calibration statistics and areas against statsmodels, scikit-learn, scipy and plain NumPy, to 1e-9."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit, softmax
from scipy.stats import mannwhitneyu
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics import calibration_scores as measures
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.metrics.classification import area_under_roc, flagged_counts, rank_scores
from tests.evaluation.test_calibration import draw_calibrated

BINS = 12


def fitted_by_statsmodels(positive: np.ndarray, odds: np.ndarray) -> Any:
    """What `recalibration` gives, by statsmodels, to 1e-9."""
    with_slope = sm.Logit(positive, sm.add_constant(odds)).fit(disp=0, method="newton", tol=1e-12, maxiter=100)
    with_offset = sm.GLM(positive, np.ones(len(odds)), family=sm.families.Binomial(), offset=odds).fit(tol=1e-13, maxiter=100)
    return pytest.approx({"slope": with_slope.params[1], "intercept": with_offset.params[0]}, abs=1e-9)


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.4, 1.3), (2.2, -2.0)])
def test_intercept_and_slope_are_those_of_statsmodels(slope: float, shift: float) -> None:
    generator = np.random.default_rng(1)
    odds = 1.5 * generator.normal(size=900) - 1
    positive = generator.random(900) < expit(slope * odds + shift)
    assert measures.recalibration(positive, odds) == fitted_by_statsmodels(positive, odds)


def test_recalibration_of_a_class_is_that_of_its_probability_in_statsmodels() -> None:
    labels, logits = draw_calibrated(0, images=600)
    calibrator = Calibrator("vector", np.linspace(0.5, 1.1, 7), np.linspace(-0.3, 0.3, 7))
    odds = logit(softmax(logits * calibrator.scale + calibrator.bias, axis=1))
    for index, (dx, ours) in enumerate(measures.recalibration_per_class(labels, logits, calibrator).items()):
        assert dx == CLASSES[index] and ours == fitted_by_statsmodels(labels == index, odds[:, index]), dx


@pytest.mark.parametrize("equal_mass", [False, True])
def test_ece_is_that_of_a_loop(equal_mass: bool) -> None:
    labels, logits = draw_calibrated(0, images=600)
    probabilities = softmax(1.5 * logits, axis=1)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    ranks = np.argsort(np.argsort(confidence))
    place = ranks * BINS // len(ranks) if equal_mass else np.minimum((confidence * BINS).astype(int), BINS - 1)
    expected = 0.0
    for number in range(BINS):
        inside = place == number
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    table = measures.reliability_table(labels, probabilities, BINS, equal_mass=equal_mass)
    assert measures.expected_calibration_error(table) == pytest.approx(expected, abs=1e-9)
    assert expected > 0.01


def test_brier_score_and_its_reliability_are_scikit_learns() -> None:
    labels, logits = draw_calibrated(0, images=600)
    probabilities = softmax(1.5 * logits, axis=1)
    reliability = single = 0.0
    for index in range(7):
        happened, forecast = labels == index, probabilities[:, index]
        share, mean = calibration_curve(happened, forecast, n_bins=BINS)
        counts = np.histogram(forecast, np.linspace(0, 1, BINS + 1))[0]
        reliability += (counts[counts > 0] * (mean - share) ** 2).sum() / len(labels)
        single += brier_score_loss(happened, forecast)
    expected = brier_score_loss(labels, probabilities, labels=range(7), scale_by_half=False)
    parts = measures.brier_decomposition(labels, probabilities, BINS)
    assert measures.brier_score(labels, probabilities) == pytest.approx(expected, abs=1e-9)
    assert expected == pytest.approx(single, abs=1e-9)
    assert parts["reliability"] == pytest.approx(reliability, abs=1e-9)
    assert parts["uncertainty"] == pytest.approx(sum(np.var(labels == index) for index in range(7)), abs=1e-9)


@pytest.mark.parametrize("decimals", [12, 0])
def test_auc_is_the_mann_whitney_statistic_of_scipy(decimals: int) -> None:
    labels, logits = draw_calibrated(0, images=600)
    for index in range(7):
        positive, scores = labels == index, np.round(logits[:, index], decimals)
        statistic = mannwhitneyu(scores[positive], scores[~positive]).statistic
        ours = area_under_roc(*flagged_counts(rank_scores(positive, scores), np.ones((1, len(scores)))))[0]
        assert ours == pytest.approx(statistic / (positive.sum() * (~positive).sum()), abs=1e-9)
