"""A workspace after `dvc repro`, as small as the recorder can have it, and the metrics of a prediction table by scikit-learn."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from ruamel.yaml import YAML
from sklearn import metrics as sklearn_metrics

from skinlesion.artifacts.tables import PROBABILITY_COLUMNS, labels_of
from skinlesion.diagnoses import CLASSES
from tests.conftest import ROOT
from tests.stage_cases import PATIENT, with_logits

PROVEN_INTERVALS = {"accuracy": {"low": 0.7, "high": 0.8}, "macro_auc": {"low": 0.85, "high": 0.9}}
WORST = {"attribute": "age", "group": "below 30", "lesions": 90, "melanoma_lesions": 12}
SUBGROUPS = {
    "all": {"accuracy": 0.9, "macro_auc": 0.95, "mel_sensitivity": 0.6},
    "histology_only": {"images": 1200, "lesions": 800, "accuracy": 0.75, "macro_auc": 0.875, "intervals": PROVEN_INTERVALS},
    "worst": {"mel_sensitivity": WORST | {"value": 0.25, "low": 0.1, "high": 0.4}, "macro_auc": None},
}
RATES = {"coverage": 0.7, "accuracy": 0.9, "melanomas_missed": 0.1}
INTERVALS = {name: {"low": value - 0.01, "high": value + 0.01} for name, value in RATES.items()}
SELECTIVE = {"abstention": {"0.6": {"test": RATES | {"intervals": INTERVALS}}}}
BOOTSTRAP = {"draws": 1000, "unit": "lesion", "seed": 0}
SWEEP = {
    "target": "mel",
    "classes": ["mel"],
    "bootstrap": BOOTSTRAP | {"confidence": 0.9},
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
GRADCAM = {"method": "GradCAM", "layers": {"base-0": {"layer": "layer4", "cells": [4, 4]}}, "images_with_mask": 56}
GRADCAM |= {"bootstrap": BOOTSTRAP | {"confidence": 0.975}}
GRADCAM |= {"energy_ratio": {"mean": 1.5, "median": 1.25, "low": 1.4, "high": 1.6}}
IDENTITY = {"size": 64, "fit": "squash", "color_constancy": "none", "fingerprint": "f00d", "data": {}}
ENSEMBLE = IDENTITY | {"members": [{"name": "base-0"}]}
MEMBER = {"backbone": "resnet18", "seed": 0, "epoch": 3, "needs_metadata": False, "weights_sha256": "ab" * 32}
MEMBER |= {"git_commit": "c0ffee", "versions": {}}
MEMBER_CONFIG = MEMBER | {"params": {"weights": "../weights/resnet18.pth"}}
OUTS = ["data/failures", "data/predictions", "data/prepared", "data/raw", "models", "plots/evaluate", "plots/gradcam", "report"]
PER_CLASS = {"title": "F1", "template": "per_class", "x": "f1"}
PIPELINE = {
    "stages": {"all": {"cmd": "true", "params": ["train"], "outs": OUTS}},
    "plots": [{"evaluate_per_class": PER_CLASS | {"y": {"plots/evaluate/per_class.csv": "dx"}}}, "plots/gradcam/index.png"],
}


def figures(table: pd.DataFrame) -> dict[str, Any]:
    """The metrics of a prediction table, by scikit-learn; a class without images is left out of the averages."""
    scores = table[list(PROBABILITY_COLUMNS)].set_axis(CLASSES, axis=1)
    truth, predicted, labels = table["dx"], scores.idxmax(axis=1), labels_of(table)
    per_class = {dx: class_figures(truth.eq(dx), predicted.eq(dx), scores[dx]) for dx in CLASSES}
    mean = pd.DataFrame(per_class).loc[["recall", "f1", "auc", "average_precision"]].mean(axis=1)
    return {
        "images": len(table),
        "lesions": table["lesion_id"].nunique(),
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": mean["recall"],
        "macro_f1": mean["f1"],
        "weighted_f1": sklearn_metrics.f1_score(truth, predicted, average="weighted"),
        "macro_auc": mean["auc"],
        "macro_average_precision": mean["average_precision"],
        "top2_accuracy": sklearn_metrics.top_k_accuracy_score(labels, scores.to_numpy(), k=2, labels=range(len(CLASSES))),
        "mel_sensitivity": per_class["mel"]["recall"],
        "mel_specificity": per_class["mel"]["specificity"],
        "nll_after": -np.log(scores.to_numpy()[np.arange(len(table)), labels]).mean(),
        "per_class": per_class,
    }


def class_figures(truth: pd.Series, predicted: pd.Series, score: pd.Series) -> dict[str, float]:
    """Those of one class against the rest; without an image of it, those that are defined."""
    found = {"precision": sklearn_metrics.precision_score(truth, predicted, zero_division=0), "support": int(truth.sum())}
    found["specificity"] = sklearn_metrics.recall_score(~truth, ~predicted)
    if truth.any():
        found |= {"recall": sklearn_metrics.recall_score(truth, predicted), "f1": sklearn_metrics.f1_score(truth, predicted)}
        found["auc"] = sklearn_metrics.roc_auc_score(truth, score)
        found["average_precision"] = sklearn_metrics.average_precision_score(truth, score)
    return found


def prediction_table(seed: int, prefix: str) -> pd.DataFrame:
    """56 images of 28 lesions whose class is mostly found."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(CLASSES)), 8)
    logits = rng.normal(size=(len(truth), len(CLASSES)))
    logits[np.arange(len(truth)), truth] += 1.5
    rows = [(f"{prefix}{row:03d}", f"{prefix}L{row // 2:03d}", CLASSES[index]) for row, index in enumerate(truth)]
    return with_logits(pd.DataFrame(rows, columns=["image_id", "lesion_id", "dx"]).assign(**PATIENT), logits)


