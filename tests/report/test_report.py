"""The stage `report`: its numbers are those of the metrics files, what is missing is said, and the page needs nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from skinlesion.audits import findings
from skinlesion.audits.findings import write_extra
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.report import checklist
from skinlesion.report.blocks import Figure
from skinlesion.report.evidence import NOT_APPLICABLE, OPEN, PARTLY, SATISFIED
from skinlesion.report.extras import EXTRAS
from skinlesion.report.figures import Plots
from skinlesion.report.formats import bounded, count, decimal, percent, rate
from skinlesion.report.inputs import METRIC_FILES, read_inputs
from stages import report
from tests.conftest import ROOT, WriteParams
from tests.report.plot_cases import write_tables

FINGERPRINT = "f" * 64
INTERVAL = {"low": 0.4, "high": 0.6}


def edit(path: str, *keys: str, value: Any) -> None:
    """Replace one value of a JSON file."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    write_json(Path(path), content)


def failures() -> dict[str, Any]:
    return {
        "split": "test",
        "min_confidence": 0.8,
        "images": 97,
        "errors": 24,
        "melanomas": {"images": 10, "lesions": 8},
        "missed_melanomas": {"images": 4, "lesions": 3},
        "confident_errors": {"images": 7, "lesions": 6},
    }


def neighbors() -> dict[str, Any]:
    """As the stage writes it, of numbers that no other file has."""
    bounds = {"low": 0.7071, "high": 0.8081}
    each = {"images": 9, "lesions": 8, "value": 0.7568, **bounds}
    return {
        "split": "test",
        "k": 5,
        "images": 97,
        "lesions": 72,
        "searched": {"images": 307, "lesions": 230},
        "bootstrap": {"draws": 1000, "unit": "lesion", "confidence": 0.95, "seed": 0},
        "share_of_truth": {"all": each, "by_class": {dx: each | {"training_lesions": 0.143} for dx in CLASSES}},
        "metrics": {"accuracy": {name: {"value": 0.7272, **bounds} for name in ("vote", "network", "difference")}},
        "agreement": {
            "agree": each | {"images": 83},
            "disagree": each | {"images": 14, "value": 0.4242},
            "difference": {"value": 0.3434, "low": 0.2121, "high": 0.4646},
        },
        "error_detection": {
            "neighbors": {"value": 0.7171, **bounds},
            "confidence": {"value": 0.7272, **bounds},
            "difference": {"value": -0.0101, "low": -0.0202, "high": 0.0303},
        },
    }


# Made here, so that what the sentences say of them is known.
MADE = {"failures": failures, "neighbors": neighbors}


