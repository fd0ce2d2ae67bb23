"""The stage `evaluate` with several members, several views of an image, and metadata: against torch and NumPy by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from scipy.special import log_softmax
from sklearn import metrics as sklearn_metrics

from skinlesion.artifacts.patients import SEXES, SITES, WIDTH
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import fingerprint
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import Predicted, predict, soft_vote
from skinlesion.evaluation.inference.views import views_of
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.results.decisions import read_calibration
from skinlesion.model.classifier import Classifier, load_ensemble, normalize
from stages import evaluate
from tests.conftest import WriteParams, refuses
from tests.evaluation.evaluate_cases import CPU, SIZE, Member, evaluate_with, fitted_member, read_splits, rewrite_splits
from tests.model.classifier_cases import last_linear, make_config, make_network, save_ensemble
from tests.stage_cases import logits_of, read_metrics


@pytest.fixture(scope="module")
def three_members(evaluated: Path) -> list[Member]:
    """Members base-0, base-1 and base-2, trained on the lists of `evaluated`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(evaluated)
        return [fitted_member(read_splits(), seed) for seed in (0, 1, 2)]


def probabilities_by_hand(classifier: Classifier, listed: pd.DataFrame, *, test_time: str = "none") -> np.ndarray:
    """Mean of the softmax probabilities over the views, by torch and NumPy."""
    prepared, (model, config) = read_prepared(), classifier
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    images = torch.from_numpy(prepared.images[prepared.rows_of(listed["image_id"])])
    inputs = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        return np.mean([model(view).double().softmax(dim=1) for view in views_of(inputs, test_time)], axis=0)


def test_an_ensemble_averages_probabilities_and_then_fits_the_temperature(
    evaluated_project: Path, three_members: list[Member]
) -> None:
    splits = read_splits()
    save_ensemble(three_members)
    evaluate.main()
    for name in ("val", "test"):
        each = [probabilities_by_hand(classifier, splits[name]) for classifier in load_ensemble().values()]
        expected = np.mean(each, axis=0)
        np.testing.assert_allclose(np.exp(logits_of(name)), expected, atol=1e-5)
        assert np.abs(each[0] - expected).max() > 0.05
    temperature = 1 / read_calibration().scale[0]
    val, labels = logits_of("val"), evaluate.labels_of(splits["val"])
    scales = (0.98 * temperature, temperature, 1.02 * temperature)
    losses = [-scipy.special.log_softmax(val / at, axis=1)[np.arange(len(val)), labels].mean() for at in scales]
    assert losses[1] == min(losses)


def test_members_are_measured_alone_and_their_spread_is_told(evaluated_project: Path, three_members: list[Member]) -> None:
    splits = read_splits()
    save_ensemble(three_members)
    evaluate.main()
    metrics = read_metrics("evaluate")
    assert list(metrics["members"]) == ["base-0", "base-1", "base-2"]
    for split in ("val", "test"):
        truth = splits[split]["dx"].to_numpy()
        accuracies, areas = [], []
        for name, classifier in load_ensemble().items():
            probabilities = probabilities_by_hand(classifier, splits[split])
            stated = metrics["members"][name][split]
            assert set(stated) == set(HEADLINE)
            accuracies.append((np.array(CLASSES)[probabilities.argmax(axis=1)] == truth).mean())
            areas.append(sklearn_metrics.roc_auc_score(truth, probabilities, multi_class="ovr"))
            assert stated["accuracy"] == pytest.approx(accuracies[-1])
            assert stated["macro_auc"] == pytest.approx(areas[-1], abs=1e-4)  # float32 may order two near scores otherwise
        spread = metrics["spread"][split]
        assert list(spread) == ["accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "mel_sensitivity", "mel_specificity"]
        for name, values in (("accuracy", accuracies), ("macro_auc", areas)):
            expected = {"mean": np.mean(values), "sd": np.std(values, ddof=1), "min": min(values), "max": max(values)}
            assert spread[name] == pytest.approx(expected, abs=1e-4)


def test_one_member_has_no_standard_deviation(evaluated: Path) -> None:
    metrics = read_metrics("evaluate", evaluated)
    accuracy = metrics["test"]["accuracy"]
    assert metrics["spread"]["test"]["accuracy"] == {"mean": accuracy, "sd": None, "min": accuracy, "max": accuracy}
    assert metrics["test_time"] == "none"


@pytest.mark.parametrize("test_time", ["flips", "square", "multi_crop"])
def test_test_time_augmentation_averages_views(
    evaluated_project: Path, evaluated: Path, write_params: WriteParams, test_time: str
) -> None:
    evaluate_with(write_params, test_time=test_time)
    splits = read_splits()
    expected = probabilities_by_hand(load_ensemble()["base-0"], splits["test"], test_time=test_time)
    np.testing.assert_allclose(np.exp(logits_of("test")), expected, atol=1e-5)
    metrics, plain = read_metrics("evaluate"), read_metrics("evaluate", evaluated)
    assert metrics["test_time"] == test_time
    assert metrics["test"]["nll_before"] != pytest.approx(plain["test"]["nll_before"], abs=1e-4)
    assert metrics["members"] == plain["members"]  # each alone, without test-time views


def test_size_of_a_batch_does_not_matter(evaluated_project: Path, write_params: WriteParams) -> None:
    seen = []
    for batch_size in (9, 500):
        evaluate_with(write_params, test_time="flips", **{"machine.batch_size": batch_size})
        seen.append(logits_of("test"))
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-4)


