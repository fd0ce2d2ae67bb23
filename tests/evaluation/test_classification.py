"""Weighted metrics against scikit-learn, by hand, and where they are undefined."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.classification import HEADLINE, ClassificationMetrics, ratio, thin
from skinlesion.evaluation.metrics.plot_tables import confusion_table, precision_recall_table, roc_table

MEL, NV = CLASSES.index("mel"), CLASSES.index("nv")


def make_predictions(seed: int, images: int = 300, decimals: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Imbalanced labels and informative probabilities; few decimals make ties."""
    generator = np.random.default_rng(seed)
    labels = np.append(np.arange(7), generator.choice(7, images - 7, p=[0.05, 0.06, 0.11, 0.03, 0.12, 0.6, 0.03]))
    logits = generator.normal(size=(images, 7))
    logits[np.arange(images), labels] += 1.2
    probabilities = np.round(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), decimals)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def whole_weights(seed: int, draws: int, images: int) -> np.ndarray:
    """Weights as a bootstrap gives them, but with every class drawn: the first seven images are one of each."""
    weights = np.random.default_rng(seed).integers(0, 4, size=(draws, images)).astype(float)
    weights[:, :7] = np.maximum(weights[:, :7], 1)
    return weights


def by_scikit_learn(labels: np.ndarray, probabilities: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """The headline metrics by an independent implementation."""
    predicted = probabilities.argmax(axis=1)
    each = {"y_true": labels, "y_pred": predicted, "sample_weight": weight}
    truth = np.eye(7)[labels]
    one_vs_rest = [sklearn_metrics.roc_auc_score(truth[:, c], probabilities[:, c], sample_weight=weight) for c in range(7)]
    f1 = sklearn_metrics.f1_score(**each, average=None, labels=range(7), zero_division=0)
    return {
        "accuracy": sklearn_metrics.accuracy_score(**each),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(**each),
        "macro_f1": sklearn_metrics.f1_score(**each, average="macro", zero_division=0),
        "weighted_f1": sklearn_metrics.f1_score(**each, average="weighted", zero_division=0),
        "macro_auc": np.mean(one_vs_rest),
        "macro_average_precision": sklearn_metrics.average_precision_score(truth, probabilities, sample_weight=weight),
        "top2_accuracy": sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=2, sample_weight=weight),
        "mel_sensitivity": sklearn_metrics.recall_score(**each, labels=[MEL], average="macro"),
        "mel_specificity": sklearn_metrics.recall_score(labels != MEL, predicted != MEL, sample_weight=weight),
        **{f"f1_{dx}": f1[index] for index, dx in enumerate(CLASSES)},
    }


def test_weighted_metrics_equal_scikit_learns_with_sample_weight_also_among_tied_scores() -> None:
    labels, probabilities = make_predictions(1, decimals=12)
    tied = np.round(probabilities * 10) + 1e-3 * np.arange(7)[::-1]  # ties between images, none within a row
    weights = np.vstack([np.ones(len(labels)), whole_weights(2, draws=5, images=len(labels))])
    for scores in (probabilities, tied):
        ours = ClassificationMetrics(labels, scores).headline(weights)
        assert tuple(ours) == (*HEADLINE, *(f"f1_{dx}" for dx in CLASSES))
        for draw, weight in enumerate(weights):
            theirs = {**by_scikit_learn(labels, probabilities, weight)} if scores is probabilities else {}
            truth = np.eye(7)[labels]
            theirs["macro_average_precision"] = sklearn_metrics.average_precision_score(truth, scores, sample_weight=weight)
            theirs["macro_auc"] = sklearn_metrics.roc_auc_score(truth, scores, sample_weight=weight)
            for name, value in theirs.items():
                assert ours[name][draw] == pytest.approx(value, abs=1e-12), name