@pytest.fixture
def run_folder(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace as a run of the sample leaves it: the metrics committed with the project, small files for the rest."""
    write_params()
    shutil.copy(ROOT / "dvc.yaml", workspace)
    shutil.copytree(ROOT / ".dvc" / "plots", workspace / ".dvc" / "plots")
    write_tables(workspace, shift=0)
    for name in METRIC_FILES:
        content = MADE[name]() if name in MADE else json.loads((ROOT / "metrics" / f"{name}.json").read_text(encoding="utf-8"))
        write_json(Path("metrics") / f"{name}.json", content)
    for name in ("split", "ensemble"):
        path = {"split": "metrics/split.json", "ensemble": "models/classifier/ensemble.json"}[name]
        if name == "ensemble":
            write_json(Path(path), ensemble())
        edit(path, "fingerprint", value=FINGERPRINT)
    write_json(Path("metrics/train/base-0.json"), trained())
    write_json(Path("models/classifier/base-0/config.json"), config())
    write_json(Path("models/operating_points.json"), operating_points())
    write_json(Path("data/splits/facts.json"), {"fingerprint": FINGERPRINT, "source": "sample", "synthetic": True})
    for name in ("train", "val", "test"):
        Path(f"data/splits/{name}.csv").touch()
    write_json(Path("data/raw/provenance.json"), provenance())
    write_groups()
    Path("data/predictions").mkdir(parents=True)
    Path("data/predictions/test.csv").write_text("predictions", encoding="utf-8")
    Path("data/prepared").mkdir(parents=True)
    Path("data/prepared/images.npy").write_text("images", encoding="utf-8")
    return workspace


@pytest.fixture
def quick(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with one small drawing for every plot, because Vega takes its time."""
    monkeypatch.setattr(Plots, "draw", lambda self, name: Figure(name, "<svg></svg>"))
    return run_folder


def ensemble() -> dict[str, Any]:
    member = {"name": "base-0", "member": "base", "seed": 0, "backbone": "resnet18", "epoch": 7, "needs_metadata": False}
    return {
        "members": [member],
        "vote": "mean of the members' probabilities",
        "needs_metadata": False,
        "size": 64,
        "fit": "squash",
        "color_constancy": "none",
        "images_sha256": "a" * 64,
    }


def trained() -> dict[str, Any]:
    return {
        "parameters": 11180103,
        "images": {"train": 307, "synthetic": 0, "val": 77},
        "epochs": 13,
        "best_epoch": 7,
        "val": {"macro_auc": 0.9439, "macro_f1": 0.5258},
    }


def config() -> dict[str, Any]:
    return {
        "backbone": "resnet18",
        "seed": 0,
        "params": {
            "weights": "none",
            "lr": 0.001,
            "class_weights": "sqrt_inverse",
            "sampler": "shuffle",
            "loss": "cross_entropy",
        },
        "weights_sha256": None,
        "git_commit": "c" * 40,
        "versions": {"python": "3.11.7", "torch": "2.11.0"},
    }


def operating_points() -> dict[str, Any]:
    point = {"rule": "recall", "constraint": 0.85, "threshold": 0.44, "val": {}}
    return {
        "target": "mel",
        "classes": ["mel"],
        "score": "sum",
        "rule": "flag",
        "chosen_on": "val",
        "points": {"recall_0.85": point},
    }


def provenance() -> dict[str, Any]:
    return {
        "source": "sample",
        "synthetic": True,
        "origin": "drawn",
        "files": [{"name": "metadata.csv", "bytes": 1, "md5": "d" * 32}],
        "licence": "CC0-1.0",
        "citation": "none",
        "counts": {"images": 481, "lesions": 360, "masks": 481, "dx_type": {"histo": 258, "follow_up": 223}},
    }


def write_groups(group: str = "male") -> None:
    metrics = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "mel_auc", "mel_sensitivity", "mel_specificity")
    rows = [("sex", group, m, 0.5125, 0.25, 0.75, 50, 42, 5, m.startswith("mel")) for m in metrics]
    header = ["attribute", "group", "metric", "value", "low", "high", "images", "lesions", "melanoma_lesions", "small"]
    Path("plots/subgroups").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=header).to_csv("plots/subgroups/groups.csv", index=False)


def write_report() -> tuple[str, str]:
    """Run the stage; the page and the short text."""
    report.main()
    return tuple(Path("report", name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))  # type: ignore[return-value]


