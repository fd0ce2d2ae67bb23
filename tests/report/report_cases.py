"""A run of the sample for the report, the report written from it, and what the extras may have found."""

import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.base.files import read_json, write_json
from skinlesion.report.inputs import METRIC_FILES
from stages import report
from tests.conftest import ROOT
from tests.report.plot_cases import write_tables

FINGERPRINT = "f" * 64
INTERVAL = {"low": 0.4, "high": 0.6}
MISSING = object()
COUNTS = {"images": 481, "lesions": 360, "masks": 481, "dx_type": {"histo": 258, "follow_up": 223}}

# What a run leaves, beside tables and the metrics committed with the project, as far as the report reads it.
WRITTEN: dict[str, dict[str, Any]] = {
    "models/classifier/ensemble.json": {
        "members": [{"name": "base-0", "backbone": "resnet18"}],
        "vote": "mean of the members' probabilities",
        "needs_metadata": False,
        "size": 64,
        "fit": "squash",
        "color_constancy": "none",
        "fingerprint": FINGERPRINT,
        "images_sha256": "a" * 64,
    },
    "models/classifier/base-0/config.json": {
        "backbone": "resnet18",
        "seed": 0,
        "params": {"weights": "none", "lr": 0.001, "class_weights": "sqrt_inverse"}
        | {"sampler": "shuffle", "loss": "cross_entropy"},
        "weights_sha256": None,
        "git_commit": "c" * 40,
        "versions": {"python": "3.11.7", "torch": "2.11.0"},
    },
    "data/splits/facts.json": {"fingerprint": FINGERPRINT, "source": "sample", "synthetic": True},
    "data/raw/provenance.json": {"source": "sample", "synthetic": True, "origin": "drawn", "licence": "CC0-1.0"}
    | {"citation": "none", "files": [{"name": "metadata.csv", "bytes": 1, "md5": "d" * 32}], "counts": COUNTS},
}


def edit(path: str, *keys: str, value: Any) -> None:
    """Replace one value of a JSON file, or remove it (`MISSING`)."""
    content = place = read_json(Path(path))
    for key in keys[:-1]:
        place = place[key]
    if value is MISSING:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    write_json(Path(path), content)


def write_run(workspace: Path) -> None:
    """A workspace as a run of the sample leaves it: the metrics committed with the project, small files for the rest."""
    shutil.copy(ROOT / "dvc.yaml", workspace)
    shutil.copytree(ROOT / ".dvc" / "plots", workspace / ".dvc" / "plots")
    write_tables(workspace, shift=0)
    write_groups()
    for name in (*METRIC_FILES, "train/base-0"):
        write_json(Path(f"metrics/{name}.json"), read_json(ROOT / "metrics" / f"{name}.json"))
    edit("metrics/split.json", "fingerprint", value=FINGERPRINT)
    for path, content in WRITTEN.items():
        write_json(Path(path), content)
    for path in (*(f"data/splits/{name}.csv" for name in ("train", "val", "test")), "data/predictions/test.csv"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    Path("data/prepared").mkdir()
    Path("data/prepared/images.npy").touch()


def write_groups(group: str = "male") -> None:
    metrics = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "mel_auc", "mel_sensitivity", "mel_specificity")
    rows = [("sex", group, m, 0.5125, 0.25, 0.75, 50, 42, 5, m.startswith("mel")) for m in metrics]
    header = ["attribute", "group", "metric", "value", "low", "high", "images", "lesions", "melanoma_lesions", "small"]
    pd.DataFrame(rows, columns=header).to_csv("plots/subgroups/groups.csv", index=False)


def write_report() -> tuple[str, str]:
    """Run the stage; the page and the short text."""
    report.main()
    return Path("report/index.html").read_text(encoding="utf-8"), Path("report/report.md").read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a browser would see of a page: its tags with attributes, its text outside of drawings, the cells of its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        shown = re.sub(r"<(svg|style)\b.*?</\1>", "", html, flags=re.DOTALL)
        self.text = " ".join(unescape(re.sub(r"<[^>]*>", " ", shown)).split())
        cells = re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", shown, flags=re.DOTALL)
        self.cells = [unescape(re.sub(r"<[^>]*>", "", cell)) for cell in cells]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def values(self, tag: str, attribute: str) -> list[str | None]:
        return [attributes.get(attribute) for name, attributes in self.tags if name == tag]


