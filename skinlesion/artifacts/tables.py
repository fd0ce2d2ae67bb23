"""CSV tables whose rows are images: one way to read them, which checks, and one way to write them."""

import codecs
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.base.decoding import kind_of
from skinlesion.base.errors import PipelineError, name_some, reason_of
from skinlesion.base.files import atomic_file
from skinlesion.diagnoses import CLASSES

METADATA_COLUMNS: tuple[str, ...] = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
LOGIT_COLUMNS: tuple[str, ...] = tuple(f"logit_{dx}" for dx in CLASSES)
PROBABILITY_COLUMNS: tuple[str, ...] = tuple(f"probability_{dx}" for dx in CLASSES)

# All that a table may hold with a decimal comma; the last are the ISIC challenge's columns.
NUMBERS = ("age", *LOGIT_COLUMNS, *PROBABILITY_COLUMNS, *(dx.upper() for dx in CLASSES))
SEPARATORS = ",;\t|"
IN_QUOTES = 'put a value that holds the separator in quotes, as "80,5"'

AGE_LIMIT = 120.0  # years
# How a missing age, sex or site is written: pandas' words for it, those of R and spreadsheets among them, and HAM10000's own.
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "unknown")
# What an id must not begin with or hold: it names a file (`artifacts.raw.image_path`), and must not lead out of its folder or
# hide there.
_NOT_IN_AN_ID = r"^\.|[/\\\x00-\x1f\x7f]"
_NOT_IN_A_LESION = r"[\x00-\x1f\x7f]"


def parse_csv(source: Path | bytes, *, name: str, **options: Any) -> pd.DataFrame:
    """pandas' `read_csv` for a file that is not trusted; no text means a missing value unless `options` say so.

    Read as spreadsheets save them: in UTF-8 or UTF-16; with the one of `SEPARATORS` that the header has most of; with decimal
    commas in the columns `NUMBERS`.

    source : a file, or its bytes. name : of it, for messages.

    Raises
    ------
    PipelineError
        It is no CSV, names a column twice, or has rows with more values than there are column names (pandas would take the
        first for an index, and shift the others).
    FileNotFoundError
        It is missing; the caller knows who writes it.
    """
    text = _decode(source.read_bytes() if isinstance(source, Path) else source, name)
    if hint := re.match('"?sep=(.)"?[\r\n]+', text):  # which Excel writes for itself
        text = text[hint.end() :]
    first = text.lstrip("\r\n").splitlines()[:1]
    bare = re.sub('"[^"]*"', "", first[0] if first else "")
    form: dict[str, Any] = {"sep": hint[1] if hint else max(SEPARATORS, key=bare.count), "keep_default_na": False}
    try:
        frame = pd.read_csv(io.StringIO(text), **form | options)
        header = pd.read_csv(io.StringIO(text), header=None, nrows=1, dtype="str", **form).iloc[0]
    except (ValueError, OverflowError) as error:  # pandas' own errors are of the first kind
        quoted = f": {IN_QUOTES}" if "fields in line" in str(error) else ""
        raise PipelineError(f"{name} is not a readable CSV file ({reason_of(error)}){quoted}") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise PipelineError(f"{name}: the rows have more values than there are column names: {IN_QUOTES}")
    if len(header) == 1 and any(separator in str(header[0]) for separator in SEPARATORS):
        raise PipelineError(f"{name}: each row stands in quotes as a whole: save it with quotes around single values, or without")
    twice = header[header.duplicated() & header.fillna("").str.strip().ne("")]  # a spreadsheet's empty columns are no matter
    if len(twice):
        raise PipelineError(f"{name} has the column(s) {name_some(map(repr, twice.unique()))} twice: keep the right one")
    return _with_decimal_points(frame)


def _decode(data: bytes, name: str) -> str:
    """The text of a table; refused with what it is instead."""
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    wrong = kind_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = wrong or f"text that is not {encoding.upper().removesuffix('-SIG')} in line {line}"
    else:
        wrong = wrong or ("a file with NUL characters in its header" if "\0" in text.partition("\n")[0] else None)
    if wrong:
        raise PipelineError(f"{name} is not a readable CSV file, but {wrong}: save it as CSV in UTF-8")
    return text


