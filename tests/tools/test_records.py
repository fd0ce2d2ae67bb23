"""The runs that are recorded: every figure comes out of the prediction tables again, and README says what they say."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn import metrics

from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import read_predictions
from tests.conftest import ROOT
from tests.stage_cases import read_metrics
from tests.tools.record_cases import figures
from tools import readme_tables
from tools.records import file_digests, list_records

NO_RECORD = pytest.param(None, marks=pytest.mark.skip(reason="results/ holds no recorded run yet"))
RECORDS = [pytest.param(path, id=path.name) for path in list_records(ROOT / "results")] or [NO_RECORD]
PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp"}


def hold_against(recorded: dict[str, Any], computed: dict[str, Any]) -> None:
    """Every computed figure is the recorded one."""
    wanted = pd.json_normalize(computed).iloc[0]
    assert wanted.to_dict() == pytest.approx(pd.json_normalize(recorded).iloc[0][wanted.index].to_dict(), rel=0, abs=1e-9)


@pytest.mark.parametrize("folder", RECORDS)
def test_recorded_metrics_come_out_of_the_prediction_tables(folder: Path) -> None:
    evaluate = read_metrics("evaluate", folder)
    for split in ("val", "test"):
        computed = figures(read_predictions(split, folder / "predictions"))
        hold_against(evaluate[split], computed)
        for name, interval in evaluate[split]["intervals"].items():
            if name in evaluate[split]:
                assert interval["low"] <= evaluate[split][name] <= interval["high"], name


@pytest.mark.parametrize("folder", RECORDS)
def test_recorded_operating_points_come_out_of_the_prediction_tables(folder: Path) -> None:
    sweep = read_metrics("threshold_sweep", folder)
    for split in ("val", "test"):
        table = read_predictions(split, folder / "predictions")
        positive = table["dx"].isin(sweep["classes"]).to_numpy()
        score = sum(table[f"probability_{dx}"].to_numpy() for dx in CLASSES if dx in sweep["classes"])
        for name, point in sweep["points"].items():
            flagged = score >= point["threshold"]
            computed = {
                "sensitivity": metrics.recall_score(positive, flagged),
                "specificity": metrics.recall_score(~positive, ~flagged),
                "precision": metrics.precision_score(positive, flagged, zero_division=0),
                "f1": metrics.f1_score(positive, flagged, zero_division=0),
                "flagged": flagged.mean(),
            }
            hold_against(point[split], computed)
            if split == "val" and name.startswith(("recall", "specificity")):
                rate = "sensitivity" if name.startswith("recall") else "specificity"
                assert computed[rate] >= point["constraint"], name


@pytest.mark.parametrize("folder", RECORDS)
def test_recorded_files_are_unchanged_and_show_no_real_skin(folder: Path) -> None:
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert file_digests(folder) == provenance["files_sha256"]
    pictures = [path.name for path in folder.rglob("*") if path.suffix.lower() in PICTURES]
    embedded = [path.name for path in folder.rglob("*.svg") if b"<image" in path.read_bytes()]
    assert provenance["synthetic"] or (pictures == [] and embedded == [])


def test_no_lesion_of_a_record_is_in_both_tables() -> None:
    for folder in list_records(ROOT / "results"):
        lesions = [set(read_predictions(split, folder / "predictions")["lesion_id"]) for split in ("val", "test")]
        assert not lesions[0] & lesions[1], folder


@pytest.mark.structure
def test_readme_says_what_the_records_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["readme_tables", "--check"])
    readme_tables.main()
