"""The plots of both dvc.yaml, filled by DVC itself from small tables, with one revision and two; and the page of them all."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import urllib.parse
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from ruamel.yaml import YAML

from skinlesion.base.errors import PipelineError
from skinlesion.diagnoses import CLASSES
from skinlesion.report.vega import VEGA_LITE
from tests.conftest import ROOT
from tools.dvc_commands import run_dvc_json
from tools.plots_page import SYNTHETIC, banner, link_to_cases, write_page

TEMPLATES = sorted((ROOT / ".dvc" / "plots").glob("*.json"))
DECLARED: dict[str, dict[str, Any]] = {"dvc.yaml": {}, "extras/dvc.yaml": {}}
for declaring, plots in DECLARED.items():
    for entry in YAML(typ="safe", pure=True).load((ROOT / declaring).read_text(encoding="utf-8")).get("plots", []):
        plots.update(entry if isinstance(entry, dict) else {entry: None})
DEFINITIONS = {name: definition for plots in DECLARED.values() for name, definition in plots.items()}
VEGA_PLOTS = [name for name, definition in DEFINITIONS.items() if definition]
METRIC_CURVES = ("macro_f1", "balanced_accuracy", "accuracy", "mel_recall", "macro_auc")
EPOCHS = ((1, 0.5), (2, 0.75), (3, "nan"))

Table = tuple[str, Iterable[Iterable[object]]]


def small_tables(shift: int) -> dict[str, Table]:
    """Every table that the plots read, by path: header and rows. `shift` tells one revision from another."""
    splits = ("train", "val", "test")
    rates = "sensitivity,specificity,precision,f1,flagged"
    bounds = "sensitivity,sensitivity_low,sensitivity_high,specificity,specificity_low,specificity_high,precision,f1,flagged"
    steps = [0.0, 0.5, 1.0]
    tables: dict[str, Table] = {
        "plots/split/classes.csv": (
            "split,dx,images,share",
            [(split, dx, 1000 + row + shift, 0.1) for split in splits for row, dx in enumerate(CLASSES)],
        ),
        "plots/split/age.csv": (
            "split,age,images,share",
            [(split, age, 7, 0.25) for split in splits for age in (0, 5, 10, "unknown")],
        ),
        "plots/split/sex.csv": (
            "split,sex,images,share",
            [(split, sex, 7, 0.5) for split in splits for sex in ("female", "male")],
        ),
        "plots/split/localization.csv": (
            "split,localization,images,share",
            [(split, "lower extremity", 7, 1) for split in splits],
        ),
        "plots/evaluate/confusion.csv": (
            "actual,predicted,images,share",
            # Shares over the whole scale; vasc is absent, so its shares are undefined.
            [
                (actual, predicted, 10 * row * column, "" if actual == "vasc" else (7 * row + column) / 41)
                for row, actual in enumerate(CLASSES)
                for column, predicted in enumerate(CLASSES)
            ],
        ),
        # Not in the order of the curve, with ties on both axes.
        "plots/evaluate/roc.csv": (
            "dx,false_positive_rate,true_positive_rate",
            [(dx, x, y) for dx in CLASSES for x, y in ((1, 1), (0, 0.5), (0.25, 1), (0, 0), (0.25, 0.5))],
        ),
        "plots/evaluate/precision_recall.csv": (
            "dx,recall,precision",
            [(dx, x, y) for dx in CLASSES for x, y in ((1, 0.25), (0, 1), (0.5, 1), (1, 0.75), (0.5, 0.5))],
        ),
        "plots/evaluate/reliability.csv": (
            "calibration,bin,confidence,accuracy,images",
            [(when, row, step, step, 3) for when in ("before", "after") for row, step in enumerate(steps)],
        ),
        "plots/evaluate/reliability_per_class.csv": (
            "dx,bin,probability,share,images",
            [(dx, row, step, step / 2, 3) for dx in CLASSES for row, step in enumerate(steps)],
        ),
        "plots/evaluate/confidence.csv": (
            "outcome,confidence,images",
            [(outcome, 0.125 + step / 4, 5) for outcome in ("correct", "wrong") for step in range(4)],
        ),
        "plots/evaluate/per_class.csv": (
            "dx,f1,low,high,support",
            [(dx, "", "", "", 0) if dx == "df" else (dx, 0.5 + shift / 8, 0.25, 0.75, 12) for dx in CLASSES],
        ),
        "plots/threshold_sweep/curve.csv": (
            f"split,threshold,{rates}",
            [(split, step, 1 - step, step, 0.5, 0.5, 1 - step) for split in ("val", "test") for step in steps],
        ),
        "plots/threshold_sweep/operating_points.csv": (
            f"point,split,threshold,{bounds}",
            [
                (point, split, 0.25, 0.9, *(("", "") if split == "val" else (0.8, 1)), 0.7, 0.65, 0.75, 0.5, 0.6, 0.4)
                for point in ("recall_0.90", "youden")
                for split in ("val", "test")
            ],
        ),
        "plots/threshold_sweep/decision_curve.csv": (
            "strategy,threshold_probability,net_benefit",
            [(name, 0.1 + step / 2, 0.1 - step / 5) for name in ("classifier", "flag all", "flag none") for step in steps],
        ),
        "plots/baselines/models.csv": (
            "model,metric,value,low,high",
            [(model, name, 0.5, 0.2, 0.7) for model in ("metadata", "colors", "classifier") for name in ("accuracy", "macro_f1")],
        ),
        "plots/selective/risk_coverage.csv": (
            "split,coverage,risk,confidence",
            [(split, step, step / 4, 1 - step) for split in ("val", "test") for step in steps],
        ),
        "plots/selective/set_sizes.csv": (
            "level,size,images,share",
            [(level, size, 9, 1 / 7) for level in (0.9, 0.95) for size in range(1, 8)],
        ),
        "plots/subgroups/groups.csv": (
            "attribute,group,metric,value,low,high,images,lesions,melanoma_lesions,small",
            [
                (attribute, group, metric, *(("", "", "") if group == "face" else (0.5, 0.25, 0.75)), 9, 7, 3, group == "back")
                for attribute, group in (("sex", "male"), ("localization", "back"), ("localization", "face"))
                for metric in ("accuracy", "balanced_accuracy", "mel_auc", "mel_sensitivity")
            ],
        ),
        "plots/extras/near_duplicates/scores.csv": (
            "pairs,score,share",
            [(kind, score, 1 / (1 + score)) for kind in ("one lesion id", "two ids, one diagnosis") for score in (0, 5, 20)],
        ),
        "plots/extras/robustness/metrics.csv": (
            "corruption,severity,strength,metric,value,value_low,value_high",
            [
                (kind, severity, "" if severity == 0 else 7, metric, 0.9 - severity / 10, 0.4, "" if kind == "hue" else 0.95)
                for kind in ("hue", "blur")
                for severity in (0, 1, 2)
                for metric in ("accuracy", "macro_f1", "ece")
            ],
        ),
        "plots/extras/robustness/operating_points.csv": (
            "corruption,severity,strength,point,threshold,sensitivity,sensitivity_low,sensitivity_high,specificity,specificity_low,"
            "specificity_high",
            [
                ("blur", severity, 0.1, point, 0.5, 0.8, 0.7, 0.9, *(("", "", "") if point == "youden" else (0.6, 0.5, 0.7)))
                for severity in (0, 5)
                for point in ("recall_0.90", "youden")
            ],
        ),
        "plots/gradcam/energy.csv": (
            "image_id,dx,outcome,energy_ratio",
            [(f"I{row}", dx, "correct", 0.5 + row) for dx in ("mel", "nv") for row in range(4)],
        ),
        "plots/gradcam/faithfulness.csv": (
            "method,grouping,group,measure,of,value,low,high,images",
            [
                (method, "all", "all images", measure, of, 0.5 + shift / 8, *(bounds if of == "map" else ("", "")), 9)
                for method, bounds in (("GradCAM", (0.25, 0.75)), ("CAM", (0.5, 0.625)))
                for measure, of in (("energy", "map"), ("energy", "other"), ("pointing", "map"), ("pointing", "center"))
            ],
        ),
        "plots/gradcam/groups.csv": (
            "method,grouping,group,measure,of,value,low,high,images",
            [
                ("GradCAM", "class", dx, "deletion", of, 0.5, *((0.25, 0.75) if of == "map" else ("", "")), 9)
                for dx in CLASSES
                for of in ("map", "random", "center")
            ],
        ),
        "plots/gradcam/curves.csv": (
            "curve,order,share,probability",
            [
                (curve, order, x, 1 - x)
                for curve in ("deletion", "insertion")
                for order in ("CAM", "random", "center")
                for x in steps
            ],
        ),
        "plots/gradcam/sanity.csv": (
            "method,compared_with,correlation,low,high",
            [
                (method, name, 0.25, *(("", "") if name == "head" else (0.125, 0.375)))
                for method in ("GradCAM", "CAM")
                for name in ("mirrored image", "head", "last quarter", "last half", "last three quarters", "all layers")
            ],
        ),
        "plots/neighbors/by_class.csv": (
            "dx,share,low,high,support,training_lesions",
            [(dx, *(("", "", "") if dx == "vasc" else (0.5, 0.25, 0.75)), 7, 0.1) for dx in CLASSES],
        ),
        "plots/extras/leak/inflation.csv": (
            "group,metric,image_level,lesion_level,inflation,low,high,p,images,lesions,melanoma_lesions",
            [
                (group, metric, 0.8, 0.7, *(("", "", "") if empty else (0.1, -0.05, 0.2)), "" if empty else 0.2, 9, 7, 3)
                for group in ("all", "with_siblings", "without_siblings")
                for metric in ("accuracy", "mel_sensitivity")
                for empty in [group == "without_siblings" and metric == "mel_sensitivity"]
            ],
        ),
    }
    for table, names in {
        "metrics": ("accuracy", "macro_f1"),
        "recall": ("df", "mel"),
        "operating_points": ("youden: f1",),
    }.items():
        tables[f"plots/extras/external/{table}.csv"] = (
            "set,metric,value,low,high",
            # The external set has no dermatofibroma.
            [
                (name, metric, *(("", "", "") if (name, metric) == ("external", "df") else (0.5, 0.2, 0.7)))
                for metric in names
                for name in ("external", "internal test")
            ],
        )
    curves = {
        "loss": ["train/loss", "val/loss"],
        "metrics": [f"val/{name}" for name in METRIC_CURVES],
        "learning_rate": ["train/lr"],
    }
    for table, names in curves.items():
        tables[f"plots/assemble/{table}.csv"] = (
            "member,epoch,curve,value",
            [(m, epoch, curve, value) for m in ("base-0", "base-1") for curve in names for epoch, value in EPOCHS],
        )
    return tables


def write_tables(root: Path, shift: int) -> None:
    for name, (header, rows) in small_tables(shift).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            file.write(f"{header}\n")
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n").writerows(rows)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the project's plots and templates and two revisions of their tables, the first one committed."""
    root = tmp_path_factory.mktemp("plots")
    (root / ".dvc" / "plots").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n", encoding="utf-8")
    for template in TEMPLATES:
        (root / ".dvc" / "plots" / template.name).write_bytes(template.read_bytes())
    (root / "extras").mkdir()
    for declaring, plots in DECLARED.items():
        with (root / declaring).open("w", encoding="utf-8") as file:
            content = {"plots": [{name: definition} for name, definition in plots.items() if definition]}
            YAML(typ="safe", pure=True).dump(content, file)
    write_tables(root, shift=0)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    write_tables(root, shift=1)
    return root


