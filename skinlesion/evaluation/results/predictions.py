"""The contract of `data/predictions`: a table of validation and one of test, a row an image."""

from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, probabilities_of, read_table, write_table
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.base.files import atomic_folder

PREDICTIONS = Path("data/predictions")
# What a prediction table repeats of the metadata, so that it can be judged on its own.
DESCRIPTIVE_COLUMNS: tuple[str, ...] = ("image_id", "lesion_id", "dx", "age", "sex", "localization", "dx_type")


def write_predictions(predictions: dict[str, pd.DataFrame], folder: Path = PREDICTIONS) -> None:
    """Write the prediction tables of `val` and `test`; columns: descriptive, a logit and a calibrated probability a class."""
    with atomic_folder(folder) as partial:
        for name, frame in predictions.items():
            write_table(frame, partial / f"{name}.csv", (*DESCRIPTIVE_COLUMNS, *LOGIT_COLUMNS, *PROBABILITY_COLUMNS))


def read_predictions(name: str, folder: Path = PREDICTIONS) -> pd.DataFrame:
    """The prediction table of `val` or `test`.

    Raises
    ------
    PipelineError
        Missing or damaged, a logit that is not finite, or probabilities that are none (0 to 1) or do not sum to 1.
    """
    path = folder / f"{name}.csv"
    frame = read_table(path, (*DESCRIPTIVE_COLUMNS, *LOGIT_COLUMNS, *PROBABILITY_COLUMNS))
    numbers = frame[[*LOGIT_COLUMNS, *PROBABILITY_COLUMNS]].apply(pd.to_numeric, errors="coerce").astype("float64")
    broken = ~np.isfinite(numbers.to_numpy()).all(axis=1)
    probabilities = probabilities_of(numbers)
    broken |= (np.abs(probabilities.sum(axis=1) - 1) > 1e-4) | (probabilities < 0).any(axis=1)
    if frame.empty or broken.any():
        offenders = name_some(frame.loc[broken, "image_id"]) or "no row at all"
        raise PipelineError(
            f"{path}: logits must be finite and probabilities sum to 1; offending: {offenders}. Run `evaluate` again"
        )
    frame[numbers.columns] = numbers
    return frame
