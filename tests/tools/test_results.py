"""Recording a run, README's tables, and the runs that are recorded: every figure comes out of the prediction tables again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML
from sklearn import metrics as sklearn_metrics

from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS, read_predictions
from skinlesion.report.formats import describe_rule
from tests.conftest import ROOT, WriteParams
from tools import readme_evidence, readme_tables, summary
from tools.record_results import record
from tools.records import HEADLINE, Record, file_digests, list_records, read_record

NO_RECORD = pytest.param(None, marks=pytest.mark.skip(reason="results/ holds no recorded run yet"))
RECORDS = [pytest.param(path, id=path.name) for path in list_records(ROOT / "results")] or [NO_RECORD]
SUBGROUPS = {
    "all": {"accuracy": 0.9, "macro_auc": 0.95, "mel_sensitivity": 0.6},
    "histology_only": {
        "images": 1200,
        "lesions": 800,
        "accuracy": 0.75,
        "macro_auc": 0.875,
        "intervals": {"accuracy": {"low": 0.7, "high": 0.8}, "macro_auc": {"low": 0.85, "high": 0.9}},
    },
    "worst": {
        "mel_sensitivity": {
            "attribute": "age",
            "group": "below 30",
            "value": 0.25,
            "low": 0.1,
            "high": 0.4,
            "lesions": 90,
            "melanoma_lesions": 12,
        },
        "macro_auc": None,
    },
}
RATES = {"coverage": 0.7, "accuracy": 0.9, "melanomas_missed": 0.1}
INTERVALS = {name: {"low": value - 0.01, "high": value + 0.01} for name, value in RATES.items()}
SELECTIVE = {"abstention": {"0.6": {"test": RATES | {"intervals": INTERVALS}}}}
GAIN = {"inflation": 0.05, "low": -0.01, "high": 0.1}
LEAK = {
    "recipe": {"backbone": "resnet18", "epochs": 5, "seeds": [0, 1]},
    "siblings": {"image_level": {"share": 0.375}},
    "all": {"metrics": {"accuracy": GAIN, "macro_auc": GAIN, "mel_sensitivity": GAIN | {"inflation": -0.02}}},
    "with_siblings": {"metrics": {"accuracy": GAIN | {"inflation": 0.125}}},
    "without_siblings": None,
}
PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp"}


def figures(table: pd.DataFrame) -> dict[str, Any]:
    """The metrics of a prediction table, by scikit-learn; a class without images is left out of the averages."""
    probabilities = table[list(PROBABILITY_COLUMNS)].to_numpy()
    truth, predicted = table["dx"].to_numpy(), np.array(CLASSES)[probabilities.argmax(axis=1)]
    present = [dx for dx in CLASSES if dx in set(truth)]
    report = sklearn_metrics.precision_recall_fscore_support(truth, predicted, labels=CLASSES, zero_division=0)
    hits = [(truth == dx, probabilities[:, CLASSES.index(dx)]) for dx in CLASSES]
    per_class = {}
    for index, dx in enumerate(CLASSES):
        positive, score = hits[index]
        per_class[dx] = {"precision": report[0][index], "support": int(report[3][index])}
        per_class[dx]["specificity"] = sklearn_metrics.recall_score(~positive, predicted != dx)
        if dx in present:
            per_class[dx] |= {"recall": report[1][index], "f1": report[2][index]}
            per_class[dx]["auc"] = sklearn_metrics.roc_auc_score(positive, score)
            per_class[dx]["average_precision"] = sklearn_metrics.average_precision_score(positive, score)
    mean = {
        name: float(np.mean([per_class[dx][name] for dx in present])) for name in ("recall", "f1", "auc", "average_precision")
    }
    return {
        "images": len(table),
        "lesions": table["lesion_id"].nunique(),
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": mean["recall"],
        "macro_f1": mean["f1"],
        "weighted_f1": sklearn_metrics.f1_score(truth, predicted, average="weighted"),
        "macro_auc": mean["auc"],
        "macro_average_precision": mean["average_precision"],
        "top2_accuracy": sklearn_metrics.top_k_accuracy_score(
            [CLASSES.index(dx) for dx in truth], probabilities, k=2, labels=range(len(CLASSES))
        ),
        "mel_sensitivity": per_class["mel"]["recall"],
        "mel_specificity": per_class["mel"]["specificity"],
        "nll_after": -np.log([probabilities[row, CLASSES.index(dx)] for row, dx in enumerate(truth)]).mean(),
        "per_class": per_class,
    }


def differences(said: dict[str, Any], computed: dict[str, Any], tolerance: float = 1e-9) -> list[str]:
    """The names whose values differ."""
    found = []
    for name, value in computed.items():
        if isinstance(value, dict):
            found += [f"{name}.{inner}" for inner in differences(said[name], value, tolerance)]
        elif said[name] is None or abs(said[name] - value) > tolerance:
            found.append(name)
    return found


# The runs that are recorded


@pytest.mark.parametrize("folder", RECORDS)
def test_recorded_metrics_come_out_of_the_prediction_tables(folder: Path) -> None:
    evaluate = json.loads((folder / "metrics" / "evaluate.json").read_text(encoding="utf-8"))
    for split in ("val", "test"):
        computed = figures(read_predictions(split, folder / "predictions"))
        assert differences(evaluate[split], computed) == []
        for name, interval in evaluate[split]["intervals"].items():
            if name in evaluate[split]:
                assert interval["low"] <= evaluate[split][name] <= interval["high"], name


@pytest.mark.parametrize("folder", RECORDS)
def test_recorded_operating_points_come_out_of_the_prediction_tables(folder: Path) -> None:
    sweep = json.loads((folder / "metrics" / "threshold_sweep.json").read_text(encoding="utf-8"))
    for split in ("val", "test"):
        table = read_predictions(split, folder / "predictions")
        positive = table["dx"].isin(sweep["classes"]).to_numpy()
        score = sum(table[f"probability_{dx}"].to_numpy() for dx in CLASSES if dx in sweep["classes"])
        for name, point in sweep["points"].items():
            flagged = score >= point["threshold"]
            computed = {
                "sensitivity": sklearn_metrics.recall_score(positive, flagged),
                "specificity": sklearn_metrics.recall_score(~positive, ~flagged),
                "precision": sklearn_metrics.precision_score(positive, flagged, zero_division=0),
                "f1": sklearn_metrics.f1_score(positive, flagged, zero_division=0),
                "flagged": flagged.mean(),
            }
            assert differences(point[split], computed) == [], (split, name)
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
    if not (ROOT / "README.md").is_file():
        pytest.skip("there is no README.md yet")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["readme_tables", "--check"])
    readme_tables.main()


# Recording


def prediction_table(seed: int, prefix: str) -> pd.DataFrame:
    """56 images of 28 lesions whose class is mostly found."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(CLASSES)), 8)
    logits = rng.normal(size=(len(truth), len(CLASSES)))
    logits[np.arange(len(truth)), truth] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame(
        {
            "image_id": [f"{prefix}{row:03d}" for row in range(len(truth))],
            "lesion_id": [f"{prefix}L{row // 2:03d}" for row in range(len(truth))],
            "dx": [CLASSES[index] for index in truth],
            "age": 50.0,
            "sex": "female",
            "localization": "back",
            "dx_type": "histo",
        }
    )[list(DESCRIPTIVE_COLUMNS)]
    numbers = pd.DataFrame(np.hstack([logits, probabilities]), columns=[*LOGIT_COLUMNS, *PROBABILITY_COLUMNS])
    return pd.concat([table, numbers], axis=1)