BOOTSTRAP = {"draws": 100, "unit": "lesion", "confidence": 0.9, "seed": 0}
VALUE = {"value": 0.733, "low": 0.6, "high": 0.8}
INFLATION = {"image_level": 0.911, "lesion_level": 0.822, "inflation": 0.089, "low": 0.01, "high": 0.17, "p": 0.031}
GROUP = {"images": 97, "lesions": 73, "melanoma_lesions": 8, "metrics": {"macro_auc": INFLATION, "accuracy": INFLATION}}
CORRUPTED = ("accuracy", "macro_auc", "mel_sensitivity", "ece")
MEAN = {"mean": 0.711, "mean_low": 0.6, "mean_high": 0.8, "difference": -0.1}
RATES = {"sensitivity": VALUE, "specificity": VALUE}
MEASURED = {"macro_auc": VALUE, "sensitivity@youden": VALUE}
PARITY = {"largest_difference": 2.5e-6, "same_diagnosis": 1.0, "same_flag": {"youden": 0.99}}
SPEED = {"p50_ms": 8.25, "p95_ms": 9.0, "images_per_second": 121.2, "times_torch": 3.3}

# What each extra found, what it is of, and some of the facts that the report tells of it.
FOUND: dict[str, tuple[dict[str, Any], list[str], dict[str, str]]] = {
    "leak": (
        {"bootstrap": BOOTSTRAP, "all": GROUP, "with_siblings": GROUP, "without_siblings": None}
        | {"siblings": {"image_level": {"images": 43, "share": 0.4433, "per_class": {"mel": {"images": 6, "share": 0.6}}}}},
        ["images", "recipe"],
        {
            "test images with a sibling in training, dealt by images": "44.3 %",
            "melanomas of test with one": "60.0 %",
            "macro AUC, inflation in all test images": "+0.089 [+0.010, +0.170]",
        },
    ),
    "near_duplicates": (
        {
            "images": 481,
            "candidates": {"pairs": 900, "same_dx": 700, "different_dx": 200},
            "accepted": {"pairs": 13, "same_dx": 12, "different_dx": 1, "mirrored": 0, "by_dx": {"mel": 5, "nv": 7}},
            "crossing_the_split": {"train-val": 1, "train-test": 2},
            "known_siblings": {"pairs": 121, "reached": 0.9, "verified": 0.85, "recall_on_known_siblings": 0.812},
            "false_matches": {"expected_among_same_dx": 3.5},
        },
        ["images"],
        {
            "pairs of one diagnosis under two lesion ids, taken for views of one lesion": "12",
            "pairs across the split": "3",
            "pairs across the split, by lists": "train-val 1, train-test 2",
        },
    ),
    "robustness": (
        {
            "bootstrap": BOOTSTRAP,
            "severities": [1, 2],
            "clean": {**dict.fromkeys(CORRUPTED, 0.8), "intervals": dict.fromkeys(CORRUPTED, INTERVAL)},
            "corruptions": {"blur": {"strengths": [1, 2], **dict.fromkeys(CORRUPTED, MEAN | {"by_severity": [0.7, 0.65]})}},
            "mean_corruption": dict.fromkeys(CORRUPTED, MEAN),
            "worst": dict.fromkeys(CORRUPTED, "blur"),
        },
        ["predictions"],
        {"macro AUC, mean over them": "0.711 [0.600, 0.800]", "macro AUC, clean": "0.800"},
    ),
    "external": (
        {
            "data": {"source": "sample", "synthetic": True},
            "proof": {"external": {"images": 50, "lesions": 40}, "shared": {"image_id": 0, "pixels": 0}},
            "bootstrap": BOOTSTRAP,
            "compared": {name: {"macro_auc": VALUE, "mel_sensitivity": VALUE} for name in ("external", "test", "difference")},
            "operating_points": {"target": "mel", "points": {"youden": {"threshold": 0.3, "external": RATES, "test": RATES}}},
        },
        ["predictions"],
        {"images / lesions": "50 / 40", "macro AUC": "0.733 [0.600, 0.800]"},
    ),
    "export": (
        {
            "images": 50,
            "bytes": {"torch": 45_000_000, "float32": 44_700_000, "int8": 11_300_000},
            "parity": {"float32": PARITY, "int8": PARITY | {"largest_difference": 0.046}},
            "bootstrap": BOOTSTRAP,
            "compared": dict.fromkeys(("torch", "int8"), MEASURED)
            | {"difference": dict.fromkeys(MEASURED, dict.fromkeys(VALUE, -0.01))},
            "speed": {"cpu": "a CPU", "threads": 2, "load_before": 0.1, "batches": {"1": {"torch": SPEED, "int8": SPEED}}},
        },
        ["predictions"],
        {
            "largest difference of a probability from torch's, ONNX, float32": "2.5e-06",
            "largest difference of a probability from torch's, ONNX, int8": "0.046",
            "macro AUC of int8 less torch": "-0.010 [-0.010, -0.010]",
        },
    ),
}
