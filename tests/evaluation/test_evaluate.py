"""The stage `evaluate` on a small real classifier: what it writes, and that it can be recomputed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.special
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression

from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, logits_of, probabilities_of
from skinlesion.base.errors import PipelineError
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import predict
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.metrics.lesions import predict_lesions
from skinlesion.evaluation.results.decisions import CALIBRATION, read_calibration
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS, PREDICTIONS, read_predictions
from skinlesion.model.classifier import load_ensemble
from stages import evaluate
from tests.evaluation.evaluate_cases import (
    COUNTS,
    CPU,
    read_metrics,
    write_small_params,
    written,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_tables_have_the_rows_of_the_lists_and_the_logits_of_the_classifier(evaluated_copy: Path) -> None:
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
    evaluated_copy: Path, evaluated: Path, repository_params: dict[str, Any]
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


def test_a_second_run_writes_the_same_bytes(evaluated_copy: Path, evaluated: Path) -> None:
    for name in ("data/predictions", "metrics", "plots"):
        shutil.rmtree(evaluated_copy / name)
    evaluate.main()
    assert written(evaluated_copy) == written(evaluated)
    assert len(written(evaluated_copy)) == 11


def test_what_is_chosen_on_validation_does_not_see_test(evaluated_copy: Path, evaluated: Path) -> None:
    prepared = read_prepared()
    images = np.array(prepared.images)
    rows = prepared.rows_of(read_split("test")["image_id"])
    images[rows] = np.random.default_rng(9).integers(0, 256, images[rows].shape)
    np.save(PREPARED / "images.npy", images)
    evaluate.main()
    after, before = written(evaluated_copy), written(evaluated)
    for name in ("models/calibration.json", "data/predictions/val.csv"):
        assert after[name] == before[name]
    assert read_metrics()["val"] == read_metrics(evaluated)["val"]
    assert read_metrics()["test"]["accuracy"] < read_metrics(evaluated)["test"]["accuracy"]


def test_seed_and_confidence_change_intervals_alone(
    evaluated_copy: Path, evaluated: Path, repository_params: dict[str, Any]
) -> None:
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