class Page(HTMLParser):
    """What a browser would see of a page: its text outside of drawings, tags with attributes, cells of tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("svg", "style", "td", "th", "pre"):
            self._inside.append(tag)
            if tag in ("td", "th"):
                self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not {"svg", "style"} & set(self._inside):
            self.texts.append(data)
            if self._inside[-1:] in (["td"], ["th"]):
                self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def numbers_of(value: Any) -> Iterator[float]:
    """Every number of nested JSON, and numbers in its keys."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (float(number) for number in re.findall(r"\d+(?:\.\d+)?", key))
            yield from numbers_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers_of(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield abs(float(value))  # a sign is no part of what is looked for


def known_numbers() -> set[str]:
    """Every number of the files that the stage reads, as text with one to four decimals, as a count and in per cent."""
    files = [*Path("metrics").rglob("*.json"), *Path("models").rglob("*.json"), Path("data/raw/provenance.json")]
    numbers = {number for file in files for number in numbers_of(json.loads(file.read_text(encoding="utf-8")))}
    table = pd.read_csv("plots/subgroups/groups.csv").select_dtypes("number").to_numpy()
    numbers |= set(table.astype(float).ravel())
    written = {f"{number:.{digits}f}" for number in numbers for digits in range(5)}
    return (
        written
        | {f"{100 * number:.1f}" for number in numbers}
        | {f"{number:,.0f}" for number in numbers}
        | {f"{n:g}" for n in numbers}
    )


def test_every_number_is_of_a_file(run_folder: Path) -> None:
    html, markdown = write_report()
    known = known_numbers()
    # Means, standard deviations and sums are not computed here, so that what has a decimal point stands in a file.
    for text in (Page(html).text.partition("All parameters")[0], markdown):
        shown = re.findall(r"(?<![\w.])\d[\d,]*\.\d+(?![\w.]|\.\d)", text)
        assert len(shown) > 80
        assert [number for number in shown if number.replace(",", "") not in known and number not in known] == []


@pytest.mark.parametrize(
    ("file", "keys", "shown"),
    [
        ("evaluate", ("test", "macro_auc"), "both"),
        ("evaluate", ("test", "per_lesion", "mel_sensitivity"), "both"),
        ("evaluate", ("test", "intervals", "accuracy", "low"), "both"),
        ("evaluate", ("test", "majority_baseline", "accuracy"), "both"),
        ("evaluate", ("test", "ece_after"), "both"),
        ("evaluate", ("test", "per_class", "mel", "recall"), "page"),
        ("evaluate", ("test", "recalibration", "nv", "slope"), "page"),
        ("threshold_sweep", ("points", "recall_0.90", "test", "sensitivity"), "both"),
        ("threshold_sweep", ("points", "recall_0.90", "at_prevalence", "0.05", "ppv"), "page"),
        ("subgroups", ("histology_only", "macro_auc"), "both"),
        ("subgroups", ("worst", "macro_auc", "value"), "both"),
        ("selective", ("abstention", "0.8", "test", "accuracy"), "page"),
        ("selective", ("conformal", "0.9", "test", "coverage_mel"), "page"),
        ("baselines", ("metadata", "macro_auc"), "page"),
        ("gradcam", ("energy_ratio", "mean"), "page"),
        ("neighbors", ("share_of_truth", "by_class", "bcc", "value"), "page"),
        ("neighbors", ("metrics", "accuracy", "vote", "low"), "page"),
        ("neighbors", ("agreement", "disagree", "value"), "page"),
        ("neighbors", ("error_detection", "confidence", "value"), "page"),
        ("train/base-0", ("val", "macro_f1"), "page"),
    ],
)
def test_a_changed_metric_changes_the_report(quick: Path, file: str, keys: tuple[str, ...], shown: str) -> None:
    before = write_report()
    edit(f"metrics/{file}.json", *keys, value=7.54321)  # no metric is so large
    after = write_report()
    assert "7.543" not in before[0] + before[1]
    assert "7.543" in Page(after[0]).text
    assert ("7.543" in after[1]) == (shown == "both")


def test_an_interval_is_that_of_its_metric(quick: Path) -> None:
    for split, metric, name in (("test", "macro_f1", "macro F1"), ("test", "mel_sensitivity", "melanoma sensitivity")):
        edit("metrics/evaluate.json", split, "intervals", metric, value={"low": 0.0321, "high": 0.9876})
        (row,) = [line for line in write_report()[1].splitlines() if line.startswith(f"| {name} |") and "sex:" not in line][:1]
        assert "[0.032, 0.988]" in row.split("|")[2]
        edit("metrics/evaluate.json", split, "intervals", metric, value=INTERVAL)


def test_a_changed_count_changes_table_and_diagram(run_folder: Path) -> None:
    edit("metrics/failures.json", "missed_melanomas", "images", value=987)
    edit("metrics/split.json", "images", "val", value=4321)
    html, markdown = write_report()
    missed = "missed melanomas (another diagnosis is the most probable)"
    assert f"- {missed}: 987 of 10 images" in markdown and f"{missed} 987 of 10 images" in Page(html).text
    assert "4,321 images of 58 lesions" in html[html.index("<svg") :] and "4,321" in Page(html).cells


def test_the_page_needs_nothing_else_and_its_drawings_do_not_collide(run_folder: Path) -> None:
    html = write_report()[0]
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "img", "image", "iframe", "object", "embed"), tag
        for name, value in attributes.items():
            assert not name.startswith("on")
            if tag != "a" and name in ("src", "href", "xlink:href", "srcset", "data"):
                assert (value or "").startswith("#")
    assert "@import" not in html and not re.search(r"url\((?!#)", html) and "data:image" not in html
    named = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(named) == len(set(named)), "an id stands twice"
    asked = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    assert asked <= set(named), "a link or a clip path leads nowhere"
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) >= 10
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in drawings)


