"""The curves of all members' trainings as tables that one plot can show."""

from pathlib import Path

import pandas as pd

from skinlesion.artifacts.paths import PLOTS
from skinlesion.artifacts.tables import parse_csv
from skinlesion.base.errors import PipelineError

CURVE_COLUMNS = ("member", "epoch", "curve", "value")

# Table, and the columns of `history.csv` that are its curves.
TABLES: dict[str, tuple[str, ...]] = {
    "loss": ("train_loss", "val_loss"),
    "metrics": ("val_macro_f1", "val_balanced_accuracy", "val_accuracy", "val_mel_recall", "val_macro_auc"),
    "learning_rate": ("train_lr",),
}


def collect_curves(members: list[str], folder: Path = PLOTS / "train") -> dict[str, pd.DataFrame]:
    """The tables of `TABLES`, columns `CURVE_COLUMNS`, a row a member, epoch (from 1) and curve, from each `history.csv`.

    Raises
    ------
    PipelineError
        A member's history is missing or damaged.
    """
    histories = {name: _read_history(folder / name / "history.csv") for name in members}
    return {table: _stack(histories, columns) for table, columns in TABLES.items()}


def _read_history(path: Path) -> pd.DataFrame:
    columns = ["epoch", *(column for curves in TABLES.values() for column in curves)]
    try:
        # An undefined metric is an empty value.
        return parse_csv(
            path,
            name=str(path),
            usecols=columns,
            dtype={"epoch": "int64"} | dict.fromkeys(columns[1:], "float64"),
            keep_default_na=True,
        )
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run `train` first, or `dvc repro`") from None
    except PipelineError as error:
        raise PipelineError(f"{path} is damaged ({error}): run `train` again") from None


def _stack(histories: dict[str, pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    parts = [
        history.melt(id_vars="epoch", value_vars=list(columns), var_name="curve").assign(member=name)
        for name, history in histories.items()
    ]
    stacked = pd.concat(parts, ignore_index=True)
    stacked["curve"] = stacked["curve"].str.replace("_", "/", n=1)
    return stacked[list(CURVE_COLUMNS)]
