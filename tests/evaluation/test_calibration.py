"""Temperature and vector scaling, and calibration scores, against scikit-learn, scipy and by hand."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from scipy.special import softmax
from sklearn.metrics import log_loss

from skinlesion.config.contents import Calibration
from skinlesion.evaluation.metrics import calibration_scores as measures
from skinlesion.evaluation.metrics.calibration import (
    TEMPERATURE_RANGE,
    Calibrator,
    fit_calibrator,
    fit_temperature,
    fit_vector,
    negative_log_likelihood,
)


def divide_by(temperature: float) -> Calibrator:
    """Temperature scaling with a temperature that is known."""
    return Calibrator("temperature", np.full(7, 1 / temperature), np.zeros(7))


def draw_calibrated(seed: int, images: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: calibrated at temperature 1 by construction."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(images, 7))
    sums = softmax(logits, axis=1).cumsum(axis=1)
    return (generator.random((images, 1)) > sums[:, :-1]).sum(axis=1), logits


def test_calibrated_probabilities_by_hand() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    powers = np.exp(logits.astype(np.float64) / 2.5)
    np.testing.assert_allclose(divide_by(2.5).probabilities(logits), powers / powers.sum(axis=1, keepdims=True), atol=1e-15)
    assert divide_by(1.0).probabilities(1e4 * np.eye(7)).tolist() == np.eye(7).tolist()


def test_likelihood_is_not_clipped() -> None:
    assert negative_log_likelihood(np.array([1]), np.array([[1000.0, 0.0]])) == pytest.approx(1000)


def test_a_search_that_finds_no_minimum_ends_at_the_bound() -> None:
    labels = np.arange(7)
    assert fit_temperature(labels, 3 * np.eye(7)) == TEMPERATURE_RANGE[0]  # always right: the more confident the better
    assert fit_temperature(labels, 300 * np.eye(7)) == TEMPERATURE_RANGE[0]
    assert fit_temperature((labels + 1) % 7, 3 * np.eye(7)) == TEMPERATURE_RANGE[1]  # always wrong


def test_the_fitted_temperature_equals_a_minimisation_by_scipy() -> None:
    labels, logits = draw_calibrated(6, images=400)
    for scale in (0.3, 1.0, 4.0):
        minimum = scipy.optimize.minimize_scalar(
            lambda at, scale=scale: negative_log_likelihood(labels, scale * logits / at),
            bounds=TEMPERATURE_RANGE,
            method="bounded",
        )
        assert fit_temperature(labels, scale * logits) == pytest.approx(minimum.x, rel=1e-4)


def test_reliability_and_ece_by_hand() -> None:
    confidence = np.array([0.5, 0.55, 0.72, 0.9, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    table = measures.reliability_table(np.array([0, 1, 1, 0, 0]), probabilities, 10)
    assert table["bin"].tolist() == [5, 7, 9]  # 0.5 opens bin 5, 1.0 closes bin 9
    assert table["images"].tolist() == [2, 1, 2]
    assert table["confidence"].tolist() == pytest.approx([0.525, 0.72, 0.95])
    assert table["accuracy"].tolist() == [0.5, 0.0, 1.0]
    assert measures.expected_calibration_error(table) == pytest.approx((2 * 0.025 + 0.72 + 2 * 0.05) / 5)


def test_ece_is_small_for_calibrated_and_large_for_overconfident_probabilities() -> None:
    labels, logits = draw_calibrated(4)
    scores = measures.calibration_scores(labels, 3 * logits, calibrator=divide_by(3.0), bins=15)
    assert scores["ece_after"] < 0.015
    assert scores["ece_before"] > 0.1
    assert scores["nll_after"] < scores["nll_before"]
    assert scores["brier_after"] < scores["brier_before"]
    assert scores["nll_before"] == pytest.approx(log_loss(labels, softmax(3 * logits, axis=1)))


def test_before_and_after_stand_in_one_table() -> None:
    labels, logits = draw_calibrated(5, images=300)
    table = measures.reliability_before_after(labels, logits, calibrator=divide_by(2.0), bins=10)
    assert table.columns.tolist() == ["calibration", "bin", "confidence", "accuracy", "images"]
    after = table[table["calibration"] == "after"].drop(columns="calibration").reset_index(drop=True)
    assert after.equals(measures.reliability_table(labels, softmax(logits / 2.0, axis=1), 10))
    assert table.groupby("calibration")["images"].sum().to_dict() == {"before": 300, "after": 300}


def test_confidence_histogram_counts_every_image_once() -> None:
    confidence = np.array([0.5, 0.52, 0.99, 1.0])
    table = measures.confidence_table(np.array([0, 1, 0, 1]), np.stack([confidence, 1 - confidence], axis=1))
    assert len(table) == 40
    counted = {(row.outcome, row.confidence): row.images for row in table.itertuples() if row.images}
    assert counted == {("correct", 0.525): 1, ("wrong", 0.525): 1, ("correct", 0.975): 1, ("wrong", 0.975): 1}


def test_a_known_scale_and_bias_are_found() -> None:
    labels, logits = draw_calibrated(7)
    scale, bias = np.linspace(0.5, 2, 7), np.linspace(-0.6, 0.6, 7)
    distorted = (logits - bias) / scale
    found = fit_calibrator(labels, distorted, "vector")
    np.testing.assert_allclose(found.scale, scale, rtol=0.06)
    np.testing.assert_allclose(found.bias - found.bias.mean(), bias, atol=0.1)
    assert found.temperature is None
    likelihood = negative_log_likelihood(labels, found.logits(distorted))
    assert likelihood < negative_log_likelihood(labels, fit_calibrator(labels, distorted, "temperature").logits(distorted)) - 0.01
    assert likelihood == pytest.approx(negative_log_likelihood(labels, logits), abs=0.002)


def test_vector_scaling_is_the_minimum_that_scipy_finds_without_our_gradient() -> None:
    labels, logits = draw_calibrated(8, images=300)

    def objective(parameters: np.ndarray) -> float:
        away = parameters - np.append(np.ones(7), np.zeros(7))
        return negative_log_likelihood(labels, 2 * logits * parameters[:7] + parameters[7:]) + away @ away / 600

    scale, bias = fit_vector(labels, 2 * logits, start=1.0)
    start, options = np.append(np.ones(7), np.zeros(7)), {"xtol": 1e-9, "ftol": 1e-14}
    minimum = scipy.optimize.minimize(objective, start, method="Powell", options=options)
    assert objective(np.append(scale, bias)) <= minimum.fun + 1e-9
    np.testing.assert_allclose(np.append(scale, bias), minimum.x, atol=2e-3)


def test_vector_scaling_stays_finite_where_the_likelihood_has_no_maximum() -> None:
    labels, logits = draw_calibrated(13, images=700)
    present = labels != 6
    found = fit_calibrator(labels[present], logits[present], "vector")
    assert np.abs(found.scale).max() < 10 and np.abs(found.bias).max() < 10
    assert found.bias[6] < found.bias[:6].min() - 1
    apart = fit_calibrator(labels, 3 * np.eye(7)[labels], "vector")
    assert np.isfinite(apart.scale).all() and np.isfinite(apart.bias).all()


def test_a_calibrator_survives_its_file() -> None:
    labels, logits = draw_calibrated(9, images=200)
    for method in ("temperature", "vector"):
        fitted = fit_calibrator(labels, logits, method)
        again = Calibrator.of(Calibration(**fitted.content(), test_time="none"))
        np.testing.assert_array_equal(again.probabilities(logits), fitted.probabilities(logits))
        assert again.temperature == fitted.temperature


def test_brier_parts_by_hand_and_in_sum() -> None:
    # Two classes, one bin each of .2 and .8: forecasts .2, .2, .8 of class 0, which happened 0, 1, 1 times.
    labels, probabilities = np.array([1, 0, 0]), np.array([[0.2, 0.8], [0.2, 0.8], [0.8, 0.2]])
    parts = measures.brier_decomposition(labels, probabilities, bins=2)
    one_class = (2 * (0.2 - 0.5) ** 2 + (0.8 - 1) ** 2) / 3
    assert parts["reliability"] == pytest.approx(2 * one_class)
    assert parts["uncertainty"] == pytest.approx(2 * (2 / 3) * (1 / 3))
    assert parts["resolution"] == pytest.approx(2 * (2 * (0.5 - 2 / 3) ** 2 + (1 - 2 / 3) ** 2) / 3)
    labels, logits = draw_calibrated(10)
    calibrated, overconfident = (measures.brier_decomposition(labels, softmax(scale * logits, axis=1), 20) for scale in (1, 3))
    for scale, each in ((1, calibrated), (3, overconfident)):
        total = each["reliability"] - each["resolution"] + each["uncertainty"]
        assert total == pytest.approx(measures.brier_score(labels, softmax(scale * logits, axis=1)), abs=1e-12)
    assert calibrated["reliability"] < 0.003 < 0.03 < overconfident["reliability"]


def test_bins_of_equal_mass_hold_equally_many_and_equal_confidences_share_one() -> None:
    labels, logits = draw_calibrated(11, images=1000)
    assert measures.reliability_table(labels, softmax(logits, axis=1), 10, equal_mass=True)["images"].tolist() == [100] * 10
    confidence = np.array([0.6] * 8 + [0.9] * 2)
    table = measures.reliability_table(np.zeros(10, int), np.stack([confidence, 1 - confidence], axis=1), 5, equal_mass=True)
    assert table["images"].tolist() == [8, 2]
    scores = measures.calibration_scores(labels, 3 * logits, calibrator=divide_by(3), bins=10)
    assert scores["ece_equal_mass_after"] < 0.05 < 0.1 < scores["ece_equal_mass_before"]


def test_recalibration_is_undefined_without_both_and_where_nothing_overlaps() -> None:
    for positive in (np.zeros(4, bool), np.ones(4, bool)):
        assert np.isnan(list(measures.recalibration(positive, np.arange(4.0)).values())).all()
    apart = measures.recalibration(np.array([False, False, True, True]), np.array([-2.0, -1.0, 1.0, 2.0]))
    assert np.isnan(apart["slope"]) and apart["intercept"] == pytest.approx(0, abs=1e-9)


def test_reliability_of_a_class_by_hand() -> None:
    probabilities = np.full((8, 7), 0.0)
    probabilities[:, 4] = [0.1, 0.1, 0.2, 0.2, 0.5, 0.6, 0.8, 0.9]
    probabilities[:, 5] = 1 - probabilities[:, 4]
    labels = np.array([5, 5, 5, 4, 5, 4, 4, 4])
    table = measures.reliability_per_class(labels, probabilities, 4).query("dx == 'mel'")
    assert table["images"].tolist() == [2, 2, 2, 2]
    assert table["probability"].tolist() == pytest.approx([0.1, 0.2, 0.55, 0.85])
    assert table["share"].tolist() == [0, 0.5, 0.5, 1]