def test_it_says_so_on_top_where_the_images_are_synthetic(quick: Path) -> None:
    html, markdown = write_report()
    assert 'role="alert">Synthetic images' in html and "> **Synthetic images" in markdown
    edit("data/raw/provenance.json", "synthetic", value=False)
    edit("data/splits/facts.json", "synthetic", value=False)
    html, markdown = write_report()
    assert "Synthetic images" not in html + markdown and "Vienna" in html
    assert "Not for clinical use" in html and "Not for clinical use" in markdown


@pytest.mark.parametrize("name", METRIC_FILES)
def test_a_missing_metrics_file_is_named(quick: Path, name: str) -> None:
    Path(f"metrics/{name}.json").unlink()
    with pytest.raises(PipelineError, match=rf"metrics/{name}.json not found: run the stage that writes it first"):
        report.main()
    assert not Path("report").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("metrics/train/base-0.json", "metrics/train/base-0.json not found"),
        ("models/classifier/base-0/config.json", "config.json not found"),
        ("plots/evaluate/roc.csv", "plots/evaluate/roc.csv not found"),
        ("plots/subgroups/groups.csv", "groups.csv not found: run `subgroups` first"),
        ("dvc.yaml", "dvc.yaml not found in .*: run from the project's root"),
    ],
)
def test_other_missing_files_are_named(run_folder: Path, path: str, said: str) -> None:
    Path(path).unlink()
    with pytest.raises(PipelineError, match=said):
        report.main()


def test_a_classifier_of_another_split_is_refused(quick: Path) -> None:
    edit("models/classifier/ensemble.json", "fingerprint", value="0" * 64)
    with pytest.raises(PipelineError, match=r"the classifier is not of the lists in data/splits: run `dvc repro`"):
        report.main()


def test_a_plot_that_is_not_defined_is_refused(run_folder: Path) -> None:
    with pytest.raises(PipelineError, match="defines no plot 'nothing', which the report shows"):
        Plots().draw("nothing")


