"""The stage `evaluate` on a small real classifier: what it writes, that it can be recomputed, and what it refuses."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from ruamel.yaml import YAML
from scipy.special import log_softmax, softmax
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.patients import SEXES, SITES, WIDTH
from skinlesion.artifacts.prepared import INDEX_COLUMNS, PREPARED, read_prepared
from skinlesion.artifacts.splits import SPLIT_NAMES, SplitFacts, fingerprint, read_split, write_splits
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, labels_of, logits_of, probabilities_of, write_table
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import read_json, write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import Predicted, predict, soft_vote
from skinlesion.evaluation.inference.views import views_of
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.metrics.lesions import predict_lesions
from skinlesion.evaluation.results.decisions import CALIBRATION, read_calibration
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS, PREDICTIONS, read_predictions
from skinlesion.model.classifier import Classifier, ClassifierConfig, load_ensemble, normalize
from skinlesion.model.network import SkinNetwork
from stages import evaluate
from tests.model.classifier_cases import last_linear, make_config, make_network, save_ensemble

Member = tuple[SkinNetwork, ClassifierConfig]

CPU = torch.device("cpu")
SIZE = 32
# nv leads the training list and bkl the others, so that a baseline of the wrong list shows.
COUNTS = {
    "train": {"akiec": 4, "bcc": 5, "bkl": 8, "df": 3, "mel": 9, "nv": 30, "vasc": 3},
    "val": {"akiec": 5, "bcc": 6, "bkl": 24, "df": 4, "mel": 12, "nv": 16, "vasc": 4},
    "test": {"akiec": 6, "bcc": 7, "bkl": 30, "df": 5, "mel": 14, "nv": 20, "vasc": 4},
}


def make_splits() -> dict[str, pd.DataFrame]:
    """Three lists; two images a lesion where there are two."""
    splits = {}
    for first, (split, counts) in enumerate(COUNTS.items(), start=1):
        dx = [name for name, count in counts.items() for _ in range(count)]
        numbers = np.arange(len(dx))
        lesions = [f"{split}_{name}_{number // 2}" for name, number in zip(dx, numbers, strict=True)]
        frame = pd.DataFrame({"lesion_id": lesions, "image_id": [f"ISIC_{first}{number:06d}" for number in numbers], "dx": dx})
        known = {"dx_type": "histo", "sex": "female", "localization": "back"}
        splits[split] = frame.assign(**known, age=50.0).sample(frac=1, random_state=0, ignore_index=True)
    return splits


def write_prepared(frame: pd.DataFrame, *, seed: int, size: int = SIZE) -> None:
    """Noise around a colour a class."""
    generator = np.random.default_rng(0)
    colours = generator.uniform(60, 200, size=(len(CLASSES), 3))
    means = colours[labels_of(frame)] + np.random.default_rng(seed).normal(0, 32, (len(frame), 3))
    noise = np.random.default_rng(seed + 1).normal(0, 20, (len(frame), size, size, 3))
    PREPARED.mkdir(parents=True, exist_ok=True)
    np.save(PREPARED / "images.npy", np.clip(means[:, None, None] + noise, 0, 255).astype(np.uint8))
    index = pd.DataFrame({"image_id": frame["image_id"], "width": 40, "height": 30, "fit": "squash"})
    index["color_constancy"] = "none"
    write_table(index, PREPARED / "index.csv", INDEX_COLUMNS)


def fitted_member(splits: dict[str, pd.DataFrame], seed: int) -> Member:
    """A random network whose head is fitted to the training colours by scikit-learn, overconfident by a factor."""
    config = make_config("shufflenet_v2_x0_5", seed=seed, size=SIZE, fingerprint=fingerprint(splits))
    model = make_network(config, seed=seed)
    head, model.head = model.head, torch.nn.Identity()
    train = splits["train"]
    features = predict(Classifier(model, config), read_prepared(), train, device=CPU, batch_size=64).logits
    scale = features.std()
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit(features / scale, train["dx"])
    assert tuple(fitted.classes_) == CLASSES
    model.head = head
    weights = {"weight": torch.tensor(2 * fitted.coef_ / scale), "bias": torch.tensor(2 * fitted.intercept_)}
    last_linear(model).load_state_dict(weights)
    return model, config


def rewrite_splits(splits: dict[str, pd.DataFrame]) -> None:
    """Change the lists, and let the classifier say that it was trained on them."""
    write_splits(splits, SplitFacts(fingerprint(splits), "sample", True))
    path = CLASSIFIER / "base-0" / "config.json"
    write_json(path, read_json(path) | {"fingerprint": fingerprint(splits)})


def read_splits() -> dict[str, pd.DataFrame]:
    """The three lists of the workspace."""
    return {name: read_split(name) for name in SPLIT_NAMES}


def write_small_params(repository_params: dict[str, Any], **overrides: Any) -> None:
    """The repository's params with few draws, on the CPU."""
    document = copy.deepcopy(repository_params)
    document["evaluate"] |= {"device": "cpu", "bootstrap_draws": 200, "batch_size": 16} | overrides
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(document, file)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they give on a network this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory, repository_params: dict[str, Any]) -> Path:
    """A folder in which the stage has run."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        splits = make_splits()
        write_splits(splits, SplitFacts(fingerprint(splits), "sample", True))
        write_prepared(pd.concat(splits.values(), ignore_index=True), seed=1)
        save_ensemble([fitted_member(splits, 0)])
        write_small_params(repository_params)
        evaluate.main()
    return folder


@pytest.fixture
def project(evaluated: Path, workspace: Path) -> Path:
    """A copy of that folder to change, the working directory."""
    shutil.copytree(evaluated, workspace, dirs_exist_ok=True)
    return workspace


def read_metrics(folder: Path = Path()) -> dict[str, Any]:
    """Content of metrics/evaluate.json."""
    return json.loads((folder / "metrics/evaluate.json").read_text(encoding="utf-8"))


def written(folder: Path) -> dict[str, bytes]:
    """Every byte that the stage wrote."""
    folders = ("data/predictions", "metrics", "plots")
    files = [path for name in folders for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in [*files, folder / "models/calibration.json"]}


def test_metrics_can_be_recomputed_from_the_prediction_tables(evaluated: Path) -> None:
    metrics = read_metrics(evaluated)
    assert metrics["data"] == {"source": "sample", "synthetic": True}
    assert metrics["bootstrap"] == {"draws": 200, "unit": "lesion", "confidence": 0.95, "seed": 0}
    for name in ("val", "test"):
        table, stated = read_predictions(name, evaluated / PREDICTIONS), metrics[name]
        truth = table["dx"].to_numpy()
        probabilities = probabilities_of(table)
        predicted = np.array(CLASSES)[probabilities.argmax(axis=1)]
        expected = {
            "images": len(table),
            "lesions": table["lesion_id"].nunique(),
            "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(truth, predicted),
            "macro_f1": sklearn_metrics.f1_score(truth, predicted, average="macro", zero_division=0),
            "weighted_f1": sklearn_metrics.f1_score(truth, predicted, average="weighted", zero_division=0),
            "macro_auc": sklearn_metrics.roc_auc_score(truth, probabilities, multi_class="ovr"),
            "macro_average_precision": sklearn_metrics.average_precision_score(
                truth[:, None] == np.array(CLASSES), probabilities
            ),
            "top2_accuracy": sklearn_metrics.top_k_accuracy_score(truth, probabilities, k=2),
            "mel_sensitivity": (predicted[truth == "mel"] == "mel").mean(),
            "mel_specificity": (predicted[truth != "mel"] != "mel").mean(),
            "nll_after": sklearn_metrics.log_loss(truth, probabilities),
            "nll_before": -scipy.special.log_softmax(table[list(LOGIT_COLUMNS)], axis=1)[
                np.arange(len(table)), evaluate.labels_of(table)
            ].mean(),
            "brier_after": sklearn_metrics.brier_score_loss(truth, probabilities, scale_by_half=False),
        }
        for metric, value in expected.items():
            assert stated[metric] == pytest.approx(value, abs=1e-9), (name, metric)
        assert stated["accuracy"] > stated["majority_baseline"]["accuracy"] + 0.2
        assert stated["per_class"]["mel"]["recall"] == stated["mel_sensitivity"]
        assert {dx: values["support"] for dx, values in stated["per_class"].items()} == COUNTS[name]


def test_a_lesion_counts_once_with_the_mean_of_its_images(evaluated: Path) -> None:
    table = read_predictions("test", evaluated / PREDICTIONS)
    stated = read_metrics(evaluated)["test"]["per_lesion"]
    lesions = table.groupby("lesion_id").agg({"dx": "first"} | dict.fromkeys(PROBABILITY_COLUMNS, "mean"))
    assert len(lesions) < len(table)
    probabilities = probabilities_of(lesions)
    predicted = np.array(CLASSES)[probabilities.argmax(axis=1)]
    assert stated["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(lesions["dx"], predicted), abs=1e-12)
    areas = [sklearn_metrics.roc_auc_score(lesions["dx"] == dx, lesions[f"probability_{dx}"]) for dx in CLASSES]
    assert stated["macro_auc"] == pytest.approx(np.mean(areas), abs=1e-12)
    for name in HEADLINE:
        assert stated["intervals"][name]["low"] <= stated[name] <= stated["intervals"][name]["high"], name
    hits = (predicted == lesions["dx"]).to_numpy()  # of lesions, each of which is a draw's unit of its own
    shares = [np.average(hits, weights=row) for row in np.concatenate(list(lesion_weights(lesions.index, draws=200, seed=0)))]
    assert list(stated["intervals"]["accuracy"].values()) == pytest.approx(list(np.quantile(shares, [0.025, 0.975])), abs=1e-12)
    with pytest.raises(PipelineError, match=f"lesion with two diagnoses: {table['lesion_id'].iloc[0]}: run"):
        predict_lesions(pd.concat([table, table.head(1).assign(dx="nv" if table["dx"].iloc[0] != "nv" else "mel")]))


def test_every_headline_number_lies_within_its_interval(evaluated: Path) -> None:
    test = read_metrics(evaluated)["test"]
    assert set(test["intervals"]) == {*HEADLINE, *(f"f1_{dx}" for dx in CLASSES)}
    for name in HEADLINE:
        assert test["intervals"][name]["low"] < test[name] < test["intervals"][name]["high"], name


def test_tables_have_the_rows_of_the_lists_and_the_logits_of_the_classifier(project: Path) -> None:
    classifier = load_ensemble()["base-0"]
    temperature = 1 / read_calibration().scale[0]
    for name in ("val", "test"):
        split, table = read_split(name), read_predictions(name)
        for column in DESCRIPTIVE_COLUMNS:
            assert table[column].tolist() == split[column].tolist()
        expected = predict(classifier, read_prepared(), split, device=CPU, batch_size=16).logits
        logits = logits_of(table)
        assert np.allclose(logits, expected, rtol=0, atol=1e-5)
        probabilities = probabilities_of(table)
        assert np.allclose(probabilities, softmax(logits / temperature, axis=1), rtol=0, atol=1e-15)
        assert (probabilities.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_the_temperature_helps_an_overconfident_classifier_on_validation(evaluated: Path) -> None:
    metrics = read_metrics(evaluated)
    assert read_calibration(evaluated / CALIBRATION).scale[0] < 1 / 1.2
    assert metrics["val"]["nll_after"] < metrics["val"]["nll_before"]


def test_vector_scaling_fits_validation_better_and_changes_no_logit(
    project: Path, evaluated: Path, repository_params: dict[str, Any]
) -> None:
    write_small_params(repository_params, calibration="vector")
    evaluate.main()
    vector, temperature = read_metrics(), read_metrics(evaluated)
    assert (vector["calibration"], temperature["calibration"]) == ("vector", "temperature")
    assert vector["val"]["nll_after"] < temperature["val"]["nll_after"] - 1e-3
    assert vector["val"]["nll_before"] == temperature["val"]["nll_before"]
    content = read_calibration()
    for name in ("val", "test"):
        table = read_predictions(name)
        logits = logits_of(table)
        before = read_predictions(name, evaluated / PREDICTIONS)[list(LOGIT_COLUMNS)].to_numpy()
        assert np.array_equal(logits, before)
        expected = scipy.special.softmax(logits * content.scale + content.bias, axis=1)
        np.testing.assert_allclose(probabilities_of(table), expected, atol=1e-12)
    assert np.abs(content.bias).max() > 0.01


def test_recalibration_of_melanoma_agrees_with_scikit_learn(evaluated: Path) -> None:
    table = read_predictions("test", evaluated / PREDICTIONS)
    odds = scipy.special.logit(table["probability_mel"].to_numpy())
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[:, None], table["dx"] == "mel")
    stated = read_metrics(evaluated)["test"]["recalibration"]
    assert stated["mel"]["slope"] == pytest.approx(fitted.coef_[0, 0], rel=1e-5)
    assert scipy.special.expit(odds + stated["mel"]["intercept"]).mean() == pytest.approx((table["dx"] == "mel").mean(), abs=1e-9)
    assert set(stated) == set(CLASSES)


def test_the_baseline_is_the_most_frequent_class_of_the_training_list(evaluated: Path) -> None:
    baseline = read_metrics(evaluated)["test"]["majority_baseline"]
    images = sum(COUNTS["test"].values())
    assert baseline["class"] == "nv"
    assert baseline["accuracy"] == pytest.approx(20 / images)
    assert baseline["balanced_accuracy"] == pytest.approx(1 / 7)
    assert baseline["macro_f1"] == pytest.approx(2 * 20 / (20 + images) / 7)
    assert baseline["macro_auc"] == 0.5
    assert baseline["macro_average_precision"] == pytest.approx(1 / 7)  # mean of the classes' shares
    assert baseline["top2_accuracy"] == pytest.approx((20 + 14) / images)  # nv, then mel in the training list
    assert (baseline["mel_sensitivity"], baseline["mel_specificity"]) == (0, 1)


def test_plots_have_their_columns_and_tell_of_test(evaluated: Path) -> None:
    expected = {
        "confusion": "actual,predicted,images,share",
        "roc": "dx,false_positive_rate,true_positive_rate",
        "precision_recall": "dx,recall,precision",
        "reliability": "calibration,bin,confidence,accuracy,images",
        "reliability_per_class": "dx,bin,probability,share,images",
        "confidence": "outcome,confidence,images",
        "per_class": "dx,f1,low,high,support",
    }
    folder = evaluated / "plots/evaluate"
    assert {path.name for path in folder.iterdir()} == {f"{name}.csv" for name in expected}
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in expected}
    assert {name: ",".join(table.columns) for name, table in tables.items()} == expected
    test = read_metrics(evaluated)["test"]
    assert len(tables["confusion"]) == 49
    diagonal = tables["confusion"].query("actual == predicted")["images"].sum()
    assert diagonal / tables["confusion"]["images"].sum() == pytest.approx(test["accuracy"])
    assert tables["confusion"].groupby("actual")["share"].sum().to_numpy() == pytest.approx(np.ones(7))
    assert tables["confidence"]["images"].sum() == test["images"]
    assert tables["reliability"].groupby("calibration")["images"].sum().to_dict() == {
        "after": test["images"],
        "before": test["images"],
    }
    assert (tables["reliability"]["images"] > 0).all()
    assert tables["per_class"]["f1"].tolist() == [test["per_class"][dx]["f1"] for dx in CLASSES]
    assert (tables["per_class"]["low"] <= tables["per_class"]["high"]).all()


def test_a_second_run_writes_the_same_bytes(project: Path, evaluated: Path) -> None:
    for name in ("data/predictions", "metrics", "plots"):
        shutil.rmtree(project / name)
    evaluate.main()
    assert written(project) == written(evaluated)
    assert len(written(project)) == 11


def test_what_is_chosen_on_validation_does_not_see_test(project: Path, evaluated: Path) -> None:
    prepared = read_prepared()
    images = np.array(prepared.images)
    rows = prepared.rows_of(read_split("test")["image_id"])
    images[rows] = np.random.default_rng(9).integers(0, 256, images[rows].shape)
    np.save(PREPARED / "images.npy", images)
    evaluate.main()
    after, before = written(project), written(evaluated)
    for name in ("models/calibration.json", "data/predictions/val.csv"):
        assert after[name] == before[name]
    assert read_metrics()["val"] == read_metrics(evaluated)["val"]
    assert read_metrics()["test"]["accuracy"] < read_metrics(evaluated)["test"]["accuracy"]


def test_seed_and_confidence_change_intervals_alone(project: Path, evaluated: Path, repository_params: dict[str, Any]) -> None:
    write_small_params(repository_params, seed=1)
    evaluate.main()
    other, first = read_metrics()["test"], read_metrics(evaluated)["test"]
    assert other.pop("intervals") != first.pop("intervals")
    assert other["per_lesion"].pop("intervals") != first["per_lesion"].pop("intervals")
    assert other == first
    write_small_params(repository_params, confidence=0.6)
    evaluate.main()
    narrow, wide = (read_metrics(folder)["test"]["intervals"]["accuracy"] for folder in (Path(), evaluated))
    assert narrow["high"] - narrow["low"] < 0.7 * (wide["high"] - wide["low"])


def test_a_class_that_is_absent_from_test_has_null_where_nothing_can_be_said(project: Path) -> None:
    splits = read_splits()
    splits["test"] = splits["test"][splits["test"]["dx"] != "df"]
    rewrite_splits(splits)
    evaluate.main()
    metrics = read_metrics()
    df = metrics["test"]["per_class"]["df"]
    assert df["support"] == 0
    assert [df[name] for name in ("recall", "f1", "auc", "average_precision")] == [None] * 4
    assert metrics["test"]["intervals"]["f1_df"] == {"low": None, "high": None}
    assert metrics["test"]["macro_auc"] == pytest.approx(
        np.mean([values["auc"] for dx, values in metrics["test"]["per_class"].items() if dx != "df"])
    )


def test_a_temperature_at_the_end_of_its_range_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    truth = pd.concat([read_split(name) for name in ("val", "test")]).set_index("image_id")["dx"]

    def always_right(members: object, prepared: object, listed: pd.DataFrame, **_: object) -> dict[str, Predicted]:
        logits = 5 * np.eye(7, dtype=np.float32)[evaluate.labels_of(truth.loc[listed["image_id"]].to_frame())]
        return {"base-0": Predicted(logits, logits.astype(np.float64))}

    monkeypatch.setattr(evaluate, "predict_ensemble", always_right)
    evaluate.main()
    assert "temperature 0.05 is an end of the searched range" in caplog.text
    assert read_metrics()["test"]["accuracy"] == 1


def test_a_classifier_of_other_lists_is_refused(project: Path) -> None:
    splits = read_splits()
    splits["val"], splits["test"] = splits["test"], splits["val"]
    write_splits(splits, SplitFacts(fingerprint(splits), "sample", True))
    before = written(project)
    with pytest.raises(PipelineError, match=r"models/classifier was trained on other lists.*run `train` again"):
        evaluate.main()
    assert written(project) == before


def test_images_that_were_not_prepared_are_named(project: Path) -> None:
    prepared = read_prepared()
    missing = read_split("test")["image_id"].iloc[3]
    keep = (prepared.index["image_id"] != missing).to_numpy()
    np.save(PREPARED / "images.npy", np.array(prepared.images)[keep])
    write_table(prepared.index[keep], PREPARED / "index.csv", INDEX_COLUMNS)
    with pytest.raises(PipelineError, match=rf"{missing} is listed in a split and was not prepared"):
        evaluate.main()


def test_images_of_another_size_are_refused(project: Path) -> None:
    write_prepared(pd.concat(read_splits().values(), ignore_index=True), seed=1, size=48)
    with pytest.raises(PipelineError, match=r"prepared at 48 px.*trained at 32 px"):
        evaluate.main()


@pytest.mark.parametrize("path", ["data/splits/train.csv", "models/classifier/ensemble.json", "data/splits/facts.json"])
def test_a_missing_input_is_named(project: Path, path: str) -> None:
    (project / path).unlink()
    with pytest.raises(PipelineError, match=f"{path} not found"):
        evaluate.main()


def test_images_without_a_lesion_are_refused(project: Path) -> None:
    splits = read_splits()
    splits["test"].loc[0, "lesion_id"] = ""
    rewrite_splits(splits)
    with pytest.raises(PipelineError, match=r"test\.csv: no lesion_id for ISIC_"):
        evaluate.main()


# Ensembles, test-time augmentation, metadata


@pytest.fixture(scope="module")
def three_members(evaluated: Path) -> list[Member]:
    """Members base-0, base-1 and base-2, trained on the lists of `evaluated`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(evaluated)
        return [fitted_member(read_splits(), seed) for seed in (0, 1, 2)]


