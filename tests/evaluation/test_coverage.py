"""By simulation: whether intervals, prediction sets and guarantees hold as often as they say, with several images a lesion.

Scores of a lesion's images share a normal effect, so the images are not independent, and the true values are known exactly.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, binom, kstest, norm

from skinlesion.evaluation.analysis.conformal import choose_one_image, conformal_quantile
from skinlesion.evaluation.analysis.thresholds import Rule, audit, choose_threshold
from skinlesion.evaluation.metrics.bootstrap import Measure, bootstrap, percentile_intervals
from skinlesion.evaluation.metrics.classification import area_under_roc, flagged_counts, rank_scores
from tests.conftest import resamples

SETS, LESIONS, DRAWS = 500, 600, 250
PREVALENCE, DISTANCE, THRESHOLD = 0.5, 1.8, 1.0  # of positives; between the means of both kinds; of the score
EFFECT, NOISE = 0.9, 0.45  # standard deviations between lesions and between images of one
SPREAD = float(np.hypot(EFFECT, NOISE))
SENSITIVITY, SPECIFICITY = norm.sf(THRESHOLD, DISTANCE, SPREAD), norm.cdf(THRESHOLD, 0, SPREAD)
# An image's score does not depend on how many images its lesion has, so these are the values over all images there could be.
TRUE = {
    "sensitivity": SENSITIVITY,
    "accuracy": PREVALENCE * SENSITIVITY + (1 - PREVALENCE) * SPECIFICITY,
    "auc": norm.cdf(DISTANCE / (np.sqrt(2) * SPREAD)),
}


class Clustered(NamedTuple):
    """Images of `LESIONS` lesions. lesions : int (images,). positive : bool (images,). scores : float64 (images,)."""

    lesions: np.ndarray
    positive: np.ndarray
    scores: np.ndarray


def draw(generator: np.random.Generator) -> Clustered:
    """One to four images a lesion."""
    lesions = np.repeat(np.arange(LESIONS), generator.integers(1, 5, LESIONS))
    positive = (generator.random(LESIONS) < PREVALENCE)[lesions]
    effects = EFFECT * generator.normal(size=LESIONS)
    return Clustered(lesions, positive, DISTANCE * positive + effects[lesions] + NOISE * generator.normal(size=len(lesions)))


def measures(data: Clustered) -> Measure:
    """Accuracy, sensitivity and AUC as the project measures them."""
    rates, ranking = audit(data.positive, data.scores, THRESHOLD), rank_scores(data.positive, data.scores)
    correct = ((data.scores >= THRESHOLD) == data.positive).astype(np.float64)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "sensitivity": rates(weights)["sensitivity"],
            "accuracy": weights @ correct / weights.sum(axis=1),
            "auc": area_under_roc(*flagged_counts(ranking, weights)),
        }

    return measure


def coverage(sets: int, *, by_lesion: bool) -> dict[str, float]:
    """Share of simulated sets whose 95 % interval holds the true value, by metric."""
    generator, covered = np.random.default_rng(0), dict.fromkeys(TRUE, 0)
    for number in range(sets):
        data = draw(generator)
        units = data.lesions if by_lesion else np.arange(len(data.lesions))
        drawn = bootstrap(measures(data), units.astype(str), resamples(DRAWS, seed=number))
        for name, interval in percentile_intervals(drawn, 0.95).items():
            covered[name] += interval["low"] <= TRUE[name] <= interval["high"]
    return {name: count / sets for name, count in covered.items()}


def test_lesion_intervals_cover_as_often_as_they_say() -> None:
    for name, share in coverage(SETS, by_lesion=True).items():
        assert 0.93 <= share <= 0.97, (name, share)


def test_intervals_that_draw_images_cover_too_seldom() -> None:
    for name, share in coverage(SETS // 4, by_lesion=False).items():
        assert share < 0.88, (name, share)


def nonconformity(generator: np.random.Generator) -> tuple[pd.Series, np.ndarray]:
    """Lesion of each image, and a score that is uniform from 0 to 1 over all images there could be, alike within a lesion."""
    data = draw(generator)
    return pd.Series(data.lesions.astype(str)), norm.cdf((data.scores - DISTANCE * data.positive) / SPREAD)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_a_conformal_quantile_covers_new_images_as_often_as_it_says(level: float) -> None:
    generator = np.random.default_rng(3)
    quantiles, all_images, covered = [], [], 0
    for number in range(SETS):
        lesions, scores = nonconformity(generator)
        quantile = conformal_quantile(scores[choose_one_image(lesions, seed=number)], level)
        covered += nonconformity(generator)[1][0] <= quantile
        quantiles.append(quantile)
        all_images.append(conformal_quantile(scores, level))
    # Of uniform scores the quantile is the coverage itself; it has a beta distribution (Vovk, ACML 2012).
    rank = int(np.ceil((LESIONS + 1) * level))
    law = beta(rank, LESIONS + 1 - rank)
    assert np.mean(quantiles) == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(SETS))
    assert law.mean() >= level
    assert kstest(quantiles, law.cdf).pvalue > 0.01
    assert level - 0.03 <= covered / SETS <= level + 0.03  # about two standard errors
    # With all images of a lesion, which are no evidence of their own, it strays further than as many cases would let it.
    assert np.std(all_images) > 1.2 * beta(2.5 * rank, 2.5 * (LESIONS + 1 - rank)).std()


def test_a_guaranteed_operating_point_keeps_its_promise_for_lesions_of_several_images() -> None:
    generator = np.random.default_rng(4)
    lesions = pd.Series(np.repeat(np.arange(120), 2).astype(str))
    positive = np.repeat(np.arange(120) < 100, 2)
    kept = []
    for _ in range(SETS):
        threshold = choose_threshold(Rule("guaranteed", 0.85), positive, generator.random(240), lesions, guarantee=0.9)
        kept.append((1 - threshold) ** 2 >= 0.85)  # both images of a lesion lie above it with this probability
    # The rank is the largest for which the promise holds; with whole ranks it is held somewhat more often than promised.
    ranks = np.arange(1, 101)
    exact = min(share for share in binom.sf(ranks - 1, 100, 0.15) if share >= 0.9)
    assert exact >= 0.9
    assert np.mean(kept) == pytest.approx(exact, abs=3 * np.sqrt(exact * (1 - exact) / SETS))
