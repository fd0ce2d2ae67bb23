"""Predictions as rows of a table: of the command line, and of the demo's download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.diagnoses import CLASSES
from skinlesion.prediction import Prediction

SOURCE_COLUMNS = ("model", "engine", "classifier_sha256")  # what gave the answer
ROW_COLUMNS: tuple[str, ...] = (
    *("file", "error", "most_probable", "probability", *PROBABILITY_COLUMNS),
    *("operating_point", "target", "score", "threshold", "flagged", "sets", "notes", "warnings"),
    *SOURCE_COLUMNS,
)


def row_of(
    name: str, prediction: Prediction | None, *, source: Mapping[str, str], error: str = "", notes: Sequence[str] = ()
) -> dict[str, str | float]:
    """One file's row, with the keys `ROW_COLUMNS`, empty where there is nothing to say.

    name : of the file. prediction : None for a file that was refused. error : why it was. notes : of `Upload`.
    source : `SOURCE_COLUMNS`, as `Predictor.source` has them.

    `flagged` is `yes` or `no`. `sets` is as `0.9: nv mel; 0.95: nv mel bkl`, without the levels that cannot be promised.
    """
    row: dict[str, str | float] = dict.fromkeys(ROW_COLUMNS, "") | dict(source) | {"file": _no_formula(name), "error": error}
    if prediction is None:
        return row
    (most_probable, probability), *_ = prediction.top(1)
    row |= {"most_probable": most_probable, "probability": probability}
    row |= {column: prediction.probabilities[dx] for column, dx in zip(PROBABILITY_COLUMNS, CLASSES, strict=True)}
    if prediction.point is not None and prediction.score is not None:
        point = prediction.point
        row |= {"operating_point": point.name, "target": point.target, "score": prediction.score, "threshold": point.threshold}
        row["flagged"] = "yes" if prediction.flagged else "no"
    row["sets"] = "; ".join(f"{level}: {' '.join(of)}" for level, of in prediction.sets.items() if of is not None)
    return row | {"notes": " ".join(notes), "warnings": " ".join(prediction.warnings)}


def _no_formula(name: str) -> str:
    """A spreadsheet takes a cell that begins like this for a formula, and a file can be called anything."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