def stage_logits(name: str) -> np.ndarray:
    """Logit columns of a prediction table."""
    return read_predictions(name)[list(LOGIT_COLUMNS)].to_numpy()


def probabilities_by_hand(classifier: Classifier, listed: pd.DataFrame, *, test_time: str = "none") -> np.ndarray:
    """Mean of the softmax probabilities over the views, by torch and NumPy."""
    prepared, (model, config) = read_prepared(), classifier
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    images = torch.from_numpy(prepared.images[prepared.rows_of(listed["image_id"])])
    inputs = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        return np.mean([model(view).double().softmax(dim=1) for view in views_of(inputs, test_time)], axis=0)


def test_an_ensemble_averages_probabilities_and_then_fits_the_temperature(project: Path, three_members: list[Member]) -> None:
    splits = read_splits()
    save_ensemble(three_members)
    evaluate.main()
    for name in ("val", "test"):
        each = [probabilities_by_hand(classifier, splits[name]) for classifier in load_ensemble().values()]
        expected = np.mean(each, axis=0)
        np.testing.assert_allclose(np.exp(stage_logits(name)), expected, atol=1e-5)
        assert np.abs(each[0] - expected).max() > 0.05
    temperature = 1 / read_calibration().scale[0]
    val, labels = stage_logits("val"), evaluate.labels_of(splits["val"])
    losses = [
        -scipy.special.log_softmax(val / scale, axis=1)[np.arange(len(val)), labels].mean()
        for scale in (0.98 * temperature, temperature, 1.02 * temperature)
    ]
    assert losses[1] == min(losses)


