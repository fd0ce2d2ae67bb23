"""Small tables for every plot of both dvc.yaml, and a repository that has them in two revisions."""

import csv
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from skinlesion.diagnoses import CLASSES
from tests.conftest import ROOT

TEMPLATES = sorted((ROOT / ".dvc" / "plots").glob("*.json"))
DECLARED: dict[str, dict[str, Any]] = {"dvc.yaml": {}, "extras/dvc.yaml": {}}
for declaring, plots in DECLARED.items():
    for entry in YAML(typ="safe", pure=True).load((ROOT / declaring).read_text(encoding="utf-8")).get("plots", []):
        plots.update(entry if isinstance(entry, dict) else {entry: None})
DEFINITIONS = {name: definition for plots in DECLARED.values() for name, definition in plots.items()}
VEGA_PLOTS = [name for name, definition in DEFINITIONS.items() if definition]
METRIC_CURVES = ("macro_f1", "balanced_accuracy", "accuracy", "mel_recall", "macro_auc")
EPOCHS = ((1, 0.5), (2, 0.75), (3, "nan"))
VALUE, EMPTY = (0.5, 0.25, 0.75), ("", "", "")  # a figure with its interval, and one that is undefined


@dataclass(frozen=True)
class Table:
    """The columns of a table, and its rows."""

    columns: str
    rows: Iterable[Iterable[object]]


def small_tables(shift: int) -> dict[str, Table]:
    """Every table that the plots read, by its path below plots/; `shift` tells one revision from another."""
    tables = split_tables(shift) | evaluate_tables(shift) | decision_tables()
    return tables | gradcam_tables(shift) | other_tables() | curve_tables()


SPLITS = ("train", "val", "test")
STEPS = (0.0, 0.5, 1.0)


def split_tables(shift: int) -> dict[str, Table]:
    def counted(column: str, values: Iterable[object], share: float) -> Table:
        return Table(f"split,{column},images,share", [(split, value, 7, share) for split in SPLITS for value in values])

    classes = [(split, dx, 1000 + row + shift, 0.1) for split in SPLITS for row, dx in enumerate(CLASSES)]
    return {
        "split/classes": Table("split,dx,images,share", classes),
        "split/age": counted("age", (0, 5, 10, "unknown"), 0.25),
        "split/sex": counted("sex", ("female", "male"), 0.5),
        "split/localization": counted("localization", ("lower extremity",), 1),
    }


def evaluate_tables(shift: int) -> dict[str, Table]:
    # Shares over the whole scale; vasc is absent, so its shares are undefined.
    cells = [(row, actual, column, predicted) for row, actual in enumerate(CLASSES) for column, predicted in enumerate(CLASSES)]
    confusion = [(a, p, 10 * row * column, "" if a == "vasc" else (7 * row + column) / 41) for row, a, column, p in cells]
    # Not in the order of the curve, with ties on both axes.
    roc, recall = ((1, 1), (0, 0.5), (0.25, 1), (0, 0), (0.25, 0.5)), ((1, 0.25), (0, 1), (0.5, 1), (1, 0.75), (0.5, 0.5))
    before_after = [(when, row, step, step, 3) for when in ("before", "after") for row, step in enumerate(STEPS)]
    of_each = [(dx, row, step, step / 2, 3) for dx in CLASSES for row, step in enumerate(STEPS)]
    confidence = [(outcome, 0.125 + step / 4, 5) for outcome in ("correct", "wrong") for step in range(4)]
    f1 = [(dx, *EMPTY, 0) if dx == "df" else (dx, 0.5 + shift / 8, 0.25, 0.75, 12) for dx in CLASSES]
    return {
        "evaluate/confusion": Table("actual,predicted,images,share", confusion),
        "evaluate/roc": Table("dx,false_positive_rate,true_positive_rate", [(dx, *point) for dx in CLASSES for point in roc]),
        "evaluate/precision_recall": Table("dx,recall,precision", [(dx, *point) for dx in CLASSES for point in recall]),
        "evaluate/reliability": Table("calibration,bin,confidence,accuracy,images", before_after),
        "evaluate/reliability_per_class": Table("dx,bin,probability,share,images", of_each),
        "evaluate/confidence": Table("outcome,confidence,images", confidence),
        "evaluate/per_class": Table("dx,f1,low,high,support", f1),
    }


