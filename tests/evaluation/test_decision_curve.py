"""Predictive values at another prevalence, and the decision curve, by hand and by counting."""

import numpy as np
import pytest

from skinlesion.evaluation.analysis.decision_curve import at_prevalence, decision_curve, net_benefit, predictive_values
from skinlesion.evaluation.analysis.thresholds import audit
from skinlesion.evaluation.metrics.bootstrap import point_estimate


def test_predictive_values_by_hand() -> None:
    # Of 1000 examined 50 are ill: 45 are found; of 950 well 760 are cleared and 190 flagged.
    values = predictive_values(np.array([0.9]), np.array([0.8]), 0.05)
    assert values["ppv"][0] == pytest.approx(45 / 235)
    assert values["npv"][0] == pytest.approx(760 / 765)
    assert values["number_needed_to_biopsy"][0] == pytest.approx(235 / 45)


def test_at_the_prevalence_of_the_data_they_are_the_datas_own() -> None:
    generator = np.random.default_rng(0)
    positive, scores = generator.random(500) < 0.3, generator.random(500)
    scores[positive] += 0.3
    measured = point_estimate(at_prevalence(audit(positive, scores, 0.5), positive.mean()), 500)
    assert measured["ppv"] == pytest.approx(positive[scores >= 0.5].mean())
    assert measured["npv"] == pytest.approx((~positive[scores < 0.5]).mean())


def test_what_cannot_be_said_is_not_a_number() -> None:
    nothing, everything = (predictive_values(np.array([rate]), np.array([1 - rate]), 0.1) for rate in (0.0, 1.0))
    assert np.isnan([nothing["ppv"][0], nothing["number_needed_to_biopsy"][0]]).all() and nothing["npv"][0] == pytest.approx(0.9)
    assert np.isnan(everything["npv"][0]) and everything["ppv"][0] == pytest.approx(0.1)
    wrong = predictive_values(np.array([0.0]), np.array([0.5]), 0.1)
    assert wrong["ppv"][0] == 0 and np.isnan(wrong["number_needed_to_biopsy"][0])
    assert np.isnan(predictive_values(np.array([np.nan]), np.array([0.5]), 0.1)["ppv"][0])


def test_net_benefit_by_hand() -> None:
    positive, scores = np.array([True, True, False, False]), np.array([0.9, 0.2, 0.4, 0.1])
    # At .25 one is found and one flagged in vain, which weighs a third of it; at .5 nobody is flagged in vain.
    assert net_benefit(positive, scores, np.array([0.25, 0.5])) == pytest.approx([1 / 4 - 1 / 4 / 3, 1 / 4])


def test_the_curve_of_all_falls_to_nothing_at_the_prevalence_and_that_of_none_is_nothing() -> None:
    generator = np.random.default_rng(1)
    positive = generator.random(4000) < 0.2
    scores = np.clip(0.2 + 0.3 * (positive - 0.2) + 0.1 * generator.normal(size=4000), 0.001, 0.999)
    curve = decision_curve(positive, scores).set_index(["strategy", "threshold_probability"])["net_benefit"]
    assert (curve["flag none"] == 0).all()
    assert curve["flag all"][0.01] == pytest.approx(positive.mean() - (~positive).mean() / 99)
    assert curve["flag all"][0.15] > 0 > curve["flag all"][0.25]
    assert (curve["classifier"].loc[0.1:0.4] > np.maximum(curve["flag all"].loc[0.1:0.4], 0)).all()
    assert list(curve["classifier"].index) == pytest.approx(list(np.arange(1, 61) / 100))
