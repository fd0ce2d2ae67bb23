"""CSV tables whose rows are images: one way to read them, which checks, and one way to write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion.diagnoses import CLASSES
from skinlesion.errors import PipelineError, name_some
from skinlesion.files import atomic_file


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a CSV whose rows are images, keyed by `image_id`, and check what every such table promises.

    Identifiers, diagnoses and sites are strings, `age` is a float in years (NaN where unknown); an empty `sex` or
    `localization` becomes 'unknown'. Further columns are kept.

    Raises
    ------
    PipelineError
        The file is missing, empty or no CSV, lacks a column, has an empty or duplicate `image_id`, an unknown diagnosis
        or an age that is no number.
    """
    wanted = list(columns)
    text_columns = ("lesion_id", "image_id", "dx", "dx_type", "sex", "localization", "fit")
    try:
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(text_columns, "str"),
            keep_default_na=False,
            na_values={"age": ["", "NaN", "nan"]},
        )
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run the stage that writes it first, or `dvc repro`") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not a readable CSV file ({error})") from None
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise PipelineError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    _check_rows(frame, path)
    for name in ("sex", "localization"):
        if name in frame.columns:
            frame[name] = frame[name].replace("", "unknown")
    return frame


def _check_rows(frame: pd.DataFrame, path: Path) -> None:
    """Refuse empty and duplicate ids, unknown diagnoses and ages that are no number."""
    identifiers = frame["image_id"]
    if (identifiers == "").any():
        raise PipelineError(f"{path}: {(identifiers == '').sum()} row(s) have no image_id")
    duplicates = identifiers[identifiers.duplicated()].unique()
    if len(duplicates):
        raise PipelineError(f"{path}: duplicate image_id {name_some(duplicates)}: keep one row an image")
    if "dx" in frame.columns:
        unknown = frame[~frame["dx"].isin(CLASSES)]
        if len(unknown):
            offenders = name_some(f"'{row.dx}' ({row.image_id})" for row in unknown.itertuples())
            raise PipelineError(f"{path}: unknown diagnosis {offenders}; known are {', '.join(CLASSES)}")
    if "age" in frame.columns:
        ages = pd.to_numeric(frame["age"], errors="coerce")
        broken = frame[~np.isfinite(ages) & frame["age"].notna()]
        if len(broken):
            offenders = name_some(f"'{row.age}' ({row.image_id})" for row in broken.itertuples())
            raise PipelineError(f"{path}: age must be a number of years or empty, not {offenders}")
        frame["age"] = ages.astype("float64")


def write_table(frame: pd.DataFrame, path: Path, columns: Iterable[str]) -> None:
    """Write a table with exactly `columns`, in that order, one line a row, byte-identical for equal content."""
    with atomic_file(path) as partial:
        frame[list(columns)].to_csv(partial, index=False, lineterminator="\n")
