"""The curves of several members in one table."""

from pathlib import Path

import pandas as pd

from skinlesion.report.curves import CURVE_COLUMNS, TABLES, collect_curves
from tests.conftest import refuses

HEADER = "epoch," + ",".join(column for columns in TABLES.values() for column in columns)


def write_history(folder: Path, name: str, rows: list[str]) -> Path:
    path = folder / name / "history.csv"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    return path


def test_each_value_is_a_row_with_member_epoch_and_curve(tmp_path: Path) -> None:
    write_history(tmp_path, "base-0", ["1,0.9,0.8,0.1,0.2,0.3,,0.5,0.001", "2,0.7,0.6,0.2,0.3,0.4,0.5,0.6,0.0005"])
    write_history(tmp_path, "base-1", ["1,0.8,0.7,0.3,0.3,0.3,0.3,0.3,0.001"])
    tables = collect_curves(["base-0", "base-1"], tmp_path)
    assert tables.keys() == {"loss", "metrics", "learning_rate"}
    loss = tables["loss"]
    assert tuple(loss.columns) == CURVE_COLUMNS and len(loss) == 6
    assert sorted(map(tuple, loss[loss["epoch"] == 1].to_numpy().tolist())) == [
        ("base-0", 1, "train/loss", 0.9),
        ("base-0", 1, "val/loss", 0.8),
        ("base-1", 1, "train/loss", 0.8),
        ("base-1", 1, "val/loss", 0.7),
    ]
    recall = tables["metrics"].query("curve == 'val/mel_recall' and member == 'base-0'")
    assert pd.isna(recall["value"].iloc[0]) and recall["value"].iloc[1] == 0.5


def test_a_missing_or_damaged_history_is_named(tmp_path: Path) -> None:
    refuses(r"base-0/history\.csv not found: run `train` first", collect_curves, ["base-0"], tmp_path)
    write_history(tmp_path, "base-0", ["one,0.9,0.8,0.1,0.2,0.3,0.4,0.5,0.001"])
    refuses(r"base-0/history\.csv is damaged", collect_curves, ["base-0"], tmp_path)
