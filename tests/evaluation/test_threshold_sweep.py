"""The stage `threshold-sweep` on made prediction tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.decisions import (
    OPERATING_POINTS,
    read_operating_points,
    write_calibration,
)
from skinlesion.evaluation.results.predictions import PREDICTIONS, read_predictions, write_predictions
from stages import threshold_sweep
from tests.conftest import ROOT, WriteParams, refuses, resamples
from tests.stage_cases import PATIENT, bytes_below, read_metrics, with_logits

RECALLS = ["recall_0.85", "recall_0.90", "recall_0.95"]
POINTS = [*RECALLS, "specificity_0.90", "cost_10", "guaranteed_0.85", "youden"]


def make_predictions(split: str, *, seed: int, images: int = 250) -> pd.DataFrame:
    """A prediction table with informative logits; about two images a lesion."""
    generator = np.random.default_rng(seed)
    labels = np.append(np.arange(7), generator.choice(7, images - 7, p=[0.04, 0.06, 0.11, 0.02, 0.14, 0.6, 0.03]))
    logits = generator.normal(size=(images, 7))
    logits[np.arange(images), labels] += 1.5
    dx = np.array(CLASSES)[labels]
    ids = [(f"{split}_{number}", f"{split}_lesion_{name}_{number // 2}") for number, name in enumerate(dx)]
    return with_logits(pd.DataFrame(ids, columns=["image_id", "lesion_id"]).assign(dx=dx, **PATIENT), logits)


@pytest.fixture
def project(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace with params and prediction tables."""
    write_params({"bootstrap.draws": 200})
    write_predictions({"val": make_predictions("val", seed=0), "test": make_predictions("test", seed=1)})
    calibration = {"method": "temperature", "scale": [1.0] * 7, "bias": [0.0] * 7}
    write_calibration(calibration | {"test_time": "none", "classifier_sha256": "cafe"})
    return workspace


def test_points_hold_on_validation_and_are_audited_on_test(project: Path) -> None:
    threshold_sweep.main()
    metrics = read_metrics("threshold_sweep")
    assert list(metrics["points"]) == POINTS
    for point in metrics["points"].values():
        for split in ("val", "test"):
            table = read_predictions(split)
            flagged = table["probability_mel"] >= point["threshold"]
            (tn, fp), (fn, tp) = confusion_matrix(table["dx"] == "mel", flagged)
            rates = {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "precision": tp / (tp + fp)}
            rates |= {"f1": 2 * tp / (2 * tp + fp + fn), "flagged": flagged.mean()}
            assert {name: point[split][name] for name in rates} == pytest.approx(rates)
        if point["rule"] in ("recall", "specificity"):
            rate = {"recall": "sensitivity"}.get(point["rule"], "specificity")
            assert point["val"][rate] >= point["constraint"]
        for rate, value in point["test"].items():
            assert point["intervals"][rate]["low"] <= value <= point["intervals"][rate]["high"]
    assert [point["constraint"] for point in metrics["points"].values()] == [0.85, 0.9, 0.95, 0.9, 10, 0.85, None]


def test_auc_and_prevalence_of_both_splits(project: Path) -> None:
    threshold_sweep.main()
    for split in ("val", "test"):
        table, stated = read_predictions(split), read_metrics("threshold_sweep")[split]
        positive = table["dx"] == "mel"
        assert stated["auc"] == pytest.approx(roc_auc_score(positive, table["probability_mel"]))
        assert stated["prevalence"] == pytest.approx(positive.mean())
        assert (stated["images"], stated["lesions"]) == (250, table["lesion_id"].nunique())
        assert stated["intervals"]["auc"]["low"] < stated["auc"] < stated["intervals"]["auc"]["high"]


def test_operating_points_say_how_to_apply_them(project: Path) -> None:
    threshold_sweep.main()
    content = json.loads(OPERATING_POINTS.read_text(encoding="utf-8"))
    assert {key: content[key] for key in ("target", "classes", "score", "rule", "chosen_on", "classifier_sha256")} == {
        "target": "mel",
        "classes": ["mel"],
        "score": "sum of calibrated probabilities",
        "rule": "flag when score >= threshold",
        "chosen_on": "val",
        "classifier_sha256": "cafe",
    }
    stated = read_metrics("threshold_sweep")["points"]
    for name, point in content["points"].items():
        assert point == {key: stated[name][key] for key in ("rule", "constraint", "threshold", "val")}