@pytest.fixture
def in_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(repository)
    return repository


@pytest.fixture(scope="module")
def filled(repository: Path) -> dict[str, dict[str, Any]]:
    """The templates as DVC fills them: `show` (the workspace) and `diff` (the workspace and HEAD), by plot."""
    before = Path.cwd()
    os.chdir(repository)
    try:
        return {kind: run_dvc_json("plots", *command) for kind, command in (("show", ["show"]), ("diff", ["diff", "HEAD"]))}
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def svgs(filled: dict[str, dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Every plot as SVG, by kind and name."""
    return {
        (kind, name): vl_convert.vegalite_to_svg(entries[0]["content"], vl_version=VEGA_LITE)
        for kind, shown in filled.items()
        for name, entries in shown["data"].items()
    }


def marks(svg: str, kind: str) -> list[str]:
    """The SVG elements of the marks of a kind (`line`, `rect`, `point`, `text`, `rule`)."""
    return re.findall(rf'<(?:path|text|line)[^>]*aria-roledescription="{kind}(?: mark)?"[^>]*>', svg)


def label(element: str) -> str:
    """What a mark says of itself."""
    found = re.search(r'aria-label="([^"]*)"', element)
    return found[1] if found else ""


def stated(element: str, name: str) -> float:
    """A number of a mark's label."""
    found = re.search(rf"(?:^|; ){re.escape(name)}: ([^;]*)", label(element))
    assert found, label(element)
    return float(found[1])


def texts(svg: str) -> str:
    """All text that is shown, one piece a line."""
    return "\n".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg)).replace("&gt;", ">").replace("&#39;", "'")


