"""The stage `evaluate` on a small real classifier: what it writes, that it can be recomputed, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics

from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.splits import fingerprint, read_split
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.base.errors import PipelineError
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import Predicted, predict
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.metrics.lesions import predict_lesions
from skinlesion.evaluation.results.decisions import CALIBRATION, read_calibration
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS, PREDICTIONS, read_predictions
from skinlesion.model.classifier import load_ensemble
from stages import evaluate
from tests.conftest import WriteParams, refuses
from tests.evaluation.evaluate_cases import COUNTS, CPU, evaluate_with, read_splits, rewrite_splits, write_images
from tests.evaluation.test_classification import by_scikit_learn
from tests.stage_cases import files_of, logits_of, probabilities_of, read_metrics, write_lists


def written(folder: Path) -> dict[str, bytes]:
    """Every byte that the stage wrote, by its path in the folder."""
    names = ("data/predictions", "metrics", "plots", str(CALIBRATION))
    return {path: content for path, content in files_of(folder).items() if path.startswith(names)}


def test_metrics_can_be_recomputed_from_the_prediction_tables(evaluated: Path) -> None:
    metrics = read_metrics("evaluate", evaluated)
    assert metrics["data"] == {"source": "sample", "synthetic": True}
    assert metrics["bootstrap"] == {"draws": 200, "unit": "lesion", "confidence": 0.95, "seed": 0}
    for name in ("val", "test"):
        table, stated = read_predictions(name, evaluated / PREDICTIONS), metrics[name]
        truth = table["dx"].to_numpy()
        probabilities = probabilities_of(table)
        labels = np.array([CLASSES.index(dx) for dx in truth])
        by_others = by_scikit_learn(labels, probabilities, np.ones(len(table)))
        expected = {name: by_others[name] for name in HEADLINE} | {
            "images": len(table),
            "lesions": table["lesion_id"].nunique(),
            "nll_after": sklearn_metrics.log_loss(truth, probabilities),
            "nll_before": sklearn_metrics.log_loss(truth, softmax(logits_of(table), axis=1)),
            "brier_after": sklearn_metrics.brier_score_loss(truth, probabilities, scale_by_half=False),
        }
        for metric, value in expected.items():
            assert stated[metric] == pytest.approx(value, abs=1e-9), (name, metric)
        assert stated["accuracy"] > stated["majority_baseline"]["accuracy"] + 0.2
        assert stated["per_class"]["mel"]["recall"] == stated["mel_sensitivity"]
        assert {dx: values["support"] for dx, values in stated["per_class"].items()} == COUNTS[name]


def test_a_lesion_counts_once_with_the_mean_of_its_images(evaluated: Path) -> None:
    table = read_predictions("test", evaluated / PREDICTIONS)
    stated = read_metrics("evaluate", evaluated)["test"]["per_lesion"]
    lesions = table.groupby("lesion_id").agg({"dx": "first"} | dict.fromkeys(PROBABILITY_COLUMNS, "mean"))
    assert len(lesions) < len(table)
    probabilities = probabilities_of(lesions)
    predicted = np.array(CLASSES)[probabilities.argmax(axis=1)]
    assert stated["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(lesions["dx"], predicted), abs=1e-12)
    areas = [sklearn_metrics.roc_auc_score(lesions["dx"] == dx, lesions[f"probability_{dx}"]) for dx in CLASSES]
    assert stated["macro_auc"] == pytest.approx(np.mean(areas), abs=1e-12)
    for each in (stated, read_metrics("evaluate", evaluated)["test"]):
        assert set(each["intervals"]) == {*HEADLINE, *(f"f1_{dx}" for dx in CLASSES)}
        assert all(each["intervals"][name]["low"] <= each[name] <= each["intervals"][name]["high"] for name in HEADLINE)
    hits = (predicted == lesions["dx"]).to_numpy()  # of lesions, each of which is a draw's unit of its own
    shares = [np.average(hits, weights=row) for row in np.concatenate(list(lesion_weights(lesions.index, draws=200, seed=0)))]
    assert list(stated["intervals"]["accuracy"].values()) == pytest.approx(list(np.quantile(shares, [0.025, 0.975])), abs=1e-12)
    with pytest.raises(PipelineError, match=f"lesion with two diagnoses: {table['lesion_id'].iloc[0]}: run"):
        predict_lesions(pd.concat([table, table.head(1).assign(dx="nv" if table["dx"].iloc[0] != "nv" else "mel")]))


def test_tables_have_the_rows_of_the_lists_and_the_logits_of_the_classifier(evaluated_project: Path) -> None:
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


def test_vector_scaling_fits_better_and_changes_no_logit(
    evaluated_project: Path, evaluated: Path, write_params: WriteParams
) -> None:
    evaluate_with(write_params, calibration="vector")
    vector, temperature = read_metrics("evaluate"), read_metrics("evaluate", evaluated)
    assert (vector["calibration"], temperature["calibration"]) == ("vector", "temperature")
    assert vector["val"]["nll_after"] < temperature["val"]["nll_after"] - 1e-3
    assert vector["val"]["nll_before"] == temperature["val"]["nll_before"]
    content = read_calibration()
    for name in ("val", "test"):
        table = read_predictions(name)
        logits = logits_of(table)
        before = logits_of(read_predictions(name, evaluated / PREDICTIONS))
        assert np.array_equal(logits, before)
        expected = scipy.special.softmax(logits * content.scale + content.bias, axis=1)
        np.testing.assert_allclose(probabilities_of(table), expected, atol=1e-12)
    assert np.abs(content.bias).max() > 0.01


def test_the_baseline_is_the_most_frequent_class_of_the_training_list(evaluated: Path) -> None:
    baseline = read_metrics("evaluate", evaluated)["test"]["majority_baseline"]
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
    test = read_metrics("evaluate", evaluated)["test"]
    assert len(tables["confusion"]) == 49
    diagonal = tables["confusion"].query("actual == predicted")["images"].sum()
    assert diagonal / tables["confusion"]["images"].sum() == pytest.approx(test["accuracy"])
    assert tables["confusion"].groupby("actual")["share"].sum().to_numpy() == pytest.approx(np.ones(7))
    assert tables["confidence"]["images"].sum() == test["images"]
    images = tables["reliability"].groupby("calibration")["images"].sum()
    assert images.to_dict() == dict.fromkeys(("after", "before"), test["images"])
    assert (tables["reliability"]["images"] > 0).all()
    assert tables["per_class"]["f1"].tolist() == [test["per_class"][dx]["f1"] for dx in CLASSES]
    assert (tables["per_class"]["low"] <= tables["per_class"]["high"]).all()


def test_a_second_run_writes_the_same_bytes(evaluated_project: Path, evaluated: Path) -> None:
    for name in ("data/predictions", "metrics", "plots"):
        shutil.rmtree(evaluated_project / name)
    evaluate.main()
    assert written(evaluated_project) == written(evaluated)
    assert len(written(evaluated_project)) == 11


def test_what_is_chosen_on_validation_does_not_see_test(evaluated_project: Path, evaluated: Path) -> None:
    prepared = read_prepared()
    images = np.array(prepared.images)
    rows = prepared.rows_of(read_split("test")["image_id"])
    images[rows] = np.random.default_rng(9).integers(0, 256, images[rows].shape)
    np.save(PREPARED / "images.npy", images)
    evaluate.main()
    after, before = written(evaluated_project), written(evaluated)
    for name in ("models/calibration.json", "data/predictions/val.csv"):
        assert after[name] == before[name]
    assert read_metrics("evaluate")["val"] == read_metrics("evaluate", evaluated)["val"]
    assert read_metrics("evaluate")["test"]["accuracy"] < read_metrics("evaluate", evaluated)["test"]["accuracy"]


def test_seed_and_confidence_change_intervals_alone(evaluated_project: Path, evaluated: Path, write_params: WriteParams) -> None:
    evaluate_with(write_params, **{"bootstrap.seed": 1})
    other, first = read_metrics("evaluate")["test"], read_metrics("evaluate", evaluated)["test"]
    assert other.pop("intervals") != first.pop("intervals")
    assert other["per_lesion"].pop("intervals") != first["per_lesion"].pop("intervals")
    assert other == first
    evaluate_with(write_params, **{"bootstrap.confidence": 0.6})
    narrow, wide = (read_metrics("evaluate", folder)["test"]["intervals"]["accuracy"] for folder in (Path(), evaluated))
    assert narrow["high"] - narrow["low"] < 0.7 * (wide["high"] - wide["low"])


def test_a_class_that_is_absent_from_test_has_null_where_nothing_can_be_said(evaluated_project: Path) -> None:
    splits = read_splits()
    splits["test"] = splits["test"][splits["test"]["dx"] != "df"]
    rewrite_splits(splits)
    evaluate.main()
    metrics = read_metrics("evaluate")
    df = metrics["test"]["per_class"]["df"]
    assert df["support"] == 0
    assert [df[name] for name in ("recall", "f1", "auc", "average_precision")] == [None] * 4
    assert metrics["test"]["intervals"]["f1_df"] == {"low": None, "high": None}
    others = [values["auc"] for dx, values in metrics["test"]["per_class"].items() if dx != "df"]
    assert metrics["test"]["macro_auc"] == pytest.approx(np.mean(others))


def test_an_extreme_temperature_is_said(
    evaluated_project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    truth = pd.concat([read_split(name) for name in ("val", "test")]).set_index("image_id")["dx"]

    def always_right(members: object, prepared: object, listed: pd.DataFrame, **_: object) -> dict[str, Predicted]:
        logits = 5 * np.eye(7, dtype=np.float32)[evaluate.labels_of(truth.loc[listed["image_id"]].to_frame())]
        return {"base-0": Predicted(logits, logits.astype(np.float64))}

    monkeypatch.setattr(evaluate, "predict_ensemble", always_right)
    evaluate.main()
    assert "temperature 0.05 is an end of the searched range" in caplog.text
    assert read_metrics("evaluate")["test"]["accuracy"] == 1


def test_a_classifier_of_other_lists_is_refused(evaluated_project: Path) -> None:
    splits = read_splits()
    splits["val"], splits["test"] = splits["test"], splits["val"]
    write_lists(splits, fingerprint(splits))
    before = written(evaluated_project)
    refuses(r"models/classifier was trained on other lists.*run `train` again", evaluate.main)
    assert written(evaluated_project) == before


def test_images_of_another_size_are_refused(evaluated_project: Path) -> None:
    write_images(pd.concat(read_splits().values(), ignore_index=True), seed=1, size=48)
    refuses(r"prepared at 48 px.*trained at 32 px", evaluate.main)


@pytest.mark.parametrize("path", ["data/splits/train.csv", "models/classifier/ensemble.json", "data/splits/facts.json"])
def test_a_missing_input_is_named(evaluated_project: Path, path: str) -> None:
    (evaluated_project / path).unlink()
    refuses(f"{path} not found", evaluate.main)