def test_a_group_is_a_target(project: Path, write_params: WriteParams) -> None:
    write_params({"threshold_sweep.target": "malignant", "bootstrap.draws": 100})
    threshold_sweep.main()
    content = read_operating_points()
    assert content.classes == ["mel", "bcc", "akiec"]
    table = read_predictions("val")
    score = table[["probability_mel", "probability_bcc", "probability_akiec"]].sum(axis=1)
    positive = table["dx"].isin(["mel", "bcc", "akiec"])
    point = content.points["recall_0.95"]
    assert (score[positive] >= point.threshold - 1e-12).mean() == pytest.approx(point.val["sensitivity"])
    assert np.isclose(score, point.threshold, rtol=0, atol=1e-12).any()


def test_another_test_set_changes_no_threshold(project: Path) -> None:
    threshold_sweep.main()
    before, metrics_before = OPERATING_POINTS.read_bytes(), read_metrics("threshold_sweep")
    write_predictions({"val": read_predictions("val"), "test": make_predictions("test", seed=7, images=90)})
    threshold_sweep.main()
    assert OPERATING_POINTS.read_bytes() == before
    assert read_metrics("threshold_sweep")["points"]["youden"]["test"] != metrics_before["points"]["youden"]["test"]
    write_predictions({"val": make_predictions("val", seed=8), "test": read_predictions("test")})
    threshold_sweep.main()
    assert OPERATING_POINTS.read_bytes() != before


def test_a_second_run_writes_the_same_bytes(project: Path) -> None:
    written = []
    for _ in range(2):
        threshold_sweep.main()
        written.append(bytes_below("metrics", "models", "plots"))
    assert written[0] == written[1] and len(written[0]) == 6  # the calibration, which it reads, among them