def test_templates_and_plots_name_each_other() -> None:
    assert {definition["template"] for definition in DEFINITIONS.values() if definition} == {path.stem for path in TEMPLATES}


def test_every_axis_is_labelled_by_the_template_or_by_the_plots_that_share_it() -> None:
    for name in VEGA_PLOTS:
        template = next(path for path in TEMPLATES if path.stem == DEFINITIONS[name]["template"]).read_text(encoding="utf-8")
        for key in ("x_label", "y_label"):
            assert (f"<DVC_METRIC_{key.upper()}>" in template) == (key in DEFINITIONS[name]), (name, key)


@pytest.mark.parametrize("kind", ["show", "diff"])
def test_dvc_fills_every_template(filled: dict[str, dict[str, Any]], kind: str) -> None:
    assert not filled[kind].get("errors")
    assert sorted(filled[kind]["data"]) == sorted(VEGA_PLOTS)
    for entries in filled[kind]["data"].values():
        assert set(entries[0]["revisions"]) == ({"workspace"} if kind == "show" else {"workspace", "HEAD"})
        assert "<DVC_METRIC" not in json.dumps(entries[0]["content"])


@pytest.mark.parametrize("kind", ["show", "diff"])
@pytest.mark.parametrize("name", VEGA_PLOTS)
def test_a_plot_says_what_it_shows(svgs: dict[tuple[str, str], str], name: str, kind: str) -> None:
    shown = texts(svgs[kind, name])
    for key in DEFINITIONS[name].keys() & {"title", "x_label", "y_label"}:
        assert DEFINITIONS[name][key] in shown, key
    for revision in ("workspace", "HEAD"):
        assert (revision in shown) == (revision == "workspace" or kind == "diff")
    assert not re.search(r"\b(NaN|undefined|null|Infinity)\b", svgs[kind, name])