def test_a_classifier_with_metadata_predicts_each_image_with_its_own(evaluated_project: Path) -> None:
    splits = read_splits()
    for frame in splits.values():
        frame["age"] = np.where(np.arange(len(frame)) % 3 == 0, np.nan, 30.0 + np.arange(len(frame)))
        frame["sex"] = np.where(np.arange(len(frame)) % 2, "male", "female")
    config = make_config("shufflenet_v2_x0_5", size=SIZE, metadata=True, fingerprint=fingerprint(splits))
    model = make_network(config)
    save_ensemble([(model, config)])
    rewrite_splits(splits)
    evaluate.main()
    logits, prepared = logits_of("test"), read_prepared()
    expected = []
    for row in splits["test"].itertuples():
        image = prepared.images[prepared.rows_of([row.image_id])]
        known = np.zeros((1, WIDTH), dtype=np.float32)
        known[0, :2] = (0, 0) if np.isnan(row.age) else ((row.age - 50) / 20, 1)
        known[0, 2 + SEXES.index(row.sex)] = 1
        known[0, 2 + len(SEXES) + 1 + SITES.index("back")] = 1
        with torch.no_grad():
            expected.append(model(normalize(torch.from_numpy(image), config), torch.from_numpy(known))[0].numpy())
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    other = splits["test"].assign(age=80.0, sex="unknown")
    moved = predict(Classifier(model, config), prepared, other, device=CPU, batch_size=16).logits
    assert np.abs(moved - logits).max() > 1e-3


def test_logits_that_are_not_finite_are_refused_and_the_member_named(evaluated_project: Path) -> None:
    splits = read_splits()
    configs = [make_config("shufflenet_v2_x0_5", seed=seed, size=SIZE, fingerprint=fingerprint(splits)) for seed in (0, 1)]
    members = [(make_network(config), config) for config in configs]
    for parameter in last_linear(members[1][0]).parameters():
        torch.nn.init.constant_(parameter, torch.finfo(torch.float32).max)  # numbers still, but not when they are summed up
    save_ensemble(members)
    refuses(r"classifier 'base-1' gives logits that are not finite", evaluate.main)


def test_probabilities_near_zero_are_averaged_without_underflow() -> None:
    sure = np.array([[0.0, 2000.0]])
    opposed = [Predicted(logits, log_softmax(logits, axis=1)) for logits in (sure, sure[:, ::-1])]
    np.testing.assert_allclose(soft_vote(opposed, test_time="none"), np.log([[0.5, 0.5]]))
    agreed = [Predicted(sure, log_softmax(sure, axis=1))] * 2
    np.testing.assert_allclose(soft_vote(agreed, test_time="none"), [[-2000, 0]])