def test_intervals_are_over_lesions(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = threshold_sweep.bootstrap_intervals

    def spy(measure: Any, lesion_ids: pd.Series, how: BootstrapParams) -> dict[str, dict[str, float]]:
        seen.append(lesion_ids)
        assert how == resamples(200)
        return original(measure, lesion_ids, how)

    monkeypatch.setattr(threshold_sweep, "bootstrap_intervals", spy)
    threshold_sweep.main()
    lesions = read_predictions("test")["lesion_id"].tolist()
    assert all(ids.tolist() == lesions for ids in seen[:-2])  # but for the AUC of each split
    assert len(seen) == len(POINTS) * 4 + 2  # the rates, and three prevalences, of each point


def test_plots_have_their_columns_and_the_chosen_thresholds(project: Path) -> None:
    threshold_sweep.main()
    curve = pd.read_csv("plots/threshold_sweep/curve.csv")
    points = pd.read_csv("plots/threshold_sweep/operating_points.csv")
    assert ",".join(curve.columns) == "split,threshold,sensitivity,specificity,precision,f1,flagged"
    assert ",".join(points.columns) == (
        "point,split,threshold,sensitivity,sensitivity_low,sensitivity_high,"
        "specificity,specificity_low,specificity_high,precision,f1,flagged"
    )
    assert points["point"].tolist() == [name for name in POINTS for _ in range(2)]
    assert points["split"].tolist() == ["val", "test"] * len(POINTS)
    for split in ("val", "test"):
        rows = curve[curve["split"] == split]
        assert set(points["threshold"]) <= set(rows["threshold"])
        assert len(rows) <= 310
        assert rows["threshold"].is_monotonic_decreasing
    intervals = points[["sensitivity_low", "sensitivity_high", "specificity_low", "specificity_high"]]
    assert intervals[points["split"] == "val"].isna().all(axis=None)
    assert intervals[points["split"] == "test"].notna().all(axis=None)
    merged = points.merge(curve, on=["split", "threshold"], suffixes=("", "_of_curve"))
    assert len(merged) >= len(points)
    assert merged["sensitivity"].to_numpy() == pytest.approx(merged["sensitivity_of_curve"].to_numpy())


def test_predictive_values_at_the_prevalences_that_params_name(project: Path, write_params: WriteParams) -> None:
    write_params({"threshold_sweep.prevalences": [0.03, 0.5], "bootstrap.draws": 100})
    threshold_sweep.main()
    for point in read_metrics("threshold_sweep")["points"].values():
        assert list(point["at_prevalence"]) == ["0.03", "0.5"]
        found, cleared = point["test"]["sensitivity"], point["test"]["specificity"]
        rare = point["at_prevalence"]["0.03"]
        assert rare["ppv"] == pytest.approx(found * 0.03 / (found * 0.03 + (1 - cleared) * 0.97))
        assert rare["number_needed_to_biopsy"] == pytest.approx(1 / rare["ppv"])
        assert rare["intervals"]["ppv"]["low"] <= rare["ppv"] <= rare["intervals"]["ppv"]["high"]
        assert rare["ppv"] < point["at_prevalence"]["0.5"]["ppv"]


def test_only_the_points_that_are_asked_for(project: Path, write_params: WriteParams) -> None:
    empty = {
        f"threshold_sweep.{name}": [] for name in ("specificity_constraints", "cost_ratios", "guaranteed_recalls", "prevalences")
    }
    write_params({"bootstrap.draws": 100, **empty})
    threshold_sweep.main()
    metrics = read_metrics("threshold_sweep")
    assert list(metrics["points"]) == [*RECALLS, "youden"]
    assert all(point["at_prevalence"] == {} for point in metrics["points"].values())


def test_a_promise_that_too_few_lesions_cannot_keep_flags_everything_and_says_so(
    project: Path, write_params: WriteParams, caplog: pytest.LogCaptureFixture
) -> None:
    write_params({"threshold_sweep.guaranteed_recalls": [0.999], "bootstrap.draws": 100})
    threshold_sweep.main()
    point = read_metrics("threshold_sweep")["points"]["guaranteed_0.999"]
    assert point["threshold"] == 0 and point["test"]["flagged"] == 1
    assert "guaranteed_0.999: " in caplog.text and "too few to promise it: everything is flagged" in caplog.text


def test_the_decision_curve_is_of_test(project: Path) -> None:
    threshold_sweep.main()
    curve = pd.read_csv("plots/threshold_sweep/decision_curve.csv")
    table = read_predictions("test")
    positive, flagged = table["dx"] == "mel", table["probability_mel"] >= 0.2
    (row,) = curve.query("strategy == 'classifier' and threshold_probability == 0.2").itertuples()
    assert row.net_benefit == pytest.approx((positive & flagged).mean() - (~positive & flagged).mean() / 4)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(("keep_melanomas", "share"), [(False, "none"), (True, "all")])
def test_a_split_without_both_kinds_is_refused(project: Path, split: str, keep_melanomas: bool, share: str) -> None:
    tables = {name: read_predictions(name) for name in ("val", "test")}
    tables[split] = tables[split][(tables[split]["dx"] == "mel") == keep_melanomas]
    write_predictions(tables)
    refuses(rf"{split}: {share} of the \d+ images show the target \(mel\)", threshold_sweep.main)
    assert not OPERATING_POINTS.exists()
    assert not Path("metrics").exists()


def test_missing_and_damaged_tables_are_named(project: Path) -> None:
    path = PREDICTIONS / "test.csv"
    table = read_predictions("test")
    table.assign(probability_mel=0.9).to_csv(path, index=False)
    refuses(r"test\.csv: logits must be finite and probabilities sum to 1; offending: test_0", threshold_sweep.main)
    path.unlink()
    refuses(r"test\.csv not found", threshold_sweep.main)


def test_it_runs_as_a_module_without_torch(project: Path) -> None:
    code = "import sys, runpy; runpy.run_module('stages.threshold_sweep', run_name='__main__'); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "False"
    assert "recall_0.90: threshold 0." in ran.stderr
    (project / "params.yaml").unlink()
    failed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: params.yaml not found")