def test_members_are_measured_alone_and_their_spread_is_told(project: Path, three_members: list[Member]) -> None:
    splits = read_splits()
    save_ensemble(three_members)
    evaluate.main()
    metrics = read_metrics()
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
    metrics = read_metrics(evaluated)
    accuracy = metrics["test"]["accuracy"]
    assert metrics["spread"]["test"]["accuracy"] == {"mean": accuracy, "sd": None, "min": accuracy, "max": accuracy}
    assert metrics["test_time"] == "none"


@pytest.mark.parametrize("test_time", ["flips", "square", "multi_crop"])
def test_test_time_augmentation_averages_over_views(
    project: Path, evaluated: Path, repository_params: dict[str, Any], test_time: str
) -> None:
    write_small_params(repository_params, test_time=test_time)
    evaluate.main()
    splits = read_splits()
    expected = probabilities_by_hand(load_ensemble()["base-0"], splits["test"], test_time=test_time)
    np.testing.assert_allclose(np.exp(stage_logits("test")), expected, atol=1e-5)
    metrics, plain = read_metrics(), read_metrics(evaluated)
    assert metrics["test_time"] == test_time
    assert metrics["test"]["nll_before"] != pytest.approx(plain["test"]["nll_before"], abs=1e-4)
    assert metrics["members"] == plain["members"]  # each alone, without test-time views


