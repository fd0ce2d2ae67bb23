"""The stage `threshold-sweep` on made prediction tables."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.results.decisions import OPERATING_POINTS, read_operating_points, write_calibration
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from stages import threshold_sweep
from tests.conftest import ROOT, WriteParams, refuses
from tests.evaluation.test_selective import make_predictions
from tests.stage_cases import Run, bytes_below, stage_runner

RECALLS = ["recall_0.85", "recall_0.90", "recall_0.95"]
POINTS = [*RECALLS, "specificity_0.90", "cost_10", "guaranteed_0.85", "youden"]


@pytest.fixture
def run_stage(workspace: Path, write_params: WriteParams) -> Run:
    """Run the stage on made prediction tables; its metrics."""
    write_predictions({"val": make_predictions("val", seed=0), "test": make_predictions("test", seed=1)})
    calibration = {"method": "temperature", "scale": [1.0] * 7, "bias": [0.0] * 7}
    write_calibration(calibration | {"test_time": "none", "classifier_sha256": "cafe"})
    return stage_runner(write_params, threshold_sweep.main, "threshold_sweep", **{"bootstrap.draws": 200})


def test_points_hold_on_validation_and_are_audited_on_test(run_stage: Run) -> None:
    metrics = run_stage()
    assert list(metrics["points"]) == POINTS
    test = read_predictions("test")
    weights = np.concatenate([*lesion_weights(test["lesion_id"], draws=200, seed=0)])[:, test["dx"] == "mel"]
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
        drawn = [np.average(flagged[table["dx"] == "mel"], weights=row) for row in weights]
        assert [*point["intervals"]["sensitivity"].values()] == pytest.approx([*np.quantile(drawn, [0.025, 0.975])])
        for rate, value in point["test"].items():
            assert point["intervals"][rate]["low"] <= value <= point["intervals"][rate]["high"]
    assert [point["constraint"] for point in metrics["points"].values()] == [0.85, 0.9, 0.95, 0.9, 10, 0.85, None]


def test_auc_and_prevalence_of_both_splits(run_stage: Run) -> None:
    metrics = run_stage()
    for split in ("val", "test"):
        table, stated = read_predictions(split), metrics[split]
        positive = table["dx"] == "mel"
        assert stated["auc"] == pytest.approx(roc_auc_score(positive, table["probability_mel"]))
        assert stated["prevalence"] == pytest.approx(positive.mean())
        assert (stated["images"], stated["lesions"]) == (600, table["lesion_id"].nunique())
        assert stated["intervals"]["auc"]["low"] < stated["auc"] < stated["intervals"]["auc"]["high"]


def test_operating_points_say_how_to_apply_them(run_stage: Run) -> None:
    stated = run_stage()["points"]
    content = json.loads(OPERATING_POINTS.read_text(encoding="utf-8"))
    expected = {"target": "mel", "classes": ["mel"], "score": "sum of calibrated probabilities"}
    expected |= {"rule": "flag when score >= threshold", "chosen_on": "val", "classifier_sha256": "cafe"}
    assert {key: content[key] for key in expected} == expected
    for name, point in content["points"].items():
        assert point == {key: stated[name][key] for key in ("rule", "constraint", "threshold", "val")}


def test_a_group_is_a_target(run_stage: Run) -> None:
    run_stage(target="malignant")
    content = read_operating_points()
    assert content.classes == ["mel", "bcc", "akiec"]
    table = read_predictions("val")
    score = table[["probability_mel", "probability_bcc", "probability_akiec"]].sum(axis=1)
    positive = table["dx"].isin(["mel", "bcc", "akiec"])
    point = content.points["recall_0.95"]
    assert (score[positive] >= point.threshold - 1e-12).mean() == pytest.approx(point.val["sensitivity"])
    assert np.isclose(score, point.threshold, rtol=0, atol=1e-12).any()


def test_another_test_set_changes_no_threshold(run_stage: Run) -> None:
    metrics, before = run_stage(), OPERATING_POINTS.read_bytes()
    write_predictions({"val": read_predictions("val"), "test": make_predictions("test", seed=7, images=90)})
    assert run_stage()["points"]["youden"]["test"] != metrics["points"]["youden"]["test"]
    assert OPERATING_POINTS.read_bytes() == before
    write_predictions({"val": make_predictions("val", seed=8), "test": read_predictions("test")})
    run_stage()
    assert OPERATING_POINTS.read_bytes() != before


def test_a_second_run_writes_the_same_bytes(run_stage: Run) -> None:
    written = []
    for _ in range(2):
        run_stage()
        written.append(bytes_below("metrics", "models", "plots"))
    assert written[0] == written[1] and len(written[0]) == 6  # the calibration, which it reads, among them


def test_plots_have_their_columns_and_the_chosen_thresholds(run_stage: Run) -> None:
    run_stage()
    curve = pd.read_csv("plots/threshold_sweep/curve.csv")
    points = pd.read_csv("plots/threshold_sweep/operating_points.csv")
    assert ",".join(curve.columns) == "split,threshold,sensitivity,specificity,precision,f1,flagged"
    rates = [f"{rate}{bound}" for rate in ("sensitivity", "specificity") for bound in ("", "_low", "_high")]
    assert [*points.columns] == ["point", "split", "threshold", *rates, "precision", "f1", "flagged"]
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


def test_predictive_values_at_the_prevalences_that_params_name(run_stage: Run) -> None:
    for point in run_stage(prevalences=[0.03, 0.5])["points"].values():
        assert list(point["at_prevalence"]) == ["0.03", "0.5"]
        found, cleared = point["test"]["sensitivity"], point["test"]["specificity"]
        rare = point["at_prevalence"]["0.03"]
        assert rare["ppv"] == pytest.approx(found * 0.03 / (found * 0.03 + (1 - cleared) * 0.97))
        assert rare["number_needed_to_biopsy"] == pytest.approx(1 / rare["ppv"])
        assert rare["intervals"]["ppv"]["low"] <= rare["ppv"] <= rare["intervals"]["ppv"]["high"]
        assert rare["ppv"] < point["at_prevalence"]["0.5"]["ppv"]


def test_only_the_points_that_are_asked_for(run_stage: Run) -> None:
    metrics = run_stage(specificity_constraints=[], cost_ratios=[], guaranteed_recalls=[], prevalences=[])
    assert list(metrics["points"]) == [*RECALLS, "youden"]
    assert all(point["at_prevalence"] == {} for point in metrics["points"].values())


def test_a_promise_too_few_lesions_cannot_keep_flags_all_and_says_so(run_stage: Run, caplog: pytest.LogCaptureFixture) -> None:
    point = run_stage(guaranteed_recalls=[0.999])["points"]["guaranteed_0.999"]
    assert point["threshold"] == 0 and point["test"]["flagged"] == 1
    assert "guaranteed_0.999: " in caplog.text and "too few to promise it: everything is flagged" in caplog.text


def test_the_decision_curve_is_of_test(run_stage: Run) -> None:
    run_stage()
    curve = pd.read_csv("plots/threshold_sweep/decision_curve.csv")
    table = read_predictions("test")
    positive, flagged = table["dx"] == "mel", table["probability_mel"] >= 0.2
    (row,) = curve.query("strategy == 'classifier' and threshold_probability == 0.2").itertuples()
    assert row.net_benefit == pytest.approx((positive & flagged).mean() - (~positive & flagged).mean() / 4)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(("keep_melanomas", "share"), [(False, "none"), (True, "all")])
def test_a_split_without_both_kinds_is_refused(run_stage: Run, split: str, keep_melanomas: bool, share: str) -> None:
    tables = {name: read_predictions(name) for name in ("val", "test")}
    tables[split] = tables[split][(tables[split]["dx"] == "mel") == keep_melanomas]
    write_predictions(tables)
    refuses(rf"{split}: {share} of the \d+ images show the target \(mel\)", run_stage)
    assert not OPERATING_POINTS.exists()
    assert not Path("metrics").exists()


def test_it_runs_as_a_module_without_torch(run_stage: Run) -> None:
    run_stage()
    code = "import sys, runpy; runpy.run_module('stages.threshold_sweep', run_name='__main__'); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "False"
    assert "recall_0.90: threshold 0." in ran.stderr
