"""The stage `external`: an independent set is measured as the test list is, by what was fitted and chosen before."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.special
from sklearn import metrics as sklearn_metrics

from extras import external
from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.raw import read_metadata
from skinlesion.artifacts.splits import SPLIT_NAMES, read_split
from skinlesion.audits.external.comparison import OVER_CLASSES, draws_of
from skinlesion.audits.external.dataset import EXTERNAL, read_external
from skinlesion.audits.external.overlap import SAME_PICTURE
from skinlesion.base.files import read_json, write_json
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.results.decisions import read_operating_points
from skinlesion.evaluation.results.predictions import read_predictions
from tests.audits.external_cases import DRAWS, POINTS, predicted, rewrite, run_stage, save_classifier
from tests.conftest import refuses, resamples
from tests.stage_cases import logits_of, predicted_of, probabilities_of

Run = tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def measured(external_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The stage's metrics and predictions there, and the test predictions."""
    folder = tmp_path_factory.mktemp("measured")
    shutil.copytree(external_inputs, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return *run_stage(), read_predictions("test")


def test_predictions_are_the_ensembles_with_the_frozen_temperature(external_project: Path) -> None:
    metadata = read_metadata(EXTERNAL)
    expected = predicted(metadata, EXTERNAL)
    _, table = run_stage()
    assert sorted(path.name for path in external.PREDICTIONS.iterdir()) == ["predictions.csv"]
    assert list(table["image_id"]) == list(metadata["image_id"])
    logits = logits_of(table)
    assert logits == pytest.approx(logits_of(expected), abs=2e-5)
    assert scipy.special.softmax(logits / 2.5, axis=1) == pytest.approx(probabilities_of(table))
    assert table["dx"].equals(metadata["dx"]) and table["age"].equals(metadata["age"])


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_both_sets_are_measured_alike_and_their_difference_from_independent_draws(measured: Run) -> None:
    metrics, *both = measured
    tables = dict(zip(("external", "test"), both, strict=True))
    assert metrics["absent_classes"] == {"external": [], "test": []}
    drawn = {}
    for name, each in tables.items():
        truth, guessed, compared = each["dx"], predicted_of(each), metrics["compared"][name]
        balanced = sklearn_metrics.balanced_accuracy_score(truth, guessed)
        assert compared["balanced_accuracy"]["value"] == pytest.approx(balanced, abs=1e-12)
        assert metrics["challenge"][name] == compared["balanced_accuracy"] and metrics["challenge"]["classes"][name] == 7
        assert compared["recall_mel"]["value"] == pytest.approx((guessed[truth == "mel"] == "mel").mean(), abs=1e-12)
        assert all(metrics[name][metric] == compared[metric]["value"] for metric in HEADLINE)
        assert metrics[name]["images"] == len(each) and metrics[name]["per_class"]["nv"]["support"] == (truth == "nv").sum()
        probabilities = probabilities_of(each)
        assert metrics[name]["nll_after"] == pytest.approx(sklearn_metrics.log_loss(truth, probabilities), abs=1e-9)
        right = (guessed == truth).to_numpy()
        seed = draws_of(name, resamples(DRAWS)).seed
        weights = np.concatenate([*lesion_weights(each["lesion_id"], draws=DRAWS, seed=seed)])
        drawn[name] = np.array([np.average(right, weights=row) for row in weights])
    difference = metrics["compared"]["difference"]["accuracy"]
    values = [metrics["compared"][name]["accuracy"]["value"] for name in ("external", "test")]
    assert difference["value"] == pytest.approx(values[0] - values[1], abs=1e-12)
    ends = np.quantile(drawn["external"] - drawn["test"], [0.025, 0.975])
    assert [difference["low"], difference["high"]] == pytest.approx(list(ends), abs=1e-12)
    assert draws_of("test", resamples(DRAWS)).seed == 0 != draws_of("external", resamples(DRAWS)).seed


def test_frozen_thresholds_are_applied_to_both(measured: Run, external_project: Path) -> None:
    metrics, *both = measured
    stated = metrics["operating_points"]
    chosen = read_operating_points().points["recall_0.90"].threshold
    assert stated["target"] == "malignant" and stated["points"]["recall_0.90"]["threshold"] == chosen
    for name, each in zip(("external", "test"), both, strict=True):
        positive = each["dx"].isin(POINTS["classes"])
        scores = each[["probability_mel", "probability_bcc", "probability_akiec"]].sum(axis=1)
        rates = stated["points"]["recall_0.90"][name]
        assert rates["sensitivity"]["value"] == pytest.approx((scores[positive] >= chosen).mean(), abs=1e-9)
        assert rates["specificity"]["value"] == pytest.approx((scores[~positive] < chosen).mean(), abs=1e-9)
        assert rates["precision"]["value"] == pytest.approx(positive[scores >= chosen].mean(), abs=1e-9)
        assert rates["sensitivity"]["low"] < rates["sensitivity"]["value"] < rates["sensitivity"]["high"]
        assert stated["auc"][name]["value"] == pytest.approx(sklearn_metrics.roc_auc_score(positive, scores), abs=1e-9)
        assert stated["positives"][name] == positive.sum()


def test_what_is_written_beside(external_project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        metrics, table = run_stage()
    proof = metrics["proof"]
    assert proof["shared"] == dict.fromkeys(("image_id", "lesion_id", "file", "pixels", "thumbnail"), 0)
    assert proof["near_copies"] == []
    assert (proof["external"]["images"], proof["internal"]["images"]) == (len(table), len(read_metadata()))
    assert proof["nearest_thumbnails"]["distance"] > SAME_PICTURE
    assert metrics["of"].keys() == {"predictions"} and metrics["test_time"] == "flips"
    assert metrics["bootstrap"] == {"draws": DRAWS, "unit": "lesion", "confidence": 0.95, "seed": 0, "unit_external": "lesion"}
    assert f"none of {len(table)} external images is among" in caplog.text
    plotted = pd.read_csv("plots/extras/external/metrics.csv")
    assert list(plotted["metric"].unique()) == list(HEADLINE) and set(plotted["set"]) == {"external", "internal test"}
    row = plotted[(plotted["set"] == "external") & (plotted["metric"] == "macro_auc")].iloc[0]
    assert dict(row[["value", "low", "high"]]) == pytest.approx(metrics["compared"]["external"]["macro_auc"])
    assert len(pd.read_csv("plots/extras/external/recall.csv")) == 14
    assert len(pd.read_csv("plots/extras/external/operating_points.csv")) == 6


def test_an_absent_class_is_in_no_mean_and_no_difference(external_project: Path, caplog: pytest.LogCaptureFixture) -> None:
    metadata = read_metadata(EXTERNAL)
    rewrite(metadata[~metadata["dx"].isin(POINTS["classes"])])
    metrics, table = run_stage()
    assert metrics["absent_classes"] == {"external": ["akiec", "bcc", "mel"], "test": []}
    assert metrics["challenge"]["classes"] == {"external": 4, "test": 7}
    recalls = [(predicted_of(table)[table["dx"] == dx] == dx).mean() for dx in ("bkl", "df", "nv", "vasc")]
    assert metrics["compared"]["external"]["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls), abs=1e-12)
    undefined = {"value": None, "low": None, "high": None}
    for metric in OVER_CLASSES:
        assert metrics["compared"]["difference"][metric] == undefined
        assert metrics["compared"]["test"][metric]["value"] is not None
    assert metrics["compared"]["difference"]["accuracy"]["value"] is not None
    assert metrics["compared"]["external"]["mel_sensitivity"] == undefined
    point = metrics["operating_points"]["points"]["recall_0.90"]
    assert point["external"]["sensitivity"] == point["difference"]["sensitivity"] == undefined
    assert point["external"]["specificity"]["value"] is not None
    assert "external has no image of akiec, bcc, mel" in caplog.text


def test_where_lesions_are_not_known_the_interval_is_over_images(external_project: Path) -> None:
    metadata = read_metadata(EXTERNAL)
    rewrite(metadata.assign(lesion_id=metadata["image_id"]), lesions_known=False, left_out=["EXTERNAL_1"])
    metrics, _ = run_stage()
    assert metrics["bootstrap"]["unit_external"] == "image"
    assert metrics["external"]["lesions"] == metrics["external"]["images"]
    assert metrics["data"]["lesions_known"] is False and metrics["data"]["left_out"] == ["EXTERNAL_1"]


def test_a_classifier_with_metadata_gets_that_of_the_external_table(external_project: Path) -> None:
    splits = {name: read_split(name) for name in SPLIT_NAMES}
    save_classifier(splits, metadata=True)
    _, first = run_stage()
    rewrite(read_metadata(EXTERNAL).assign(age=np.nan, sex="unknown"))
    _, second = run_stage()
    assert np.abs(first["logit_mel"] - second["logit_mel"]).max() > 0.01


def test_a_classifier_of_other_lists_is_refused(external_project: Path) -> None:
    path = CLASSIFIER / "base-1" / "config.json"
    write_json(path, read_json(path) | {"fingerprint": "other"})
    refuses("trained on other lists", external.main)


def test_without_external_images_there_is_a_way_out(external_project: Path) -> None:
    write_json(EXTERNAL / "provenance.json", read_json(EXTERNAL / "provenance.json") | {"lesions_known": None})
    refuses("lacks lesions_known", read_external)
    shutil.rmtree(EXTERNAL)
    refuses(r"run `dvc exp run -S 'extras\.external=\[run\]' extras/dvc\.yaml:external`", external.main)
