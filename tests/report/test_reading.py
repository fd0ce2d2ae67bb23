"""The sentences on a recorded run: their numbers are those of its metrics, and their words follow the numbers."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tools import reading
from tools.records import list_records

RECORDS = [pytest.param(path, id=path.name) for path in list_records(ROOT / "results")]


def numbers_in(content: Any) -> Iterator[float]:
    """Every number in nested JSON."""
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from numbers_in(value)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield float(content)


@pytest.mark.parametrize("folder", RECORDS)
def test_every_figure_of_the_sentences_is_one_of_the_metrics(folder: Path) -> None:
    metrics = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "metrics").rglob("*.json"))]
    known = {f"{number:.3f}" for number in numbers_in(metrics)}
    said = " ".join(reading.read_run(folder))
    figures = re.findall(r"-?[0-9]+\.[0-9]{3}", said)
    assert figures and set(figures) <= known


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


def test_histology_and_the_worst_group() -> None:
    said = reading.histology_sentence(SUBGROUPS)
    assert "1,200 test images (800 lesions)" in said and "0.750 [0.700, 0.800]" in said and "prop up" in said
    better = copy.deepcopy(SUBGROUPS)
    better["all"]["accuracy"] = 0.7
    assert "prop up" not in reading.histology_sentence(better)
    assert "No test image" in reading.histology_sentence(SUBGROUPS | {"histology_only": None})
    said = reading.worst_group_sentence(SUBGROUPS)
    assert "lowest in age below 30, 0.250 [0.100, 0.400] (12 melanoma lesions)" in said and "macro AUC" not in said
    assert "too small" in reading.worst_group_sentence(SUBGROUPS | {"worst": dict.fromkeys(SUBGROUPS["worst"])})


@pytest.mark.parametrize(
    ("sensitivity", "high", "words"),
    [
        (0.9, 0.95, "which keeps what was asked"),
        (0.89, 0.95, "falls short of it, by no more than chance explains"),
        (0.8, 0.85, "which falls short of it, at"),
        (0.8, None, "which falls short of it, at"),
    ],
)
def test_whether_a_threshold_keeps_what_it_was_chosen_for(sensitivity: float, high: float | None, words: str) -> None:
    test = {"sensitivity": sensitivity, "specificity": 0.7, "flagged": 0.3, "precision": 0.2}
    interval = {"low": None if high is None else 0.7, "high": high}
    point = {"rule": "recall", "constraint": 0.9, "test": test, "intervals": {"sensitivity": interval}}
    other = point | {"constraint": 0.85, "test": test | {"specificity": 0.1}}
    said = reading.threshold_sentence({"target": "mel", "points": {"a": other, "b": point}})
    assert words in said and "at least 0.90" in said and "specificity of 0.700" in said


def test_the_leak_and_abstention() -> None:
    gain = {"inflation": 0.05, "low": -0.01, "high": 0.1}
    leak = {
        "recipe": {"backbone": "resnet18", "epochs": 5, "seeds": [0, 1]},
        "siblings": {"image_level": {"share": 0.375}},
        "all": {"metrics": {"accuracy": gain, "macro_auc": gain, "mel_sensitivity": gain | {"inflation": -0.02}}},
        "with_siblings": {"metrics": {"accuracy": gain | {"inflation": 0.125}}},
        "without_siblings": None,
    }
    said = reading.leak_sentence(leak)
    assert "38% of the test images" in said and "accuracy by +0.050 [-0.010, +0.100]" in said
    assert "melanoma sensitivity by -0.020" in said and "2 trainings of each kind" in said
    assert "+0.125 [-0.010, +0.100] where there is a sibling, and by - where there is none" in said
    said = reading.selective_sentence(SELECTIVE)
    assert "surest 60% of validation" in said and "0.700 of test" in said and "0.100 [0.090, 0.110] of all melanomas" in said