def evaluate_metrics(tables: dict[str, pd.DataFrame], *, synthetic: bool) -> dict[str, Any]:
    """What metrics/evaluate.json holds of the tables, intervals a hundredth either way."""
    content: dict[str, Any] = {
        "data": {"source": "sample" if synthetic else "local", "synthetic": synthetic},
        "test_time": "none",
        "bootstrap": {"draws": 1000, "unit": "lesion", "confidence": 0.95, "seed": 0},
        "members": {"base-0": {}},
    }
    for split, table in tables.items():
        values = figures(table)
        rates = {name: value for name, value in values.items() if isinstance(value, float)}
        content[split] = values | {
            "intervals": {name: {"low": value - 0.01, "high": value + 0.01} for name, value in rates.items()},
            "majority_baseline": {"class": "nv", "accuracy": 0.125, "balanced_accuracy": 0.142857, "macro_auc": 0.5},
        }
    return content


SWEEP = {
    "target": "mel",
    "classes": ["mel"],
    "bootstrap": {"draws": 1000, "unit": "lesion", "confidence": 0.9, "seed": 0},
    "points": {
        "recall_0.90": {
            "constraint": 0.9,
            "threshold": 0.0625,
            "val": {"sensitivity": 0.925},
            "test": {"sensitivity": 0.875, "specificity": 0.75, "precision": 0.5, "f1": 0.6, "flagged": 0.25},
            "intervals": {"sensitivity": {"low": 0.8, "high": 0.95}, "specificity": {"low": 0.7, "high": 0.8}},
        },
        "youden": {
            "constraint": None,
            "threshold": 0.5,
            "val": {"sensitivity": 0.5},
            "test": {"sensitivity": None, "specificity": 0.75, "precision": 0.5, "f1": None, "flagged": 0.25},
            "intervals": {"sensitivity": {"low": None, "high": None}},
        },
    },
}
GRADCAM = {
    "method": "GradCAM",
    "layers": {"base-0": {"layer": "layer4", "cells": [4, 4]}},
    "images_with_mask": 56,
    "bootstrap": {"draws": 1000, "unit": "lesion", "confidence": 0.975, "seed": 0},
    "energy_ratio": {"mean": 1.5, "median": 1.25, "low": 1.4, "high": 1.6},
}
ENSEMBLE = {
    "members": [{"name": "base-0"}],
    "size": 64,
    "fit": "squash",
    "color_constancy": "none",
    "fingerprint": "f00d",
    "data": {},
}
MEMBER_CONFIG = {
    "backbone": "resnet18",
    "seed": 0,
    "epoch": 3,
    "needs_metadata": False,
    "weights_sha256": "ab" * 32,
    "git_commit": "c0ffee",
    "versions": {},
    "params": {"weights": "../weights/resnet18.pth"},
}
DATA = ["data/failures", "data/predictions", "data/prepared", "data/raw"]
PIPELINE = {
    "stages": {
        "all": {
            "cmd": "true",
            "params": ["train"],
            "outs": [*DATA, "models", "plots/evaluate", "plots/gradcam", "report"],
        }
    },
    "plots": [
        {
            "evaluate_per_class": {
                "title": "F1",
                "template": "per_class",
                "x": "f1",
                "y": {"plots/evaluate/per_class.csv": "dx"},
            }
        },
        "plots/gradcam/index.png",
    ],
}


