"""Operating points: exact thresholds, ties, floats, audits."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.evaluation.analysis.thresholds import (
    Rule,
    achieved,
    audit,
    cheapest_threshold,
    choose_threshold,
    sweep,
    target_auc,
    target_scores,
    threshold_for_recall,
    threshold_for_specificity,
    threshold_with_guarantee,
    youden_threshold,
)
from skinlesion.evaluation.metrics.bootstrap import point_estimate
from tests.conftest import refuses


def make_scores(seed: int, images: int = 400, decimals: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Truth and overlapping scores in [0, 1]."""
    generator = np.random.default_rng(seed)
    positive = generator.random(images) < 0.15
    scores = 1 / (1 + np.exp(-(generator.normal(size=images) + 2 * positive - 2)))
    return positive, np.round(scores, decimals)


def make_table(dx: list[str], seed: int = 0) -> pd.DataFrame:
    """A prediction table with random probabilities."""
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(7), size=len(dx))
    return pd.DataFrame(probabilities, columns=list(PROBABILITY_COLUMNS)).assign(dx=dx)


@pytest.mark.parametrize("constraint", [0.01, 0.5, 0.85, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("decimals", [12, 1])
def test_no_larger_threshold_has_the_recall_and_no_smaller_one_the_specificity(constraint: float, decimals: int) -> None:
    positive, scores = make_scores(8, decimals=decimals)
    recall, specificity = (find(positive, scores, constraint) for find in (threshold_for_recall, threshold_for_specificity))
    assert recall in scores and (scores[positive] >= recall).mean() >= constraint
    assert all((scores[positive] >= larger).mean() < constraint for larger in scores[scores > recall])
    assert specificity in scores and (scores[~positive] < specificity).mean() >= constraint
    assert all((scores[~positive] < smaller).mean() < constraint for smaller in scores[scores < specificity])


@pytest.mark.parametrize("percent", [7, 14, 28, 55, 56, 57, 58, 85, 90, 95, 100])
@pytest.mark.parametrize("positives", [20, 100, 110, 180, 200, 1000])
def test_a_constraint_that_is_met_exactly_counts_as_met(positives: int, percent: int) -> None:
    # 0.55 * 100 is 55.00000000000001 in floats; 55 of 100 are nevertheless 0.55.
    scores = np.append(np.arange(positives, 0, -1), 0) / (positives + 1)
    positive = np.append(np.ones(positives, dtype=bool), False)
    threshold = threshold_for_recall(positive, scores, percent / 100)
    assert (scores >= threshold).sum() == -(-positives * percent // 100)


def test_images_of_equal_score_are_flagged_together() -> None:
    positive = np.array([True, True, True, True, False, False])
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1])
    assert threshold_for_recall(positive, scores, 0.25) == 0.9
    assert threshold_for_recall(positive, scores, 0.26) == 0.5
    assert achieved(positive, scores, 0.5)["sensitivity"] == 1
    assert achieved(positive, scores, 0.5)["specificity"] == 0.5


def test_youden_equals_the_best_of_scikit_learns_curve() -> None:
    positive, scores = make_scores(2)
    false_positive_rate, true_positive_rate, thresholds = sklearn_metrics.roc_curve(positive, scores, drop_intermediate=False)
    assert youden_threshold(positive, scores) == thresholds[np.argmax(true_positive_rate - false_positive_rate)]


def test_youden_takes_the_larger_threshold_among_equals() -> None:
    # J is 1/3 at 0.9, 0.7 and 0.5; in floats 1 - 2/3 would be the largest.
    positive = np.array([True, False, True, False, True, False])
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert youden_threshold(positive, scores) == 0.9


def test_youden_of_reversed_scores_is_still_a_validation_score() -> None:
    positive, scores = np.array([False, False, True]), np.array([0.9, 0.8, 0.1])
    assert youden_threshold(positive, scores) == 0.1


def test_points_are_named_by_their_rule() -> None:
    rules = [*(Rule("recall", share) for share in (0.85, 0.975, 1.0)), Rule("cost", 10.0), Rule("cost", 2.5), Rule("youden")]
    assert [rule.name for rule in rules] == ["recall_0.85", "recall_0.975", "recall_1.00", "cost_10", "cost_2.5", "youden"]
    assert Rule("recall", 0.1234567).name != Rule("recall", 0.1234568).name
    assert Rule("cost", 0.12345678).name != Rule("cost", 0.12345679).name


def test_a_specificity_that_is_met_exactly_counts_and_one_out_of_reach_is_refused() -> None:
    positive, scores = np.array([True] + [False] * 20), np.append(0.5, np.arange(20, 0, -1) / 20)
    assert (scores[~positive] < threshold_for_specificity(positive, scores, 0.55)).mean() == pytest.approx(0.55)
    message = r"no threshold reaches a specificity of 0.96 on validation, .* gives 0.9500: ask for less"
    refuses(message, threshold_for_specificity, positive, scores, 0.96)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 7.0, 30.0])
def test_the_cheapest_threshold_is_that_of_every_score_tried(ratio: float) -> None:
    positive, scores = make_scores(9, images=120, decimals=2)
    candidates = np.unique(scores)
    costs = [ratio * (positive & (scores < each)).sum() + (~positive & (scores >= each)).sum() for each in candidates]
    assert cheapest_threshold(positive, scores, ratio) == candidates[np.flatnonzero(costs == np.min(costs))[-1]]