def decision_tables() -> dict[str, Table]:
    curve = [(split, step, 1 - step, step, 0.5, 0.5, 1 - step) for split in ("val", "test") for step in STEPS]
    bounds = "sensitivity,sensitivity_low,sensitivity_high,specificity,specificity_low,specificity_high,precision,f1,flagged"
    points = [
        (point, split, 0.25, 0.9, *(("", "") if split == "val" else (0.8, 1)), 0.7, 0.65, 0.75, 0.5, 0.6, 0.4)
        for point, split in product(("recall_0.90", "youden"), ("val", "test"))
    ]
    benefits = [(name, 0.1 + step / 2, 0.1 - step / 5) for name in ("classifier", "flag all", "flag none") for step in STEPS]
    models = [(model, name, 0.5, 0.2, 0.7) for model in ("metadata", "colors", "classifier") for name in ("accuracy", "macro_f1")]
    risks = [(split, step, step / 4, 1 - step) for split in ("val", "test") for step in STEPS]
    groups = [
        (attribute, group, metric, *(EMPTY if group == "face" else VALUE), 9, 7, 3, group == "back")
        for attribute, group in (("sex", "male"), ("localization", "back"), ("localization", "face"))
        for metric in ("accuracy", "balanced_accuracy", "mel_auc", "mel_sensitivity")
    ]
    return {
        "threshold_sweep/curve": Table("split,threshold,sensitivity,specificity,precision,f1,flagged", curve),
        "threshold_sweep/operating_points": Table(f"point,split,threshold,{bounds}", points),
        "threshold_sweep/decision_curve": Table("strategy,threshold_probability,net_benefit", benefits),
        "baselines/models": Table("model,metric,value,low,high", models),
        "selective/risk_coverage": Table("split,coverage,risk,confidence", risks),
        "selective/set_sizes": Table("level,size,images,share", [(p, n, 9, 1 / 7) for p in (0.9, 0.95) for n in range(1, 8)]),
        "subgroups/groups": Table("attribute,group,metric,value,low,high,images,lesions,melanoma_lesions,small", groups),
    }


def gradcam_tables(shift: int) -> dict[str, Table]:
    def measured(rows: Iterable[tuple[str, str, str, str, str]], value: float, ends: dict[str, tuple[float, float]]) -> Table:
        """Rows of method, grouping, group, measure and what it is of; a map's figures alone have an interval."""
        columns = "method,grouping,group,measure,of,value,low,high,images"
        return Table(columns, [(*row, value, *(ends[row[0]] if row[-1] == "map" else ("", "")), 9) for row in rows])

    of_all = [
        (method, "all", "all images", measure, of)
        for method in ("GradCAM", "CAM")
        for measure, of in (("energy", "map"), ("energy", "other"), ("pointing", "map"), ("pointing", "center"))
    ]
    of_class = [("GradCAM", "class", dx, "deletion", of) for dx in CLASSES for of in ("map", "random", "center")]
    curves = [(curve, of, x, 1 - x) for curve in ("deletion", "insertion") for of in ("CAM", "random", "center") for x in STEPS]
    depths = ("mirrored image", "head", "last quarter", "last half", "last three quarters", "all layers")
    sanity = [(m, name, 0.25, *(("", "") if name == "head" else (0.125, 0.375))) for m in ("GradCAM", "CAM") for name in depths]
    energy = [(f"I{row}", dx, "correct", 0.5 + row) for dx in ("mel", "nv") for row in range(4)]
    return {
        "gradcam/energy": Table("image_id,dx,outcome,energy_ratio", energy),
        "gradcam/faithfulness": measured(of_all, 0.5 + shift / 8, {"GradCAM": (0.25, 0.75), "CAM": (0.5, 0.625)}),
        "gradcam/groups": measured(of_class, 0.5, {"GradCAM": (0.25, 0.75)}),
        "gradcam/curves": Table("curve,order,share,probability", curves),
        "gradcam/sanity": Table("method,compared_with,correlation,low,high", sanity),
    }


