"""The bootstrap over lesions: draws, seeds, coverage."""

import numpy as np
import pytest

from skinlesion.evaluation.metrics import bootstrap as module
from skinlesion.evaluation.metrics.bootstrap import bootstrap, lesion_weights, percentile_intervals
from tests.conftest import refuses, resamples


def all_weights(lesion_ids: list[str], *, draws: int, seed: int) -> np.ndarray:
    """Every chunk of draws in one array."""
    return np.concatenate(list(lesion_weights(lesion_ids, draws=draws, seed=seed)))


def mean_of(values: np.ndarray) -> module.Measure:
    """The weighted mean of a value an image."""
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_each_draw_has_as_many_lesions_as_there_are_and_images_of_a_lesion_stay_together() -> None:
    ids = ["b", "a", "b", "c", "a", "b"]
    weights = all_weights(ids, draws=200, seed=0)
    assert weights.shape == (200, 6)
    assert np.array_equal(weights[:, 1], weights[:, 4])
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, 0], weights[:, 5])
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights.max() == 3  # three times the same lesion has a chance of 1/9 a draw


def test_lesions_are_drawn_with_equal_chances() -> None:
    ids = [f"lesion_{index}" for index in range(40)]
    weights = all_weights(ids, draws=5000, seed=1)
    assert weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.07)  # standard error .014
    assert weights.var() == pytest.approx(1 - 1 / 40, abs=0.02)  # binomial


def test_draws_depend_on_seed_and_lesions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"lesion_{index % 7}" for index in range(20)]
    weights = all_weights(ids, draws=50, seed=3)
    assert np.array_equal(weights, all_weights(ids, draws=50, seed=3))
    assert not np.array_equal(weights, all_weights(ids, draws=50, seed=4))
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(weights[:, order], all_weights([ids[position] for position in order], draws=50, seed=3))
    monkeypatch.setattr(module, "CHUNK_CELLS", 60)  # three draws a chunk
    chunks = list(lesion_weights(ids, draws=50, seed=3))
    assert [len(chunk) for chunk in chunks] == [3] * 16 + [2]
    assert np.array_equal(weights, np.concatenate(chunks))


def test_images_without_a_lesion_are_refused() -> None:
    refuses("draws lesions, and 2 of 3 images have no lesion_id", lambda: next(lesion_weights(["a", "", ""], draws=100, seed=0)))
    refuses("0 of 0 images", lambda: next(lesion_weights([], draws=100, seed=0)))


def test_the_spread_is_that_of_the_mean() -> None:
    values = np.random.default_rng(5).normal(size=400)
    drawn = bootstrap(mean_of(values), [str(index) for index in range(400)], resamples(4000))["mean"]
    assert drawn.shape == (4000,)
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(400), rel=0.05)
    interval = percentile_intervals({"mean": drawn}, 0.95)["mean"]
    assert interval["high"] - interval["low"] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(400), rel=0.07)


def test_percentiles_leave_out_undefined_draws() -> None:
    values = {"some": np.array([np.nan, *np.arange(101.0)]), "none": np.full(5, np.nan)}
    intervals = percentile_intervals(values, 0.9)
    assert intervals["some"] == {"low": pytest.approx(5), "high": pytest.approx(95)}
    assert np.isnan(list(intervals["none"].values())).all()