def write(path: str, content: dict[str, Any] | str) -> None:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content if isinstance(content, str) else json.dumps(content, default=float), encoding="utf-8")


def set_source(*, synthetic: bool) -> None:
    provenance = {"source": "sample" if synthetic else "local", "synthetic": synthetic, "licence": "CC0-1.0", "counts": {}}
    write("data/raw/provenance.json", provenance)


def commit_to_dvc() -> None:
    """Tell DVC that the workspace is what the pipeline made."""
    subprocess.run([sys.executable, "-m", "dvc", "commit", "-q", "-f"], check=True)


def add_plot(name: str, columns: dict[str, str]) -> None:
    """Add a plot to dvc.yaml: file and column of each of its y."""
    yaml = YAML(typ="safe", pure=True)
    document = yaml.load(Path("dvc.yaml").read_text(encoding="utf-8"))
    document["plots"].append({name: {"title": name, "template": "per_class", "x": "f1", "y": columns}})
    with Path("dvc.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


@pytest.fixture(scope="module")
def run_to_copy(tmp_path_factory: pytest.TempPathFactory, repository_params: dict[str, Any]) -> Path:
    """A workspace after `dvc repro`, as small as the recorder can have it; the images are real ones."""
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for name, content in (("params.yaml", repository_params), ("dvc.yaml", PIPELINE)):
            with Path(name).open("w", encoding="utf-8") as file:
                YAML(typ="safe", pure=True).dump(content, file)
        write(".dvc/config", "[core]\n    analytics = false\n    no_scm = true\n")
        write(".dvc/plots/per_class.json", (ROOT / ".dvc" / "plots" / "per_class.json").read_text(encoding="utf-8"))
        tables = {"val": prediction_table(1, "V"), "test": prediction_table(2, "T")}
        Path("data/predictions").mkdir(parents=True)
        for split, table in tables.items():
            table.to_csv(f"data/predictions/{split}.csv", index=False)
        set_source(synthetic=False)
        write(
            "data/prepared/index.csv",
            "image_id,width,height,fit,color_constancy\n" + "".join(f"I{row},200,150,squash,none\n" for row in range(3)),
        )
        write("models/classifier/ensemble.json", ENSEMBLE)
        write("models/classifier/base-0/config.json", MEMBER_CONFIG)
        write("plots/evaluate/per_class.csv", "dx,f1,low,high,support\nmel,0.5,0.25,0.75,8\n")
        Path("plots/gradcam").mkdir()
        Image.new("RGB", (8, 8)).save("plots/gradcam/index.png")
        write("metrics/evaluate.json", evaluate_metrics(tables, synthetic=False))
        write("metrics/split.json", {"fingerprint": "f00d"})
        write("metrics/train/base-0.json", {})
        write("metrics/train/stale-0.json", {})
        write("metrics/threshold_sweep.json", SWEEP)
        write("metrics/baselines.json", {})
        write("metrics/selective.json", SELECTIVE)
        write("metrics/subgroups.json", SUBGROUPS)
        write("metrics/failures.json", {})
        write("metrics/gradcam.json", GRADCAM)
        write("metrics/neighbors.json", {})
        write("data/failures/failures.csv", "image_id\n")
        write("plots/gradcam/images.csv", "image_id\n")
        write("report/index.html", "<!doctype html>")
        write("report/report.md", "# Report")
        commit_to_dvc()
    return root


@pytest.fixture
def finished_run(workspace: Path, run_to_copy: Path) -> Path:
    """The working directory as a copy of `run_to_copy`."""
    shutil.copytree(run_to_copy, workspace, dirs_exist_ok=True)
    return workspace


def test_a_record_holds_the_run_and_says_where_it_came_from(finished_run: Path) -> None:
    folder = record("run-1")
    names = sorted(file_digests(folder))
    stages = (
        "baselines",
        "evaluate",
        "failures",
        "gradcam",
        "neighbors",
        "selective",
        "split",
        "subgroups",
        "threshold_sweep",
        "train/base-0",
    )
    metrics = [f"metrics/{name}.json" for name in stages]
    predictions, report = ["predictions/test.csv", "predictions/val.csv"], ["report/index.html", "report/report.md"]
    assert names == ["failures.csv", "maps.csv", *metrics, "params.yaml", "plots/evaluate_per_class.svg", *predictions, *report]
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["plots_left_out"] == ["plots/gradcam/index.png"]  # a picture of real skin
    assert provenance["originals"] == {"width": 200, "height": 150, "images": 3, "of": 3}
    (member,) = provenance["classifier"].pop("members")
    assert member.pop("weights") == "../weights/resnet18.pth"
    assert member == {"name": "base-0"} | {key: value for key, value in MEMBER_CONFIG.items() if key != "params"}
    assert provenance["classifier"] == {key: value for key, value in ENSEMBLE.items() if key != "members"}
    assert provenance["data"]["source"] == "local"
    assert provenance["recorder"] == {"git_commit": None, "dirty": None}
    assert set(provenance["outs_md5"]) == {*DATA, "models", "plots/evaluate", "plots/gradcam", "report"}
    assert file_digests(folder) == provenance["files_sha256"]
    svg = (folder / "plots" / "evaluate_per_class.svg").read_text(encoding="utf-8")
    assert "run-1" in svg
    assert "workspace" not in svg


def add_extra(name: str, **of: str) -> None:
    """A workspace in which an optional stage was run, of images or predictions with these digests."""
    metrics = "metrics/export.json" if name == "export" else f"metrics/extras/{name}.json"
    write(metrics, {"of": of})
    write(f"data/extras/{name}/table.csv", "image_id\n")
    write(f"plots/extras/{name}/values.csv", "dx,f1,low,high,support\nmel,0.5,0.25,0.75,8\n")
    plot = {"title": "F1", "template": "per_class", "x": "f1", "y": {f"../plots/extras/{name}/values.csv": "dx"}}
    stages = Path("extras/dvc.yaml")
    document = json.loads(stages.read_text(encoding="utf-8")) if stages.is_file() else {"stages": {}, "plots": []}
    outs = [metrics, f"data/extras/{name}", f"plots/extras/{name}"]
    document["stages"][name.replace("_", "-")] = {"wdir": "..", "cmd": "true", "outs": outs}
    document["plots"].append({f"{name}_values": plot})
    write("extras/dvc.yaml", document)


def test_optional_stages_are_recorded_where_they_are_of_this_run(finished_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_extra("robustness", predictions=file_digest(Path("data/predictions/test.csv"), "sha256"))
    add_extra("export", predictions=file_digest(Path("data/predictions/test.csv"), "sha256"))
    add_extra("external", predictions="0" * 64)
    commit_to_dvc()
    folder = record("run-1")
    names = set(file_digests(folder))
    assert {
        "metrics/export.json",
        "metrics/extras/robustness.json",
        "extras/robustness/table.csv",
        "plots/robustness_values.svg",
    } <= names
    assert not [name for name in names if "external" in name]
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["extras_left_out"] == ["external"] and "left out, since of another run: external" in caplog.text
    assert {"models", "data/extras/robustness"} <= set(provenance["outs_md5"])


def test_what_dvc_lock_keeps_of_a_stage_that_is_no_more_is_not_recorded(finished_run: Path) -> None:
    with Path("dvc.lock").open("a", encoding="utf-8") as file:
        file.write("  train@base-7:\n    cmd: 'true'\n    outs:\n    - path: models/members/base-7\n      md5: abcd\n")
    assert "models/members/base-7" not in json.loads((record("run-1") / "provenance.json").read_text("utf-8"))["outs_md5"]


def test_pictures_of_synthetic_images_are_recorded(finished_run: Path) -> None:
    set_source(synthetic=True)
    commit_to_dvc()
    folder = record("sample")
    assert (folder / "plots" / "gradcam_index.png").read_bytes() == Path("plots/gradcam/index.png").read_bytes()


def test_recording_is_deterministic_and_replaces_only_when_asked(finished_run: Path) -> None:
    first = file_digests(record("run-1"))
    with pytest.raises(PipelineError, match=r"results/run-1 exists: take another name"):
        record("run-1")
    assert file_digests(record("run-1", replace=True)) == first


@pytest.mark.parametrize("name", ["", "../run", "a/b", "Run 1", ".hidden"])
def test_a_name_that_is_no_folder_name_is_refused(workspace: Path, name: str) -> None:
    with pytest.raises(PipelineError, match="cannot name a record"):
        record(name)


def test_a_stale_workspace_is_refused(finished_run: Path, write_params: WriteParams) -> None:
    write_params({"train.lr": 0.5})
    with pytest.raises(PipelineError, match=r"not up to date \(all\).*dvc repro"):
        record("run-1")
    assert not Path("results").exists()


def test_metrics_of_another_run_are_refused(finished_run: Path) -> None:
    content = json.loads(Path("metrics/evaluate.json").read_text(encoding="utf-8"))
    content["test"]["accuracy"] += 1e-6
    write("metrics/evaluate.json", content)
    with pytest.raises(PipelineError, match=r"test\.csv gives accuracy .* not of one run"):
        record("run-1")


def test_a_row_of_another_run_is_refused(finished_run: Path) -> None:
    table = prediction_table(2, "T")
    swapped = table.loc[0, list(PROBABILITY_COLUMNS)].to_numpy()
    table.loc[0, list(PROBABILITY_COLUMNS)] = table.loc[20, list(PROBABILITY_COLUMNS)].to_numpy()
    table.loc[20, list(PROBABILITY_COLUMNS)] = swapped
    table.to_csv("data/predictions/test.csv", index=False)
    commit_to_dvc()
    with pytest.raises(PipelineError, match=r"test\.csv gives"):
        record("run-1")


def test_a_classifier_of_another_split_is_refused(finished_run: Path) -> None:
    write("metrics/split.json", {"fingerprint": "beef"})
    with pytest.raises(PipelineError, match="not trained on the lists"):
        record("run-1")


@pytest.mark.parametrize("missing", ["metrics/gradcam.json", "metrics/train/base-0.json"])
def test_missing_metrics_are_named(finished_run: Path, missing: str) -> None:
    Path(missing).unlink()
    with pytest.raises(PipelineError, match=f"{missing} not found"):
        record("run-1")
    assert not Path("results").exists()


def test_plots_without_their_files_are_left_out(finished_run: Path) -> None:
    """A plot that has one of its two files is not a whole plot."""
    add_plot("half", {"plots/evaluate/per_class.csv": "dx", "plots/train/loss.tsv": "dx"})
    add_plot("none", {"plots/train/loss.tsv": "dx"})
    folder = record("run-1")
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert sorted(provenance["plots_left_out"]) == ["half", "none", "plots/gradcam/index.png"]
    assert [path.name for path in (folder / "plots").iterdir()] == ["evaluate_per_class.svg"]


def test_a_plot_that_dvc_cannot_draw_is_refused(finished_run: Path) -> None:
    add_plot("none", {"plots/train/loss.tsv": "dx"})
    add_plot("odd", {"plots/evaluate/per_class.csv": "no_such_column"})
    with pytest.raises(PipelineError, match=r"DVC cannot draw odd \(.*no_such_column.*\): run the stage that writes it"):
        record("run-1")
    assert not Path("results/run-1").exists()


# README's tables


def test_readme_tables_are_generated_from_the_records(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("run-1")
    write("README.md", f"# Title\n\n{readme_tables.BEGIN}\nstale\n{readme_tables.END}\n\nbelow\n")
    monkeypatch.setattr(sys, "argv", ["readme_tables", "--check"])
    with pytest.raises(PipelineError, match=r"README.md does not say what results/ says: run `python -m tools.readme_tables`"):
        readme_tables.main()
    assert "stale" in Path("README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["readme_tables"])
    readme_tables.main()
    text = Path("README.md").read_text(encoding="utf-8")
    accuracy = figures(prediction_table(2, "T"))["accuracy"]
    assert f"| {accuracy:.3f} [{accuracy - 0.01:.3f}, {accuracy + 0.01:.3f}] |" in text
    report = "[page](results/run-1/report/index.html), [Markdown](results/run-1/report/report.md)"
    assert (
        f"| [run-1](results/run-1/), report: {report} | real, source `local`, 200 x 150 px, network sees 64 x 64 (squash) |"
        in text
    )
    assert "| resnet18 from `resnet18.pth` (sha256 abababab) | 56 / 28 |" in text
    assert "| majority class (nv) |  |  | 0.125 | 0.143 | - | 0.500 | - | - |" in text
    point = "| mel: recall_0.90 | 0.0625 | sensitivity ≥ 0.90 | 0.925 | 0.875 [0.800, 0.950] | 0.750 [0.700, 0.800] |"
    assert f"{point} 0.500 | 0.250 |" in text
    assert "| mel: youden | 0.5000 | largest Youden index | 0.500 | - | 0.750 | 0.500 | 0.250 |" in text
    assert "| GradCAM, `layer4` | 56 | 1.500 [1.400, 1.600] | 1.250 |" in text
    assert text.startswith("# Title\n\n")
    assert text.endswith(f"{readme_tables.END}\n\nbelow\n")
    assert "Headline metrics, 95% intervals." in text
    assert "Operating points: thresholds chosen on validation, then audited on test, 90% intervals." in text
    assert "the lesion's share of the area (1 is chance), 97.5% intervals." in text
    monkeypatch.setattr(sys, "argv", ["readme_tables", "--check"])
    readme_tables.main()


def test_what_was_asked_of_a_point_is_said_by_its_rule() -> None:
    points = [
        ({"rule": "specificity", "constraint": 0.9}, "specificity ≥ 0.90"),
        ({"rule": "cost", "constraint": 10.0}, "least cost, a miss costs 10 false alarms"),
        ({"rule": "guaranteed", "constraint": 0.85}, "sensitivity of lesions ≥ 0.85, guaranteed"),
        ({"rule": "youden", "constraint": None}, "largest Youden index"),
        ({"constraint": 0.95}, "sensitivity ≥ 0.95"),  # of a record from before there were rules
    ]
    assert [describe_rule(point) for point, _ in points] == [said for _, said in points]


def test_an_ensemble_has_its_members_provenance_metrics_and_spread(finished_run: Path) -> None:
    write("models/classifier/ensemble.json", ENSEMBLE | {"members": [{"name": f"{name}-0"} for name in ("base", "b2", "meta")]})
    others = {
        "b2-0": {"backbone": "efficientnet_b2", "seed": 7, "params": {"weights": "none"}},
        "meta-0": {"needs_metadata": True},
    }
    for name, changed in others.items():
        write(f"models/classifier/{name}/config.json", MEMBER_CONFIG | changed)
        write(f"metrics/train/{name}.json", {"member": name})
    content = json.loads(Path("metrics/evaluate.json").read_text(encoding="utf-8"))
    spread = {"accuracy": {"mean": 0.8215, "sd": 0.0123, "min": 0.8, "max": 0.83}, "macro_auc": {"mean": None, "sd": None}}
    content |= {"test_time": "flips", "members": {"base-0": {}, **others}, "spread": {"test": spread}}
    by_lesion = dict.fromkeys(HEADLINE, 0.5)
    content["test"]["per_lesion"] = by_lesion | {"intervals": {name: {"low": 0.4, "high": 0.6} for name in by_lesion}}
    write("metrics/evaluate.json", content)
    layers = {"base-0": {"layer": "layer4"}, "b2-0": {"layer": "features"}, "meta-0": {"layer": "layer4"}}
    write("metrics/gradcam.json", GRADCAM | {"layers": layers})
    commit_to_dvc()
    folder = record("three")
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    said = [(member["name"], member["backbone"], member["seed"]) for member in provenance["classifier"]["members"]]
    assert said == [("base-0", "resnet18", 0), ("b2-0", "efficientnet_b2", 7), ("meta-0", "resnet18", 0)]
    trained = sorted(path.name for path in (folder / "metrics" / "train").iterdir())
    assert trained == ["b2-0.json", "base-0.json", "meta-0.json"]
    block = readme_tables.results_block([read_record(folder)])
    networks = "resnet18 from `resnet18.pth` (sha256 abababab) and efficientnet_b2 from random weights and resnet18 with metadata"
    assert f"| {networks} from `resnet18.pth` (sha256 abababab); mean of 3 members; test-time views: flips |" in block
    assert "| each of the 3 members alone (mean ± standard deviation) |  |  | 0.822 ± 0.012 |  |  | - |  |  |" in block
    lesions = " | ".join(["0.500 [0.400, 0.600]"] * len(by_lesion))
    assert f"| one prediction a lesion, the mean of its images |  |  | {lesions} |" in block
    assert "| GradCAM, `layer4`, `features` |" in block


def test_synthetic_records_are_marked_and_come_last(finished_run: Path) -> None:
    record("z-real")
    set_source(synthetic=True)
    commit_to_dvc()
    record("a-sample")
    block = readme_tables.results_block([read_record(folder) for folder in list_records()])
    assert block.index("[z-real]") < block.index("[a-sample]")
    assert "**synthetic**, source `sample`" in block
    assert "say nothing about real skin" in block


def test_levels_of_runs_that_differ_and_of_a_run_without_masks(finished_run: Path) -> None:
    first = read_record(record("a"))
    wider = {**first.metrics["evaluate"], "bootstrap": {**first.metrics["evaluate"]["bootstrap"], "confidence": 0.99}}
    no_masks = {**first.metrics["gradcam"], "images_with_mask": 0, "energy_ratio": None, "bootstrap": None}
    other = replace(first, name="b", metrics=first.metrics | {"evaluate": wider, "gradcam": no_masks})
    block = readme_tables.results_block([first, other])
    assert "Headline metrics, 95% (a) or 99% (b) intervals." in block
    assert "(1 is chance), 97.5% intervals." in block
    assert "(1 is chance)." in readme_tables.results_block([replace(first, metrics=first.metrics | {"gradcam": no_masks})])


def evidence_of(**metrics: Any) -> dict[str, list[list[str]]]:
    """The rows of the tables of a run with these metrics, by the first word of their captions."""
    record = Record("mine", {}, {"gradcam": {}} | metrics, has_report=False)
    return {each.caption.split()[0]: [list(row) for row in each.rows] for each in readme_evidence.evidence_tables([record])}


def test_what_stands_behind_a_headline_is_a_row() -> None:
    ((run, sizes, accuracy, macro_auc, worst, worst_auc, *answered),) = evidence_of(subgroups=SUBGROUPS, selective=SELECTIVE)[
        "What"
    ]
    assert (run, sizes, accuracy, macro_auc) == (
        *("[mine](results/mine/)", "1,200 / 800"),
        *("0.750 [0.700, 0.800]", "0.875 [0.850, 0.900]"),
    )
    assert (worst, worst_auc) == ("0.250 [0.100, 0.400] (age below 30, 12 melanoma lesions)", "-")
    assert answered == [
        *("the surest 60% of validation", "0.700 [0.690, 0.710]"),
        *("0.900 [0.890, 0.910]", "0.100 [0.090, 0.110]"),
    ]
    nothing_proven = SUBGROUPS | {"histology_only": None, "worst": dict.fromkeys(SUBGROUPS["worst"])}
    assert evidence_of(subgroups=nothing_proven)["What"] == evidence_of()["What"] == [[run, *["-"] * 9]]


def test_a_measured_leak_is_a_row() -> None:
    ((_, *cells),) = evidence_of(**{"extras/leak": LEAK})["A"]
    assert [cell.replace("\xa0", " ") for cell in cells] == [
        *("resnet18, 5 epochs", "2", "38%", "+0.050 [-0.010, +0.100]", "+0.050 [-0.010, +0.100]", "-0.020 [-0.010, +0.100]"),
        *("+0.125 [-0.010, +0.100]", "-"),
    ]


def test_the_summary_says_its_level_and_what_is_synthetic(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {"test": prediction_table(2, "T")}
    content = evaluate_metrics(tables, synthetic=True)
    content["bootstrap"]["confidence"] = 0.9
    write("metrics/evaluate.json", content)
    summary.main()
    said = capsys.readouterr().out
    assert "SYNTHETIC sample, which says nothing about real skin: 56 images of 28 lesions; 90 % intervals over lesions" in said
    accuracy = figures(tables["test"])["accuracy"]
    assert f"{accuracy:.3f}  [{accuracy - 0.01:.3f}, {accuracy + 0.01:.3f}]   majority class 0.125" in said
    assert "models/classifier/   (member base-0; test-time views: none)" in said
    write("metrics/evaluate.json", content | {"members": {"base-0": {}, "base-1": {}}, "test_time": "square"})
    summary.main()
    assert "(mean of 2 members: base-0, base-1; test-time views: square)" in capsys.readouterr().out


def test_readme_without_records_or_markers(workspace: Path) -> None:
    write("README.md", f"{readme_tables.BEGIN}\n{readme_tables.END}\n")
    assert "No run is recorded yet" in readme_tables.updated_readme()[1]
    write("README.md", "no markers")
    with pytest.raises(PipelineError, match="must have one line '<!-- results:begin -->'"):
        readme_tables.updated_readme()