@pytest.mark.parametrize(
    ("name", "mark", "one", "two"),
    [
        ("split_classes", "bar", 21, 42),
        ("split_age", "point", 12, 24),
        ("split_localization", "bar", 3, 6),
        ("train_loss", "point", 8, 16),  # two members; the value that is no number is left out
        ("train_loss", "line", 4, 8),
        ("train_metrics", "point", 20, 40),
        ("evaluate_confusion_counts", "rect", 49, 98),
        ("evaluate_confusion_share", "rect", 42, 84),  # shares of the absent class are undefined
        ("evaluate_roc", "line", 8, 16),  # seven classes and the diagonal
        ("evaluate_precision_recall", "line", 7, 14),
        ("evaluate_reliability", "point", 6, 12),
        ("evaluate_reliability_per_class", "point", 21, 42),
        ("evaluate_reliability_per_class", "line", 14, 21),  # and the diagonal a class
        ("evaluate_confidence", "bar", 8, 16),
        ("evaluate_per_class", "point", 6, 12),  # df has no F1
        ("evaluate_per_class", "rule", 6, 12),
        ("threshold_sweep_curve", "line", 10, 20),
        ("threshold_sweep_curve", "point", 8, 16),
        ("threshold_sweep_operating_points", "point", 8, 16),
        ("threshold_sweep_operating_points", "rule", 6, 12),  # sensitivity on validation has no interval here
        ("threshold_sweep_decision_curve", "line", 3, 6),
        ("baselines", "point", 6, 12),
        ("baselines", "rule", 6, 12),
        ("selective_risk_coverage", "line", 2, 4),
        ("selective_set_sizes", "bar", 14, 28),
        ("subgroups", "point", 6, 12),  # three metrics of two groups; the third has no figures, and accuracy no panel
        ("subgroups", "rule", 6, 12),
        ("gradcam_energy", "bar", 2, 4),
        ("gradcam_faithfulness", "point", 8, 16),
        ("gradcam_faithfulness", "rule", 4, 8),
        ("gradcam_groups", "point", 21, 42),
        ("gradcam_groups", "rule", 7, 14),
        ("gradcam_curves", "line", 6, 12),
        ("gradcam_curves", "point", 18, 36),
        ("gradcam_sanity", "point", 12, 24),
        ("gradcam_sanity", "line", 2, 4),  # the mirrored image is no depth
        ("gradcam_sanity", "rule", 11, 22),  # and the limit
        ("neighbors_share", "point", 6, 12),  # vasc has no test image
        ("neighbors_share", "rule", 6, 12),
        ("near_duplicates_scores", "line", 2, 4),
        ("robustness_metrics", "line", 4, 8),  # two corruptions; of their metrics macro_f1 is not drawn
        ("robustness_metrics", "point", 12, 24),
        ("robustness_metrics", "area", 2, 4),  # hue has no upper ends
        ("robustness_sensitivity", "point", 4, 8),
        ("robustness_specificity", "point", 2, 4),  # that of youden is undefined
        ("external_metrics", "point", 4, 8),
        ("external_recall", "point", 3, 6),  # df is in one of the sets alone
        ("external_recall", "rule", 3, 6),
        ("external_operating_points", "rule", 2, 4),
        ("leak_inflation", "point", 5, 10),  # the control holds no melanoma
        ("leak_inflation", "rule", 6, 12),  # and the line at 0
    ],
)
def test_every_row_is_drawn_once(svgs: dict[tuple[str, str], str], name: str, mark: str, one: int, two: int) -> None:
    assert [len(marks(svgs[kind, name], mark)) for kind in ("show", "diff")] == [one, two]