def test_per_class_values_equal_scikit_learns() -> None:
    labels, probabilities = make_predictions(5)
    predicted = probabilities.argmax(axis=1)
    summary = ClassificationMetrics(labels, probabilities).summary_per_class()
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for index, dx in enumerate(CLASSES):
        mine = summary[dx]
        assert (mine["precision"], mine["recall"], mine["f1"]) == pytest.approx((precision[index], recall[index], f1[index]))
        assert mine["support"] == support[index]
        assert isinstance(mine["support"], int)
        assert mine["auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels == index, probabilities[:, index]))
        expected = sklearn_metrics.average_precision_score(labels == index, probabilities[:, index])
        assert mine["average_precision"] == pytest.approx(expected)
        assert mine["specificity"] == pytest.approx(((labels != index) & (predicted != index)).sum() / (labels != index).sum())


def test_four_images_by_hand() -> None:
    # nv, nv, mel, mel predicted as nv, mel, mel, bcc; the second choice is right for the second and wrong for the last.
    labels = np.array([NV, NV, MEL, MEL])
    probabilities = np.full((4, 7), 0.01)
    probabilities[[0, 1, 2, 3], [NV, MEL, MEL, CLASSES.index("bcc")]] = 0.6
    probabilities[[0, 1, 2, 3], [MEL, NV, NV, NV]] = 0.35
    measured = ClassificationMetrics(labels, probabilities)
    headline = {name: value[0] for name, value in measured.headline(np.ones((1, 4))).items()}
    halves = ("accuracy", "balanced_accuracy", "mel_sensitivity", "mel_specificity", "f1_mel")
    assert {headline[name] for name in halves} == {0.5} and headline["top2_accuracy"] == 0.75
    assert headline["f1_nv"] == pytest.approx(2 / 3)  # precision 1, recall 1/2
    assert headline["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)  # bcc is predicted but absent, and not averaged
    # nv scores: .60 and .35 against .35 and .35: the first wins both pairs, the second ties both.
    assert measured.summary_per_class()["nv"]["auc"] == pytest.approx((2 + 2 * 0.5) / 4)


def test_what_an_absent_or_never_predicted_class_gives() -> None:
    labels = np.array([NV, NV, MEL])
    probabilities = np.zeros((3, 7))
    probabilities[:, NV], probabilities[:, MEL] = 0.9, [0.05, 0.02, 0.1]
    measured = ClassificationMetrics(labels, probabilities)
    summary = measured.summary_per_class()
    assert summary["mel"]["precision"] == 0  # never predicted
    assert summary["mel"]["f1"] == 0
    assert summary["mel"]["auc"] == 1
    assert summary["df"]["precision"] == 0
    assert all(np.isnan(summary["df"][name]) for name in ("recall", "f1", "auc", "average_precision"))
    assert summary["df"]["specificity"] == 1
    only_nevi = measured.headline(np.array([[1.0, 1.0, 0.0]]))
    assert only_nevi["balanced_accuracy"][0] == only_nevi["macro_f1"][0] == only_nevi["weighted_f1"][0] == 1
    assert np.isnan(only_nevi["mel_sensitivity"][0])
    assert np.isnan(only_nevi["macro_auc"][0])
    assert only_nevi["mel_specificity"][0] == 1
    assert only_nevi["macro_average_precision"][0] == 1


def test_equal_probabilities_go_to_the_first_class() -> None:
    measured = ClassificationMetrics(np.array([0, 1, 2]), np.full((3, 7), 1 / 7))
    assert measured.predicted.tolist() == [0, 0, 0]
    assert measured.headline(np.ones((1, 3)))["top2_accuracy"][0] == pytest.approx(2 / 3)


def test_labels_and_probabilities_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 labels and probabilities of shape \(2, 7\)"):
        ClassificationMetrics(np.zeros(3, dtype=int), np.ones((2, 7)))


def test_thin_keeps_both_ends_and_the_steep_part() -> None:
    x = np.linspace(0, 1, 1000)
    points = np.stack([x, np.where(x < 0.01, x * 100, 1)], axis=1)
    kept = thin(points, 50)
    assert len(kept) <= 50
    assert (kept[0], kept[-1]) == (0, 999)
    assert (np.diff(kept) > 0).all()
    assert (points[kept, 0] < 0.01).sum() >= 8  # 1 % of the points, half of the length
    assert thin(points, 1000).tolist() == list(range(1000))


def test_curve_tables_have_points_of_the_exact_curve_and_few_of_them() -> None:
    labels, probabilities = make_predictions(7, images=4000)
    table = roc_table(labels, probabilities, most=200)
    assert table.groupby("dx").size().max() <= 200
    assert set(table["dx"]) == set(CLASSES)
    exact = set(zip(*sklearn_metrics.roc_curve(labels == NV, probabilities[:, NV], drop_intermediate=False)[:2], strict=True))
    of_nevi = table.loc[table["dx"] == "nv", ["false_positive_rate", "true_positive_rate"]]
    assert set(of_nevi.itertuples(index=False, name=None)) <= exact
    assert of_nevi.iloc[0].tolist() == [0, 0]
    assert of_nevi.iloc[-1].tolist() == [1, 1]
    drawn = np.trapezoid(of_nevi["true_positive_rate"], of_nevi["false_positive_rate"])
    assert drawn == pytest.approx(sklearn_metrics.roc_auc_score(labels == NV, probabilities[:, NV]), abs=0.003)
    precision_recall = precision_recall_table(labels, probabilities, most=200)
    assert precision_recall.columns.tolist() == ["dx", "recall", "precision"]
    assert precision_recall.groupby("dx").size().max() <= 200


def test_a_short_roc_table_draws_the_whole_area() -> None:
    labels, probabilities = make_predictions(8, images=60)
    table = roc_table(labels, probabilities, most=200)
    for index, dx in enumerate(CLASSES):
        rows = table[table["dx"] == dx]
        area = np.trapezoid(rows["true_positive_rate"], rows["false_positive_rate"])
        assert area == pytest.approx(sklearn_metrics.roc_auc_score(labels == index, probabilities[:, index]), abs=1e-12)


def test_an_absent_class_has_no_curve() -> None:
    labels, probabilities = make_predictions(9, images=60)
    without_df = labels != CLASSES.index("df")
    assert "df" not in set(roc_table(labels[without_df], probabilities[without_df], most=200)["dx"])
    assert "df" not in set(precision_recall_table(labels[without_df], probabilities[without_df], most=200)["dx"])


def test_confusion_table_counts_and_shares() -> None:
    confusion = np.zeros((7, 7))
    confusion[NV, NV], confusion[NV, MEL], confusion[MEL, MEL] = 3, 1, 2
    table = confusion_table(confusion).set_index(["actual", "predicted"])
    assert len(table) == 49
    assert table.loc[("nv", "mel"), "images"] == 1
    assert table.loc[("nv", "mel"), "share"] == 0.25
    assert table.loc[("mel", "nv"), "images"] == 0
    assert np.isnan(table.loc[("df", "df"), "share"])
    assert np.issubdtype(table["images"].dtype, np.integer)


def test_ratio_broadcasts_and_fills_where_the_denominator_is_zero() -> None:
    assert np.array_equal(ratio(np.array([1, 2]), np.array([0, 4]), undefined=-1.0), [-1, 0.5])
    assert np.array_equal(ratio(np.array([3, 4]), np.array(2), undefined=0.0), [1.5, 2])
