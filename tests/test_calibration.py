"""Temperature scaling and calibration scores against scikit-learn, scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.metrics import brier_score_loss, log_loss

from skinlesion.calibration import (
    TEMPERATURE_RANGE,
    brier_score,
    calibration_scores,
    confidence_table,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_before_after,
    reliability_table,
    softmax,
)


def draw_calibrated(seed: int, images: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: calibrated at temperature 1 by construction."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(images, 7))
    sums = softmax(logits).cumsum(axis=1)
    return (generator.random((images, 1)) > sums[:, :-1]).sum(axis=1), logits


def test_softmax_equals_scipys_and_survives_large_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    assert np.allclose(softmax(logits, 2.5), scipy.special.softmax(logits.astype(np.float64) / 2.5, axis=1), atol=1e-15)
    assert softmax(np.array([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]


def test_scores_equal_scikit_learns() -> None:
    labels, logits = draw_calibrated(1, images=500)
    assert negative_log_likelihood(labels, logits, 3.0) == pytest.approx(log_loss(labels, softmax(logits, 3.0)))
    expected = brier_score_loss(labels, softmax(logits), labels=range(7), scale_by_half=False)
    assert brier_score(labels, softmax(logits)) == pytest.approx(expected)


def test_likelihood_is_not_clipped() -> None:
    assert negative_log_likelihood(np.array([1]), np.array([[1000.0, 0.0]])) == pytest.approx(1000)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    labels, logits = draw_calibrated(2)
    assert fit_temperature(labels, logits * temperature) == pytest.approx(temperature, rel=0.03)


def test_the_fitted_temperature_is_the_minimum_of_a_fine_grid() -> None:
    labels, logits = draw_calibrated(3, images=400)
    fitted = fit_temperature(labels, 5 * logits)
    grid = np.exp(np.linspace(np.log(2), np.log(12), 4001))
    best = grid[np.argmin([negative_log_likelihood(labels, 5 * logits, temperature) for temperature in grid])]
    assert fitted == pytest.approx(best, rel=1e-3)


def test_a_search_that_finds_no_minimum_ends_at_the_bound() -> None:
    labels = np.arange(7)
    assert fit_temperature(labels, 3 * np.eye(7)) == TEMPERATURE_RANGE[0]  # always right: the more confident the better
    assert fit_temperature(labels, 300 * np.eye(7)) == TEMPERATURE_RANGE[0]
    assert fit_temperature((labels + 1) % 7, 3 * np.eye(7)) == TEMPERATURE_RANGE[1]  # always wrong


def test_the_fitted_temperature_equals_a_minimisation_by_scipy() -> None:
    labels, logits = draw_calibrated(6, images=400)
    for scale in (0.3, 1.0, 4.0):
        minimum = scipy.optimize.minimize_scalar(
            lambda temperature, scale=scale: negative_log_likelihood(labels, scale * logits, temperature),
            bounds=TEMPERATURE_RANGE,
            method="bounded",
        )
        assert fit_temperature(labels, scale * logits) == pytest.approx(minimum.x, rel=1e-4)


def test_brier_by_hand() -> None:
    # (.2)^2 + (.2)^2 and (.6)^2 + (.6)^2
    assert brier_score(np.array([0, 1]), np.array([[0.8, 0.2], [0.6, 0.4]])) == pytest.approx((0.08 + 0.72) / 2)


def test_reliability_and_ece_by_hand() -> None:
    confidence = np.array([0.5, 0.55, 0.72, 0.9, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    table = reliability_table(np.array([0, 1, 1, 0, 0]), probabilities, 10)
    assert table["bin"].tolist() == [5, 7, 9]  # 0.5 opens bin 5, 1.0 closes bin 9
    assert table["images"].tolist() == [2, 1, 2]
    assert table["confidence"].tolist() == pytest.approx([0.525, 0.72, 0.95])
    assert table["accuracy"].tolist() == [0.5, 0.0, 1.0]
    assert expected_calibration_error(table) == pytest.approx((2 * 0.025 + 0.72 + 2 * 0.05) / 5)


def test_ece_is_small_for_calibrated_and_large_for_overconfident_probabilities() -> None:
    labels, logits = draw_calibrated(4)
    scores = calibration_scores(labels, 3 * logits, temperature=3.0, bins=15)
    assert scores["ece_after"] < 0.015
    assert scores["ece_before"] > 0.1
    assert scores["nll_after"] < scores["nll_before"]
    assert scores["brier_after"] < scores["brier_before"]
    assert scores["nll_before"] == pytest.approx(log_loss(labels, softmax(3 * logits)))


def test_before_and_after_stand_in_one_table() -> None:
    labels, logits = draw_calibrated(5, images=300)
    table = reliability_before_after(labels, logits, temperature=2.0, bins=10)
    assert table.columns.tolist() == ["calibration", "bin", "confidence", "accuracy", "images"]
    after = table[table["calibration"] == "after"].drop(columns="calibration").reset_index(drop=True)
    assert after.equals(reliability_table(labels, softmax(logits, 2.0), 10))
    assert table.groupby("calibration")["images"].sum().to_dict() == {"before": 300, "after": 300}


def test_confidence_histogram_counts_every_image_once() -> None:
    confidence = np.array([0.5, 0.52, 0.99, 1.0])
    table = confidence_table(np.array([0, 1, 0, 1]), np.stack([confidence, 1 - confidence], axis=1))
    assert len(table) == 40
    counted = {(row.outcome, row.confidence): row.images for row in table.itertuples() if row.images}
    assert counted == {("correct", 0.525): 1, ("wrong", 0.525): 1, ("correct", 0.975): 1, ("wrong", 0.975): 1}