def test_a_guarantee_by_hand() -> None:
    # Of 22 lesions none may be missed: .9 ** 22 is .098, just below .1; the second lowest would do at 38 (Wilks).
    scores = np.arange(1, 39) / 100
    assert threshold_with_guarantee(scores[:21], 0.9, 0.9) is None
    assert threshold_with_guarantee(scores[:22], 0.9, 0.9) == 0.01
    assert threshold_with_guarantee(scores[:37], 0.9, 0.9) == 0.01
    assert threshold_with_guarantee(scores[:38], 0.9, 0.9) == 0.02


def test_the_lowest_image_stands_for_its_lesion_and_too_few_lesions_flag_everything() -> None:
    generator = np.random.default_rng(1)
    lesions = pd.Series([f"L{number // 2}" for number in range(400)])
    positive, scores = np.repeat(generator.random(200) < 0.4, 2), generator.random(400)
    chosen = choose_threshold(Rule("guaranteed", 0.85), positive, scores, lesions, guarantee=0.9)
    lowest = pd.Series(scores[positive]).groupby(lesions.to_numpy()[positive]).min()
    assert chosen == threshold_with_guarantee(lowest.to_numpy(), 0.85, 0.9)
    few = positive & (np.arange(400) < 20)
    assert choose_threshold(Rule("guaranteed", 0.85), few, scores, lesions, guarantee=0.9) == 0


def test_a_rule_chooses_by_its_kind() -> None:
    positive, scores = make_scores(3)
    lesions = pd.Series([f"L{number}" for number in range(len(scores))])
    rules = (Rule("recall", 0.9), Rule("specificity", 0.9), Rule("cost", 4.0), Rule("youden"))
    chosen = {rule: choose_threshold(rule, positive, scores, lesions, guarantee=0.9) for rule in rules}
    assert list(chosen.values()) == [
        threshold_for_recall(positive, scores, 0.9),
        threshold_for_specificity(positive, scores, 0.9),
        cheapest_threshold(positive, scores, 4.0),
        youden_threshold(positive, scores),
    ]
    assert len(set(chosen.values())) == 4


def test_audit_equals_scikit_learn_with_weights() -> None:
    positive, scores = make_scores(4)
    weights = np.random.default_rng(5).integers(0, 4, size=(3, len(scores))).astype(float)
    flagged = scores >= 0.4
    values = audit(positive, scores, 0.4)(weights)
    for draw, weight in enumerate(weights):
        each = {"y_true": positive, "y_pred": flagged, "sample_weight": weight}
        assert {name: drawn[draw] for name, drawn in values.items()} == pytest.approx({
            "sensitivity": sklearn_metrics.recall_score(**each),
            "specificity": sklearn_metrics.recall_score(**each, pos_label=False),
            "precision": sklearn_metrics.precision_score(**each),
            "f1": sklearn_metrics.f1_score(**each),
            "flagged": np.average(flagged, weights=weight),
        })  # fmt: skip
        auc = sklearn_metrics.roc_auc_score(positive, scores, sample_weight=weight)
        assert target_auc(positive, scores)(weights)["auc"][draw] == pytest.approx(auc)


def test_a_threshold_that_flags_nothing_and_a_draw_without_positives() -> None:
    positive, scores = np.array([True, False, False]), np.array([0.3, 0.2, 0.1])
    nothing = achieved(positive, scores, 0.5)
    assert nothing == {"sensitivity": 0, "specificity": 1, "precision": 0, "f1": 0, "flagged": 0}
    without = audit(positive, scores, 0.15)(np.array([[0.0, 1.0, 1.0]]))
    assert np.isnan(without["sensitivity"][0])
    assert np.isnan(without["f1"][0])
    assert without["specificity"][0] == 0.5


def test_score_of_a_group_is_the_sum_of_its_probabilities() -> None:
    table = make_table(["mel", "nv", "bcc", "akiec", "df"])
    positive, scores = target_scores(table, ["mel", "bcc", "akiec"], split="val")
    assert positive.tolist() == [True, False, True, True, False]
    expected = table["probability_mel"] + table["probability_bcc"] + table["probability_akiec"]
    assert scores == pytest.approx(expected.to_numpy())
    assert np.array_equal(scores, target_scores(table, ["akiec", "mel", "bcc"], split="val")[1])
    assert np.array_equal(target_scores(table, ["mel"], split="val")[1], table["probability_mel"])


def test_sweep_has_the_chosen_thresholds_and_values_that_hold() -> None:
    positive, scores = make_scores(6, images=3000)
    keep = [0.123456, float(scores[17])]
    curve = sweep(positive, scores, keep, most=300)
    assert len(curve) <= 302
    assert set(keep) <= set(curve["threshold"])
    assert (curve["threshold"].diff().dropna() < 0).all()
    assert (curve["sensitivity"].diff().dropna() >= 0).all()
    assert curve["threshold"].iloc[0] == scores.max()
    assert curve["threshold"].iloc[-1] == scores.min()
    for row in curve.iloc[::40].itertuples():
        expected = point_estimate(audit(positive, scores, row.threshold), len(scores))
        assert {name: getattr(row, name) for name in expected} == pytest.approx(expected)


def test_a_short_sweep_has_every_distinct_score() -> None:
    positive, scores = make_scores(7, images=50, decimals=1)
    assert set(sweep(positive, scores, [], most=300)["threshold"]) == set(scores)
