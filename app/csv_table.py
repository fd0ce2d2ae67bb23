"""The answers as CSV: the columns of `python -m skinlesion.predict`."""

import csv
import io
from collections.abc import Iterable, Mapping

from app.answers import Answer
from app.words import notes_of
from skinlesion.serving.prediction import ROW_COLUMNS, row_of


def csv_table(answers: Iterable[Answer], source: Mapping[str, str]) -> str:
    """A row an image, refused ones with the reason. source : of the predictor."""
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ROW_COLUMNS)
    writer.writeheader()
    for each in answers:
        notes = notes_of(each)
        writer.writerow(row_of(each.handed.name, each.prediction, source=source, error=each.error or "", notes=notes))
    return buffer.getvalue()