def evaluate_metrics(tables: dict[str, pd.DataFrame], *, synthetic: bool) -> dict[str, Any]:
    """What metrics/evaluate.json holds of the tables, intervals a hundredth either way."""
    data = {"source": "sample" if synthetic else "local", "synthetic": synthetic}
    content: dict[str, Any] = {"data": data, "test_time": "none", "members": {"base-0": {}}}
    content["bootstrap"] = BOOTSTRAP | {"confidence": 0.95}
    for split, table in tables.items():
        values = figures(table)
        rates = {name: value for name, value in values.items() if isinstance(value, float)}
        intervals = {name: {"low": value - 0.01, "high": value + 0.01} for name, value in rates.items()}
        baseline = {"class": "nv", "accuracy": 0.125, "balanced_accuracy": 0.142857, "macro_auc": 0.5}
        content[split] = values | {"intervals": intervals, "majority_baseline": baseline}
    return content


def write(path: str, content: dict[str, Any] | str) -> None:
    """Write a text, or an object as JSON, below the working directory."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content if isinstance(content, str) else json.dumps(content, default=float), encoding="utf-8")


def set_source(*, synthetic: bool) -> None:
    """Say where the images come from."""
    provenance = {"source": "sample" if synthetic else "local", "synthetic": synthetic, "licence": "CC0-1.0", "counts": {}}
    write("data/raw/provenance.json", provenance)


def commit_to_dvc() -> None:
    """Tell DVC that the workspace is what the pipeline made."""
    subprocess.run([sys.executable, "-m", "dvc", "commit", "-q", "-f"], check=True)


def write_run(params: dict[str, Any]) -> None:
    """Write that workspace into the working directory; the images are real ones."""
    for name, content in (("params.yaml", params), ("dvc.yaml", PIPELINE)):
        with Path(name).open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(content, file)
    write(".dvc/config", "[core]\n    analytics = false\n    no_scm = true\n")
    write(".dvc/plots/per_class.json", (ROOT / ".dvc" / "plots" / "per_class.json").read_text(encoding="utf-8"))
    tables = {"val": prediction_table(1, "V"), "test": prediction_table(2, "T")}
    for split, table in tables.items():
        write(f"data/predictions/{split}.csv", table.to_csv(index=False))
    set_source(synthetic=False)
    rows = "".join(f"I{row},200,150,squash,none\n" for row in range(3))
    write("data/prepared/index.csv", f"image_id,width,height,fit,color_constancy\n{rows}")
    write("models/classifier/ensemble.json", ENSEMBLE)
    write("models/classifier/base-0/config.json", MEMBER_CONFIG)
    write("plots/evaluate/per_class.csv", "dx,f1,low,high,support\nmel,0.5,0.25,0.75,8\n")
    for name in ("train/base-0", "train/stale-0", "baselines", "failures", "neighbors"):
        write(f"metrics/{name}.json", {})
    metrics = {"threshold_sweep": SWEEP, "selective": SELECTIVE, "subgroups": SUBGROUPS, "gradcam": GRADCAM}
    metrics |= {"evaluate": evaluate_metrics(tables, synthetic=False), "split": {"fingerprint": "f00d"}}
    for name, content in metrics.items():
        write(f"metrics/{name}.json", content)
    write("data/failures/failures.csv", "image_id\n")
    write("plots/gradcam/images.csv", "image_id\n")
    Image.new("RGB", (8, 8)).save("plots/gradcam/index.png")
    write("report/index.html", "<!doctype html>")
    write("report/report.md", "# Report")
    commit_to_dvc()