def test_epochs_start_at_one(svgs: dict[tuple[str, str], str]) -> None:
    assert sorted({stated(mark, "epoch") for mark in marks(svgs["show", "train_metrics"], "point")}) == [1, 2]


def fill(element: str) -> str:
    found = re.search(r'fill="([^"]*)"', element)
    assert found
    return found[1]


def luminance(color: str) -> float:
    """Relative luminance of an SVG colour (WCAG 2.2)."""
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", color)
    channels = [int(part) / 255 for part in found.groups()] if found else [{"white": 1.0, "black": 0.0}[color]] * 3
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["evaluate_confusion_counts", "evaluate_confusion_share"])
def test_numbers_stand_out_from_their_cells(svgs: dict[tuple[str, str], str], name: str) -> None:
    svg = svgs["show", name]
    place = re.compile(r"predicted diagnosis: (\w+); actual diagnosis: (\w+)")
    cells, numbers = ({place.search(label(mark)).groups(): fill(mark) for mark in marks(svg, kind)} for kind in ("rect", "text"))
    assert len(cells) >= 42
    for position, cell in cells.items():
        number = numbers[position]
        lighter, darker = sorted((luminance(cell), luminance(number)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.4, (cell, number)


def test_confusion_of_an_absent_class_is_left_blank(svgs: dict[tuple[str, str], str]) -> None:
    numbers = re.findall(r'aria-label="[^"]*actual diagnosis: vasc; label: ([^"]*)"', svgs["show", "evaluate_confusion_share"])
    assert numbers == [""] * 7


def path_points(element: str) -> list[tuple[float, float]]:
    found = re.search(r' d="([^"]*)"', element)
    assert found
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+),([-\d.]+)", found[1])]


def test_roc_goes_from_corner_to_corner_whatever_the_order_of_the_rows(svgs: dict[tuple[str, str], str]) -> None:
    curves = [path_points(mark) for mark in marks(svgs["show", "evaluate_roc"], "line") if "diagnosis" in label(mark)]
    side = curves[0][-1][0]
    assert curves == [[(0, side), (0, side / 2), (side / 4, side / 2), (side / 4, 0), (side, 0)]] * 7


def test_precision_recall_encloses_the_average_precision(svgs: dict[tuple[str, str], str]) -> None:
    for mark in marks(svgs["show", "evaluate_precision_recall"], "line"):
        points = path_points(mark)
        side = points[-1][0]
        area = sum((right - left) * (side - (y0 + y1) / 2) for (left, y0), (right, y1) in pairwise(points))
        assert area / side**2 == pytest.approx(0.5 * 1 + 0.5 * 0.75)  # rise in recall times precision at its end


def test_diagonals_are_diagonal(filled: dict[str, dict[str, Any]], svgs: dict[tuple[str, str], str]) -> None:
    for name in ("evaluate_roc", "evaluate_reliability"):
        panel = filled["show"]["data"][name][0]["content"]["spec"]
        assert panel["width"] == panel["height"]
        assert f'd="M0,{panel["height"]}L{panel["width"]},0"' in svgs["show", name]


def test_bins_of_the_confidence_histogram_touch(svgs: dict[tuple[str, str], str]) -> None:
    starts = sorted({round(stated(mark, "left"), 6) for mark in marks(svgs["show", "evaluate_confidence"], "bar")})
    assert starts == [0, 0.25, 0.5, 0.75]


def test_age_is_sorted_by_number_with_unknown_last(svgs: dict[tuple[str, str], str]) -> None:
    shown = [line for line in texts(svgs["show", "split_age"]).splitlines() if line in ("0", "5", "10", "unknown")]
    assert shown == ["0", "5", "10", "unknown"]


def test_groups_stand_in_the_order_of_their_table_and_small_ones_are_hollow_and_dashed(svgs: dict[tuple[str, str], str]) -> None:
    svg = svgs["show", "subgroups"]
    shown = [line for line in texts(svg).splitlines() if line.endswith("(9, 7)")]
    assert shown[:3] == ["sex: male (9, 7)", "localization: back (9, 7)", "localization: face (9, 7)"]
    points = {("back" in label(mark), fill(mark) == "white") for mark in marks(svg, "point")}
    dashes = {("back" in label(mark), "stroke-dasharray" in mark) for mark in marks(svg, "rule")}
    assert points == dashes == {(False, False), (True, True)}


def test_a_table_without_rows_gives_no_plot_and_no_error(in_repository: Path) -> None:
    table = in_repository / "plots" / "gradcam" / "energy.csv"
    content = table.read_bytes()
    table.write_text("image_id,dx,outcome,energy_ratio\n", encoding="utf-8")
    shown = run_dvc_json("plots", "show", "gradcam_energy")
    table.write_bytes(content)
    assert shown == {"data": {"gradcam_energy": []}}


def write_provenance(root: Path, *, synthetic: bool) -> None:
    (root / "data" / "raw").mkdir(parents=True, exist_ok=True)
    content = {"source": "sample", "synthetic": synthetic, "licence": "CC0-1.0", "counts": {}}
    (root / "data" / "raw" / "provenance.json").write_text(json.dumps(content), encoding="utf-8")


def test_the_page_needs_no_network_and_says_synthetic(in_repository: Path) -> None:
    write_provenance(in_repository, synthetic=True)
    page = write_page(Path("dvc_plots"), []).read_text(encoding="utf-8")
    assert SYNTHETIC in page
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=[\"']?(https?:)?//", page)
    assert "window.vegaEmbed=" in page
    assert all(f"vegaEmbed('#{name}', spec)" in page for name in VEGA_PLOTS)
    assert "{plot_divs}" not in page


def test_the_page_compares_revisions(in_repository: Path) -> None:
    write_provenance(in_repository, synthetic=True)
    page = write_page(Path("dvc_plots"), ["HEAD"]).read_text(encoding="utf-8")
    assert "Revisions compared: HEAD." in page
    assert '"rev": "HEAD"' in page


def test_banner_of_real_and_of_unknown_images(workspace: Path) -> None:
    assert "unknown" in banner()
    write_provenance(workspace, synthetic=False)
    assert banner() == ""


def test_the_page_links_to_the_explained_cases(in_repository: Path) -> None:
    assert link_to_cases(Path("dvc_plots")) == ""
    write_provenance(in_repository, synthetic=True)
    index = in_repository / "plots" / "gradcam" / "index.html"
    index.write_text("the cases", encoding="utf-8")
    for folder in (Path("dvc_plots"), Path("else where/deep"), in_repository.parent / "outside"):
        (address,) = re.findall(r'^<p><a href="([^"]*)">Grad-CAM, case by case', link_to_cases(folder))
        assert (folder / urllib.parse.unquote(address)).resolve() == index.resolve()
    page = write_page(Path("dvc_plots"), []).read_text(encoding="utf-8")
    assert '<a href="../plots/gradcam/index.html">' in page
    index.unlink()


def test_the_page_says_that_there_are_no_plots(workspace: Path) -> None:
    (workspace / "dvc_plots").mkdir()
    (workspace / "dvc_plots" / "index.html").write_text("of an earlier run", encoding="utf-8")
    (workspace / ".dvc").mkdir()
    (workspace / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"no plots.*dvc repro"):
        write_page(Path("dvc_plots"), [])
    assert not (workspace / "dvc_plots" / "index.html").exists()
