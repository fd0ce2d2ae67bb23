"""One prediction a lesion: a patient has a lesion, and not the one to four photographs of it that happen to be in the archive."""

import pandas as pd

from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.base.errors import PipelineError, name_some


def predict_lesions(table: pd.DataFrame) -> pd.DataFrame:
    """Average the calibrated probabilities of a lesion's images.

    Parameters
    ----------
    table : a prediction table as `skinlesion.evaluation.results.predictions.read_predictions` gives it.

    Returns
    -------
    A row a lesion, sorted by `lesion_id`: `lesion_id`, `dx`, `images` (how many were averaged), a probability a class.

    Raises
    ------
    PipelineError
        The images of a lesion have several diagnoses.
    """
    grouped = table.groupby("lesion_id")
    torn = grouped["dx"].nunique()
    if (torn > 1).any():
        raise PipelineError(f"lesion with two diagnoses: {name_some(torn.index[torn > 1])}: run `split` and `evaluate` again")
    means = grouped[list(PROBABILITY_COLUMNS)].mean()
    return pd.concat([grouped["dx"].first(), grouped.size().rename("images"), means], axis=1).reset_index()