def other_tables() -> dict[str, Table]:
    shares = [(dx, *(EMPTY if dx == "vasc" else VALUE), 7, 0.1) for dx in CLASSES]
    pairs = [(kind, score, 1 / (1 + score)) for kind in ("one lesion id", "two ids, one diagnosis") for score in (0, 5, 20)]
    strengths = [
        (kind, severity, "" if severity == 0 else 7, metric, 0.9 - severity / 10, 0.4, "" if kind == "hue" else 0.95)
        for kind, severity, metric in product(("hue", "blur"), (0, 1, 2), ("accuracy", "macro_f1", "ece"))
    ]
    points = [
        ("blur", severity, 0.1, point, 0.5, 0.8, 0.7, 0.9, *(EMPTY if point == "youden" else (0.6, 0.5, 0.7)))
        for severity, point in product((0, 5), ("recall_0.90", "youden"))
    ]
    bounds = "sensitivity,sensitivity_low,sensitivity_high,specificity,specificity_low,specificity_high"
    inflation = [
        (group, metric, 0.8, 0.7, *(EMPTY if empty else (0.1, -0.05, 0.2)), "" if empty else 0.2, 9, 7, 3)
        for group in ("all", "with_siblings", "without_siblings")
        for metric in ("accuracy", "mel_sensitivity")
        for empty in [group == "without_siblings" and metric == "mel_sensitivity"]
    ]
    groups = "group,metric,image_level,lesion_level,inflation,low,high,p,images,lesions,melanoma_lesions"
    # The external set has no dermatofibroma.
    external = {}
    measured = {"metrics": ["accuracy", "macro_f1"], "recall": ["df", "mel"], "operating_points": ["youden: f1"]}
    for name, metrics in measured.items():
        cells = product(metrics, ("external", "internal test"))
        rows = [(s, m, *(EMPTY if (s, m) == ("external", "df") else VALUE)) for m, s in cells]
        external[f"extras/external/{name}"] = Table("set,metric,value,low,high", rows)
    return external | {
        "neighbors/by_class": Table("dx,share,low,high,support,training_lesions", shares),
        "extras/near_duplicates/scores": Table("pairs,score,share", pairs),
        "extras/robustness/metrics": Table("corruption,severity,strength,metric,value,value_low,value_high", strengths),
        "extras/robustness/operating_points": Table(f"corruption,severity,strength,point,threshold,{bounds}", points),
        "extras/leak/inflation": Table(groups, inflation),
    }


def curve_tables() -> dict[str, Table]:
    names = {"loss": ["train/loss", "val/loss"], "metrics": [f"val/{one}" for one in METRIC_CURVES]}
    tables = {}
    for name, curves in (names | {"learning_rate": ["train/lr"]}).items():
        rows = [(m, epoch, curve, value) for m in ("base-0", "base-1") for curve in curves for epoch, value in EPOCHS]
        tables[f"assemble/{name}"] = Table("member,epoch,curve,value", rows)
    return tables


def write_tables(root: Path, shift: int) -> None:
    for name, table in small_tables(shift).items():
        path = root / "plots" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([table.columns.split(","), *table.rows])


def make_repository(root: Path) -> None:
    """A repository with the project's plots and templates and two revisions of their tables, the first one committed."""
    (root / ".dvc" / "plots").mkdir(parents=True)
    for name in ("config", "plots_page.html"):
        shutil.copy2(ROOT / ".dvc" / name, root / ".dvc" / name)
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
