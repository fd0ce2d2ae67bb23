"""Which predictions are shown: every missed melanoma, then the errors, doubts and typical successes that teach most."""

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import labels_of, predicted_of, probabilities_of
from skinlesion.diagnoses import CLASSES

MISSED_MELANOMA, CONFIDENT_ERROR = "missed melanoma", "confident error"
UNSURE_CORRECT, TYPICAL_CORRECT = "unsure correct", "typical correct"
KINDS = (MISSED_MELANOMA, CONFIDENT_ERROR, UNSURE_CORRECT, TYPICAL_CORRECT)

TIE_DECIMALS = 9  # of a distance to the median: the two middle ones of an even number tie, whatever the rounding of their halves

# Diagnoses as the pages show them: the one that must not be missed first.
SHOWN_CLASSES = ("mel", *(dx for dx in CLASSES if dx != "mel"))


def judge_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Compare each prediction with the truth.

    Parameters
    ----------
    predictions : a table as `skinlesion.evaluation.results.predictions.read_predictions` gives it.

    Returns
    -------
    Its `image_id`, `lesion_id` and `dx`, with `predicted` (the most probable class), the calibrated `probability` of that class
    and `probability_true` of the diagnosis, both in [0, 1], and the `outcome` (correct | wrong).
    """
    probabilities = probabilities_of(predictions)
    table = predictions[["image_id", "lesion_id", "dx"]].copy()
    table["predicted"] = predicted_of(predictions)
    table["probability"] = probabilities.max(axis=1)
    table["probability_true"] = probabilities[np.arange(len(table)), labels_of(table)]
    table["outcome"] = np.where(table["dx"] == table["predicted"], "correct", "wrong")
    return table


def choose_cases(table: pd.DataFrame, *, confident_errors: int, unsure_correct: int, typical_correct: int) -> pd.DataFrame:
    """All missed melanomas, the most confident other errors, the least confident correct predictions, typical ones a class.

    Typical is a correct prediction as confident as the median of its class's correct predictions, or as near to it as there is.
    Ties go by `image_id`; no image is chosen twice.

    Parameters
    ----------
    table : as `judge_predictions` gives it, maybe with further columns, which are kept.
    confident_errors, unsure_correct : most images of these kinds, over all classes.
    typical_correct : most images of this kind of each class, those excepted that are shown as unsure.

    Returns
    -------
    The chosen rows in the order in which they are shown, numbered from 1 in `position`, with their `kind` (of `KINDS`).
    """
    surest = table.sort_values(["probability", "image_id"], ascending=[False, True])
    wrong, is_melanoma = surest["outcome"] == "wrong", surest["dx"] == "mel"
    correct = table[table["outcome"] == "correct"]
    unsure = correct.sort_values(["probability", "image_id"]).head(unsure_correct)
    typical = [_most_typical(correct[correct["dx"] == dx], typical_correct, shown=unsure["image_id"]) for dx in SHOWN_CLASSES]
    chosen = {
        MISSED_MELANOMA: surest[wrong & is_melanoma],
        CONFIDENT_ERROR: surest[wrong & ~is_melanoma].head(confident_errors),
        UNSURE_CORRECT: unsure,
        TYPICAL_CORRECT: pd.concat(typical),
    }
    cases = pd.concat([rows.assign(kind=kind) for kind, rows in chosen.items()])
    return cases.assign(position=range(1, len(cases) + 1))


def _most_typical(correct: pd.DataFrame, number: int, *, shown: pd.Series) -> pd.DataFrame:
    """Of a class's correct predictions those nearest to their median confidence, the nearest first, without those shown."""
    distance = (correct["probability"] - correct["probability"].median()).abs().round(TIE_DECIMALS)
    ranked = correct.assign(distance=distance).sort_values(["distance", "image_id"]).drop(columns="distance")
    return ranked[~ranked["image_id"].isin(shown)].head(number)
