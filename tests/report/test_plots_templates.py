"""The plots of both dvc.yaml, filled by DVC itself from small tables, with one revision and two; and the page of them all."""

import json
import os
import re
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from skinlesion.report.vega import VEGA_LITE
from tests.report.plot_cases import DEFINITIONS, TEMPLATES, VEGA_PLOTS
from tools.dvc_commands import run_dvc_json


@pytest.fixture(scope="module")
def filled(plots_repository: Path) -> dict[str, dict[str, Any]]:
    """The templates as DVC fills them: `show` (the workspace) and `diff` (the workspace and HEAD), by plot."""
    before = Path.cwd()
    os.chdir(plots_repository)
    try:
        return {kind: run_dvc_json("plots", *command) for kind, command in (("show", ["show"]), ("diff", ["diff", "HEAD"]))}
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def svgs(filled: dict[str, dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Every plot as SVG, by kind and name."""
    plots = [(kind, name, entries[0]) for kind, shown in filled.items() for name, entries in shown["data"].items()]
    return {(kind, name): vl_convert.vegalite_to_svg(one["content"], vl_version=VEGA_LITE) for kind, name, one in plots}


def marks(svg: str, kind: str) -> list[str]:
    """The SVG elements of the marks of a kind (`line`, `rect`, `point`, `text`, `rule`)."""
    return re.findall(rf'<(?:path|text|line)[^>]*aria-roledescription="{kind}(?: mark)?"[^>]*>', svg)


def attribute(element: str, name: str) -> str:
    """An attribute of a mark; empty where it has none. `aria-label` is what it says of itself."""
    found = re.search(rf' {name}="([^"]*)"', element)
    return found[1] if found else ""


label, fill = (partial(attribute, name=name) for name in ("aria-label", "fill"))


def path_points(element: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+),([-\d.]+)", attribute(element, "d"))]


def stated(element: str, name: str) -> float:
    """A number of a mark's label."""
    found = re.search(rf"(?:^|; ){re.escape(name)}: ([^;]*)", label(element))
    assert found, label(element)
    return float(found[1])


def texts(svg: str) -> str:
    """All text that is shown, one piece a line."""
    return "\n".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg)).replace("&gt;", ">").replace("&#39;", "'")


@pytest.mark.structure
def test_templates_and_plots_name_each_other() -> None:
    assert {definition["template"] for definition in DEFINITIONS.values() if definition} == {path.stem for path in TEMPLATES}


@pytest.mark.structure
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


# How many marks of a kind a plot has of one revision.
MARKS = {
    "split_classes": {"bar": 21},
    "split_age": {"point": 12},
    "split_localization": {"bar": 3},
    "train_loss": {"point": 8, "line": 4},  # two members; a value that is not a number is left out
    "train_metrics": {"point": 20},
    "evaluate_confusion_counts": {"rect": 49},
    "evaluate_confusion_share": {"rect": 42},  # shares of the absent class are undefined
    "evaluate_roc": {"line": 8},  # seven classes and the diagonal
    "evaluate_precision_recall": {"line": 7},
    "evaluate_reliability": {"point": 6},
    "evaluate_reliability_per_class": {"point": 21, "line": 14},  # with the diagonal a class
    "evaluate_confidence": {"bar": 8},
    "evaluate_per_class": {"point": 6, "rule": 6},  # df has no F1
    "threshold_sweep_curve": {"line": 10, "point": 8},
    "threshold_sweep_operating_points": {"point": 8, "rule": 6},  # sensitivity on validation has no interval here
    "threshold_sweep_decision_curve": {"line": 3},
    "baselines": {"point": 6, "rule": 6},
    "selective_risk_coverage": {"line": 2},
    "selective_set_sizes": {"bar": 14},
    "subgroups": {"point": 6, "rule": 6},  # three metrics of two groups; the third has no figures, and accuracy no panel
    "gradcam_energy": {"bar": 2},
    "gradcam_faithfulness": {"point": 8, "rule": 4},
    "gradcam_groups": {"point": 21, "rule": 7},
    "gradcam_curves": {"line": 6, "point": 18},
    "gradcam_sanity": {"point": 12, "line": 2, "rule": 11},  # the mirrored image is not a depth; with the limit
    "neighbors_share": {"point": 6, "rule": 6},  # vasc has no test image
    "near_duplicates_scores": {"line": 2},
    # Two corruptions; of their metrics macro_f1 is not drawn; hue has no upper ends.
    "robustness_metrics": {"line": 4, "point": 12, "area": 2},
    "robustness_sensitivity": {"point": 4},
    "robustness_specificity": {"point": 2},  # that of youden is undefined
    "external_metrics": {"point": 4},
    "external_recall": {"point": 3, "rule": 3},  # df is in one of the sets alone
    "external_operating_points": {"rule": 2},
    "leak_inflation": {"point": 5, "rule": 6},  # the control holds no melanoma; with the line at 0
}
SHARED = {("evaluate_reliability_per_class", "line"): 7}  # marks that two revisions have in common: the diagonal a class


@pytest.mark.parametrize("name", MARKS)
def test_every_row_is_drawn_once(svgs: dict[tuple[str, str], str], name: str) -> None:
    for mark, one in MARKS[name].items():
        found = [len(marks(svgs[kind, name], mark)) for kind in ("show", "diff")]
        assert found == [one, 2 * one - SHARED.get((name, mark), 0)], mark


def test_epochs_start_at_one(svgs: dict[tuple[str, str], str]) -> None:
    assert sorted({stated(mark, "epoch") for mark in marks(svgs["show", "train_metrics"], "point")}) == [1, 2]


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