def test_size_of_a_batch_does_not_matter(project: Path, repository_params: dict[str, Any]) -> None:
    seen = []
    for batch_size in (9, 500):
        write_small_params(repository_params, test_time="flips", batch_size=batch_size)
        evaluate.main()
        seen.append(stage_logits("test"))
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-4)


def test_a_classifier_with_metadata_predicts_each_image_with_its_own(project: Path) -> None:
    splits = read_splits()
    for frame in splits.values():
        frame["age"] = np.where(np.arange(len(frame)) % 3 == 0, np.nan, 30.0 + np.arange(len(frame)))
        frame["sex"] = np.where(np.arange(len(frame)) % 2, "male", "female")
    config = make_config("shufflenet_v2_x0_5", size=SIZE, metadata=True, fingerprint=fingerprint(splits))
    model = make_network(config)
    save_ensemble([(model, config)])
    rewrite_splits(splits)
    evaluate.main()
    logits, prepared = stage_logits("test"), read_prepared()
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


def test_logits_that_are_not_finite_are_refused_and_the_member_named(project: Path) -> None:
    splits = read_splits()
    configs = [make_config("shufflenet_v2_x0_5", seed=seed, size=SIZE, fingerprint=fingerprint(splits)) for seed in (0, 1)]
    members = [(make_network(config), config) for config in configs]
    for parameter in last_linear(members[1][0]).parameters():
        torch.nn.init.constant_(parameter, torch.finfo(torch.float32).max)  # numbers still, but not when they are summed up
    save_ensemble(members)
    with pytest.raises(PipelineError, match=r"classifier 'base-1' gives logits that are not finite"):
        evaluate.main()


def test_probabilities_near_zero_are_averaged_without_underflow() -> None:
    sure = np.array([[0.0, 2000.0]])
    opposed = [Predicted(logits, log_softmax(logits, axis=1)) for logits in (sure, sure[:, ::-1])]
    np.testing.assert_allclose(soft_vote(opposed, test_time="none"), np.log([[0.5, 0.5]]))
    agreed = [Predicted(sure, log_softmax(sure, axis=1))] * 2
    np.testing.assert_allclose(soft_vote(agreed, test_time="none"), [[-2000, 0]])