def test_hostile_strings_are_shown_and_not_run(quick: Path, write_params: WriteParams) -> None:
    hostile = "<script>alert('x')</script>|`<b>`"
    write_params({"split.links": hostile})
    write_groups(hostile)
    edit("metrics/threshold_sweep.json", "target", value=hostile)
    edit("data/raw/provenance.json", "citation", value=hostile)
    edit("metrics/subgroups.json", "worst", "accuracy", "group", value=hostile)
    html, markdown = write_report()
    assert "<script" not in html and "<b>" not in html
    assert html.count("&lt;script&gt;") >= 4 and "<script>alert" in Page(html).text
    assert "<script" not in markdown and "&lt;script&gt;alert('x')&lt;/script&gt;\\|" in markdown
    (row,) = [line for line in markdown.splitlines() if line.startswith("| accuracy | sex: &lt;")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 6  # five cells


def leak() -> dict[str, Any]:
    values = {"image_level": 0.911, "lesion_level": 0.822, "inflation": 0.089, "low": 0.01, "high": 0.17, "p": 0.031}
    group = {"images": 97, "lesions": 73, "melanoma_lesions": 8, "metrics": {"macro_auc": values, "accuracy": values}}
    return {
        "bootstrap": {"draws": 100, "unit": "lesion", "confidence": 0.9, "seed": 0},
        "siblings": {"image_level": {"images": 43, "share": 0.4433, "per_class": {"mel": {"images": 6, "share": 0.6}}}},
        "all": group,
        "with_siblings": group,
        "without_siblings": None,
    }


def robustness() -> dict[str, Any]:
    metrics = ("accuracy", "macro_auc", "mel_sensitivity", "ece")
    mean = {"mean": 0.711, "mean_low": 0.6, "mean_high": 0.8, "difference": -0.1}
    by_severity = {metric: {**mean, "by_severity": [0.7, 0.65]} for metric in metrics}
    return {
        "bootstrap": {"draws": 100, "unit": "lesion", "confidence": 0.9, "seed": 0},
        "severities": [1, 2],
        "clean": {**dict.fromkeys(metrics, 0.8), "intervals": dict.fromkeys(metrics, INTERVAL)},
        "corruptions": {"blur": {"strengths": [1, 2], **by_severity}},
        "mean_corruption": dict.fromkeys(metrics, mean),
        "worst": dict.fromkeys(metrics, "blur"),
    }


def external() -> dict[str, Any]:
    value = {"value": 0.733, "low": 0.6, "high": 0.8}
    sets = {name: {"macro_auc": value, "mel_sensitivity": value} for name in ("external", "test", "difference")}
    rates = {name: {"sensitivity": value, "specificity": value} for name in ("external", "test")}
    counts = {name: {"images": 50, "lesions": 40} for name in ("external", "internal")}
    return {
        "data": {"source": "sample", "synthetic": True},
        "proof": {**counts, "shared": {"image_id": 0, "pixels": 0}},
        "bootstrap": {"draws": 100, "unit": "lesion", "confidence": 0.9, "seed": 0},
        "compared": sets,
        "operating_points": {"target": "mel", "points": {"youden": {"threshold": 0.3, **rates}}},
    }


def near_duplicates() -> dict[str, Any]:
    return {
        "images": 481,
        "candidates": {"pairs": 900, "same_dx": 700, "different_dx": 200},
        "accepted": {"pairs": 13, "same_dx": 12, "different_dx": 1, "mirrored": 0, "by_dx": {"mel": 5, "nv": 7}},
        "crossing_the_split": {"train-val": 1, "train-test": 2},
        "known_siblings": {"pairs": 121, "reached": 0.9, "verified": 0.85, "recall_on_known_siblings": 0.812},
        "false_matches": {"expected_among_same_dx": 3.5},
    }


def export() -> dict[str, Any]:
    value = {"value": 0.733, "low": 0.6, "high": 0.8}
    parity = {"largest_difference": 2.5e-6, "same_diagnosis": 1.0, "same_flag": {"youden": 0.99}}
    metrics = {"macro_auc": value, "sensitivity@youden": value}
    speeds = {"p50_ms": 8.25, "p95_ms": 9.0, "images_per_second": 121.2, "times_torch": 3.3}
    return {
        "images": 50,
        "bytes": {"torch": 45_000_000, "float32": 44_700_000, "int8": 11_300_000},
        "parity": {"float32": parity, "int8": parity | {"largest_difference": 0.046}},
        "bootstrap": {"draws": 100, "unit": "lesion", "confidence": 0.9, "seed": 0},
        "compared": {"torch": metrics, "int8": metrics, "difference": {name: dict.fromkeys(value, -0.01) for name in metrics}},
        "speed": {"cpu": "a CPU", "threads": 2, "load_before": 0.1, "batches": {"1": {"torch": speeds, "int8": speeds}}},
    }


# What an extra found, what it is of, and some of its facts.
FOUND: dict[str, tuple[Callable[[], dict[str, Any]], list[str], dict[str, str]]] = {
    "leak": (
        leak,
        ["images", "recipe"],
        {
            "test images with a sibling in training, dealt by images": "44.3 %",
            "melanomas of test with one": "60.0 %",
            "macro AUC, inflation in all test images": "+0.089 [+0.010, +0.170]",
        },
    ),
    "near_duplicates": (
        near_duplicates,
        ["images"],
        {
            "pairs of one diagnosis under two lesion ids, taken for views of one lesion": "12",
            "pairs across the split": "3",
            "pairs across the split, by lists": "train-val 1, train-test 2",
        },
    ),
    "robustness": (
        robustness,
        ["predictions"],
        {"macro AUC, mean over them": "0.711 [0.600, 0.800]", "macro AUC, clean": "0.800"},
    ),
    "external": (external, ["predictions"], {"images / lesions": "50 / 40", "macro AUC": "0.733 [0.600, 0.800]"}),
    "export": (
        export,
        ["predictions"],
        {
            "largest difference of a probability from torch's, ONNX, float32": "2.5e-06",
            "largest difference of a probability from torch's, ONNX, int8": "0.046",
            "macro AUC of int8 less torch": "-0.010 [-0.010, -0.010]",
        },
    ),
}


def test_extras_that_were_not_run_are_named_with_their_command(quick: Path) -> None:
    html, markdown = write_report()
    for name in EXTRAS:
        command = f"dvc repro extras/dvc.yaml:{name.replace('_', '-')}"
        assert f"Not run. <code>{command}</code>" in html and f"Not run. `{command}`" in markdown


@pytest.mark.parametrize("name", EXTRAS)
def test_what_an_extra_found_stands_in_the_report(quick: Path, name: str) -> None:
    content, of, facts = FOUND[name]
    write_extra(name, content(), of=of)
    html, markdown = write_report()
    for fact, text in facts.items():
        assert f"{fact} {text}" in Page(html).text.replace("\xa0", " ")
        assert f"- {EXTRAS[name][0]}, {fact}: {text}\n" in markdown.replace("\xa0", " ")
    assert "Outdated" not in html + markdown and "another layout" not in html


@pytest.mark.parametrize("name", EXTRAS)
def test_an_outdated_extra_is_shown_with_a_warning(quick: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content, of, facts = FOUND[name]
    write_extra(name, content(), of=of)
    monkeypatch.setitem(findings._DIGESTS, of[-1], lambda: "0" * 64)
    html, markdown = write_report()
    assert 'role="note">Outdated: measured with other' in html and "Outdated: measured with other" in markdown
    for fact, text in facts.items():
        assert f"{fact} {text}" in Page(html).text.replace("\xa0", " ")


def test_an_extra_of_unknown_layout_is_shown_as_it_stands(quick: Path) -> None:
    write_extra("leak", {"something": {"else": 0.4321}}, of=["images"])
    page = Page(write_report()[0])
    assert "metrics/extras/leak.json" in page.text and "another layout" in page.text
    assert '"something": { "else": 0.4321 }' in page.text


def statuses(key: str) -> dict[str, str]:
    """The status of each item of a checklist by number."""
    items = checklist.CHECKLISTS[key][1]
    return {number: answer.status for number, _, answer in checklist.answers(items, read_inputs())}


def test_the_checklists_have_their_items() -> None:
    assert [number for number, *_ in checklist.CLAIM] == [str(number) for number in range(1, 45)]
    assert list(dict.fromkeys(int(re.sub(r"\D", "", number)) for number, *_ in checklist.TRIPOD)) == list(range(1, 28))


def test_a_status_is_what_the_run_has(quick: Path) -> None:
    before = statuses("claim")
    assert (before["30"], before["33"], before["27"], before["31"]) == (OPEN, OPEN, NOT_APPLICABLE, SATISFIED)
    assert before["34"] == before["44"] == OPEN and statuses("tripod")["13"] == SATISFIED
    write_extra("robustness", robustness(), of=["predictions"])
    write_extra("external", external(), of=["predictions"])
    edit("metrics/gradcam.json", "energy_ratio", value=None)
    edit("models/classifier/base-0/config.json", "params", value={"weights": "imagenet"})
    Path("plots/split/age.csv").unlink()
    after = statuses("claim")
    assert (after["30"], after["33"], after["31"], after["24"], after["36"]) == (SATISFIED, PARTLY, PARTLY, PARTLY, OPEN)
    assert statuses("tripod")["13"] == NOT_APPLICABLE
    Path("data/predictions/test.csv").write_text("others", encoding="utf-8")
    assert statuses("claim")["30"] == PARTLY


def test_a_commit_that_was_edited_does_not_satisfy(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for commit, status in (("c" * 40, SATISFIED), (f"{'c' * 40}-dirty", PARTLY), (None, OPEN)):
        monkeypatch.setattr("skinlesion.report.inputs.git_commit", lambda commit=commit: commit)
        assert statuses("claim")["42"] == status
        assert f"code: `{commit or 'unknown'}`" in write_report()[1]


def test_a_run_without_masks_histology_or_intervals_is_told_as_such(quick: Path) -> None:
    edit("metrics/gradcam.json", "energy_ratio", value=None)
    edit("metrics/subgroups.json", "histology_only", value=None)
    for metric in ("accuracy", "mel_auc"):
        edit("metrics/subgroups.json", "worst", metric, value=None)
    html, markdown = write_report()
    assert "no lesion masks" in html and "No test image is proven by histology" in html
    assert "No test image is proven by histology" in markdown and "none is large enough" in markdown


def test_what_the_neighbours_tell_stands_with_its_interval(quick: Path) -> None:
    edit("metrics/neighbors.json", "error_detection", "difference", value={"value": -0.2, "low": -0.3, "high": -0.1})
    page = Page(write_report()[0])
    cells = [cell.replace("\xa0", " ") for cell in page.cells]
    for row in (
        ["the vote agrees with the network", "83", "0.757 [0.707, 0.808]"],
        ["it does not", "14", "0.424 [0.707, 0.808]"],
        ["difference", "\u2013", "+0.343 [+0.212, +0.465]"],
        ["the network's confidence", "0.727 [0.707, 0.808]", "difference", "-0.200 [-0.300, -0.100]"],
    ):
        assert any(cells[start : start + len(row)] == row for start in range(len(cells))), row
    assert "training lesions, each by its nearest image 230" in page.text


def test_several_networks_are_told_one_by_one(quick: Path) -> None:
    two = ensemble()
    two["members"] += [{**two["members"][0], "name": "base-1", "seed": 1}]
    write_json(Path("models/classifier/ensemble.json"), {**two, "fingerprint": FINGERPRINT})
    write_json(Path("models/classifier/base-1/config.json"), {**config(), "seed": 1})
    write_json(
        Path("metrics/train/base-1.json"), {**trained(), "best_epoch": 11, "images": {"train": 307, "synthetic": 40, "val": 77}}
    )
    edit("metrics/train/base-0.json", "images", "synthetic", value=40)
    members = json.loads(Path("metrics/evaluate.json").read_text(encoding="utf-8"))["members"]
    edit("metrics/evaluate.json", "members", value={**members, "base-1": {"test": dict.fromkeys(["macro_auc"], 0.4567)}})
    page = Page(write_report()[0])
    assert "2 networks averaged" in page.text and "0.457" in page.cells and "11" in page.cells
    assert statuses("claim")["27"] == SATISFIED
    assert "+ 40 drawn by a VAE" in Path("report/index.html").read_text(encoding="utf-8")


def test_numbers_are_written_in_one_way() -> None:
    assert rate(0.75258, {"low": 0.65, "high": 0.8539}) == "0.753 [0.650,\xa00.854]"
    assert rate(None, INTERVAL) == decimal(None) == count(None) == percent(None) == "\u2013"
    assert rate(0.5, {"low": None, "high": None}) == rate(0.5) == "0.500"
    assert bounded({"value": -0.0123, "low": -0.1, "high": 0.2}, signed=True) == "-0.012 [-0.100,\xa0+0.200]"
    assert (count(10015), percent(0.1234), decimal(13.5862, digits=1)) == ("10,015", "12.3 %", "13.6")


def test_two_reports_on_one_run_are_equal(run_folder: Path) -> None:
    assert write_report() == write_report()
    assert {path.name for path in Path("report").iterdir()} == {"index.html", "report.md"}


def test_a_small_group_is_marked_cell_by_cell(quick: Path) -> None:
    cells = Page(write_report()[0]).cells
    row = cells[cells.index("sex: male", cells.index("melanoma lesions")) :][:9]
    assert row[:4] == ["sex: male", "50", "42", "5"]
    assert [cell.endswith("\xa0*") for cell in row[4:9]] == [False, False, True, True, True]
    assert np.all([cell.startswith("0.512 [0.250,") for cell in row[4:9]])
    assert set(CLASSES) <= set(cells)


@pytest.mark.parametrize(
    ("path", "keys", "said"),
    [
        ("metrics/evaluate.json", ("bootstrap", "draws"), "metrics/evaluate.json, bootstrap lacks 'draws'"),
        ("metrics/split.json", ("class_counts",), "metrics/split.json lacks 'class_counts'"),
        ("metrics/train/base-0.json", ("epochs",), "metrics/train/base-0.json lacks 'epochs'"),
        ("data/raw/provenance.json", ("licence",), "data/raw/provenance.json: licence: missing"),
        ("models/classifier/ensemble.json", ("members",), "ensemble.json: members: missing: run `assemble` again"),
    ],
)
def test_a_number_that_is_missing_is_named(run_folder: Path, path: str, keys: tuple[str, ...], said: str) -> None:
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    write_json(Path(path), content)
    with pytest.raises(PipelineError, match=said):
        report.main()