def _with_decimal_points(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with points for the decimal commas of numbers, which stay text, where a column has no points beside them."""
    for column in NUMBERS:
        if column not in frame.columns or not pd.api.types.is_string_dtype(frame[column]):
            continue
        values = frame[column].fillna("")
        if values.str.contains(",").any() and values.str.fullmatch(r" *[-+]?\d+(,\d+)?([eE][-+]?\d+)? *||(?i:nan)").all():
            frame[column] = frame[column].str.replace(",", ".")
    return frame


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a CSV whose rows are images, keyed by `image_id`, and check what every such table promises.

    Identifiers, diagnoses and sites are strings, `age` is a float in years (NaN where unknown); a `sex` or `localization` that is
    `MISSING` becomes 'unknown'. Further columns are kept.

    Raises
    ------
    PipelineError
        The file is missing, empty or no CSV, lacks a column, has an empty or duplicate `image_id`, an id that cannot be
        one, an unknown diagnosis or an age that is no number from 0 to `AGE_LIMIT`.
    """
    wanted = list(columns)
    text_columns = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "fit", "color_constancy")
    try:
        frame = parse_csv(path, name=str(path), dtype=dict.fromkeys(text_columns, "str"), na_values={"age": list(MISSING)})
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run the stage that writes it first, or `dvc repro`") from None
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise PipelineError(f"{path} lacks the column(s) {', '.join(missing)}; it has {name_some(frame.columns, 40)}")
    _check_rows(frame, path)
    for name in ("sex", "localization"):
        if name in frame.columns:
            frame[name] = frame[name].replace(list(MISSING), "unknown")
    return frame


def _check_rows(frame: pd.DataFrame, path: Path) -> None:
    """Reject empty, duplicate or malformed ids, unknown diagnoses and invalid ages."""
    identifiers = frame["image_id"]
    if (identifiers == "").any():
        raise PipelineError(f"{path}: {(identifiers == '').sum()} row(s) have no image_id")
    duplicates = identifiers[identifiers.duplicated()].unique()
    if len(duplicates):
        raise PipelineError(f"{path}: duplicate image_id {name_some(duplicates)}: keep one row an image")
    _check_ids(frame, path)
    if "dx" in frame.columns:
        unknown = frame[~frame["dx"].isin(CLASSES)]
        if len(unknown):
            offenders = name_some(f"'{row.dx}' ({row.image_id})" for row in unknown[["dx", "image_id"]].itertuples())
            raise PipelineError(f"{path}: unknown diagnosis {offenders}; known are {', '.join(CLASSES)}")
    if "age" in frame.columns:
        ages = pd.to_numeric(frame["age"], errors="coerce")
        broken = frame.loc[~ages.between(0, AGE_LIMIT) & frame["age"].notna(), ["image_id", "age"]]
        if len(broken):
            offenders = name_some(f"'{row.age}' ({row.image_id})" for row in broken.itertuples())
            rule = f"a number of years from 0 to {AGE_LIMIT:g}, or empty where it is unknown"
            raise PipelineError(f"{path}: age must be {rule}, not {offenders}")
        frame["age"] = ages.astype("float64")


def _check_ids(frame: pd.DataFrame, path: Path) -> None:
    """Refuse ids that lead out of a folder, hide in it, or break a line."""
    no_file = "no '/', no '\\', no control character and no full stop at the front"
    for column, pattern, rule in (("image_id", _NOT_IN_AN_ID, no_file), ("lesion_id", _NOT_IN_A_LESION, "no control character")):
        if column in frame.columns:
            odd = frame.loc[frame[column].str.contains(pattern, regex=True), column]
            if len(odd):
                raise PipelineError(f"{path}: {column} {name_some(map(repr, odd))} cannot be one: {rule}")
    if "lesion_id" in frame.columns and (frame["lesion_id"] == "").any():
        raise PipelineError(f"{path}: no lesion_id for {name_some(frame.loc[frame['lesion_id'] == '', 'image_id'])}")


def write_table(frame: pd.DataFrame, path: Path, columns: Iterable[str]) -> None:
    """Write a table with exactly `columns`, in that order, one line a row, byte-identical for equal content."""
    with atomic_file(path) as partial:
        frame[list(columns)].to_csv(partial, index=False, lineterminator="\n")


def labels_of(table: pd.DataFrame) -> np.ndarray:
    """The diagnoses of a table as indices into `CLASSES`, int64 (rows,)."""
    return np.asarray(pd.Index(CLASSES).get_indexer(table["dx"]), dtype=np.int64)


def logits_of(table: pd.DataFrame) -> np.ndarray:
    """The logits of a prediction table, float64 (rows, classes)."""
    return np.asarray(table[list(LOGIT_COLUMNS)], dtype=np.float64)


def probabilities_of(table: pd.DataFrame) -> np.ndarray:
    """The calibrated probabilities of a prediction table, float64 (rows, classes)."""
    return np.asarray(table[list(PROBABILITY_COLUMNS)], dtype=np.float64)


def predicted_of(table: pd.DataFrame) -> np.ndarray:
    """The most probable diagnosis of each row of a prediction table, the first of equals in `CLASSES`, str (rows,)."""
    predicted: np.ndarray = np.array(CLASSES)[probabilities_of(table).argmax(axis=1)]
    return predicted
