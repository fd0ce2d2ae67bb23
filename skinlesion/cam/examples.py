"""Which predictions are shown: the errors first, and among them the missed melanomas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from skinlesion.artifacts import PROBABILITY_COLUMNS
from skinlesion.diagnoses import CLASSES


def judge_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Compare each prediction with the truth.

    Parameters
    ----------
    predictions : a table as `skinlesion.artifacts.read_predictions` gives it.

    Returns
    -------
    Its `image_id`, `lesion_id` and `dx`, with `predicted` (the most probable class), its `probability`, the `outcome`
    (correct | wrong) and the `kind` of example (missed melanoma | error | correct).
    """
    probabilities = predictions[list(PROBABILITY_COLUMNS)].to_numpy()
    table = predictions[["image_id", "lesion_id", "dx"]].copy()
    table["predicted"] = np.array(CLASSES)[probabilities.argmax(axis=1)]
    table["probability"] = probabilities.max(axis=1)
    table["outcome"] = np.where(table["dx"] == table["predicted"], "correct", "wrong")
    missed = (table["dx"] == "mel") & (table["outcome"] == "wrong")
    table["kind"] = np.where(missed, "missed melanoma", np.where(table["outcome"] == "wrong", "error", "correct"))
    return table


def choose_examples(table: pd.DataFrame, *, max_errors: int, correct_per_class: int) -> pd.DataFrame:
    """Missed melanomas, other errors, then correct predictions a class; the most confident first, ties by `image_id`.

    Parameters
    ----------
    table : as `judge_predictions` gives it, maybe with further columns, which are kept.
    max_errors : most errors, missed melanomas among them.
    correct_per_class : most correct predictions of each class.

    Returns
    -------
    The chosen rows in the order in which they are shown, numbered from 1 in `position`.
    """
    ranked = table.sort_values(["probability", "image_id"], ascending=[False, True])
    wrong = [ranked[ranked["kind"] == kind] for kind in ("missed melanoma", "error")]
    correct = ranked[ranked["outcome"] == "correct"]
    per_class = [correct[correct["dx"] == dx].head(correct_per_class) for dx in CLASSES]
    chosen = pd.concat([pd.concat(wrong).head(max_errors), *per_class])
    return chosen.assign(position=range(1, len(chosen) + 1))
