"""What a classifier fails on and a person would want to see: missed melanomas, and errors made with confidence."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import labels_of, predicted_of, probabilities_of
from skinlesion.config.contents import OperatingPoints
from skinlesion.evaluation.analysis.thresholds import target_scores
from skinlesion.evaluation.metrics.lesions import predict_lesions
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS

FAILURES = Path("data/failures")
MELANOMA = "mel"
COLUMNS: tuple[str, ...] = (
    *DESCRIPTIVE_COLUMNS,
    *("predicted", "confidence", "probability_of_truth", "rank_of_truth"),
    *("missed_melanoma", "confident_error", "flagged_at", "lesion_images", "lesion_predicted"),
)


def list_failures(table: pd.DataFrame, points: OperatingPoints, *, min_confidence: float) -> pd.DataFrame:
    """Every missed melanoma and every confident error of a prediction table.

    Parameters
    ----------
    table : as `skinlesion.evaluation.results.predictions.read_predictions` gives it.
    min_confidence : probability of a wrong diagnosis at or above which the error is a confident one, 0 to 1.

    Returns
    -------
    A row an image, columns `COLUMNS`: first the missed melanomas by rising probability of melanoma, then the other errors by
    falling confidence, ties by `image_id`.

    predicted, confidence : the most probable class, and its calibrated probability.
    probability_of_truth, rank_of_truth : the true class's, and its place among the seven, 1 being the most probable.
    missed_melanoma : a melanoma whose most probable class is another one.
    confident_error : wrong with `confidence` >= `min_confidence`.
    flagged_at : names of the operating points that flag the image, joined by spaces; empty where none does.
    lesion_images, lesion_predicted : how many images of the lesion the table has, and the most probable class of their mean.
    """
    probabilities, truth = probabilities_of(table), labels_of(table)
    order = np.argsort(-probabilities, axis=1, kind="stable")  # among equal probabilities the first class leads, as in metrics
    rows = table.assign(
        predicted=predicted_of(table),
        confidence=probabilities.max(axis=1),
        probability_of_truth=probabilities[np.arange(len(table)), truth],
        rank_of_truth=(order == truth[:, None]).argmax(axis=1) + 1,
        flagged_at=flagging_points(table, points),
    )
    rows["missed_melanoma"] = (rows["dx"] == MELANOMA) & (rows["predicted"] != MELANOMA)
    rows["confident_error"] = (rows["dx"] != rows["predicted"]) & (rows["confidence"] >= min_confidence)
    lesions = predict_lesions(table)
    of_lesion = {"lesion_id": lesions["lesion_id"], "lesion_images": lesions["images"], "lesion_predicted": predicted_of(lesions)}
    rows = rows.merge(pd.DataFrame(of_lesion), on="lesion_id", validate="many_to_one")
    failed = rows[rows["missed_melanoma"] | rows["confident_error"]]
    place = np.where(failed["missed_melanoma"], failed["probability_of_truth"], 1 - failed["confidence"])
    ordered = failed.assign(after=~failed["missed_melanoma"], place=place).sort_values(["after", "place", "image_id"])
    return ordered[list(COLUMNS)].reset_index(drop=True)


def flagging_points(table: pd.DataFrame, points: OperatingPoints) -> pd.Series:
    """Names of the operating points that flag each image of a prediction table, joined by spaces, in the order of `points`."""
    scores = target_scores(table, points.classes, split="test")[1]
    flagged = {name: scores >= point.threshold for name, point in points.points.items()}
    joined = [" ".join(name for name, flags in flagged.items() if flags[row]) for row in range(len(table))]
    return pd.Series(joined, index=table.index)


def count_failures(failures: pd.DataFrame, table: pd.DataFrame, points: OperatingPoints) -> dict[str, Any]:
    """What `list_failures` found in `table`, as numbers of images and lesions; a share of nothing is None."""
    melanomas = table[table["dx"] == MELANOMA]
    missed, confident = failures[failures["missed_melanoma"]], failures[failures["confident_error"]]
    errors = int((predicted_of(table) != table["dx"]).sum())
    flagged = missed["flagged_at"].str.split()
    pairs = confident.groupby(["dx", "predicted"]).size().sort_values(ascending=False, kind="stable")
    lost = missed.loc[missed["lesion_predicted"] != MELANOMA, "lesion_id"].nunique()
    return {
        "images": len(table),
        "errors": errors,
        "melanomas": {"images": len(melanomas), "lesions": int(melanomas["lesion_id"].nunique())},
        "missed_melanomas": {
            "images": len(missed),
            "lesions": int(missed["lesion_id"].nunique()),
            "lesions_missed_by_the_mean_of_their_images": int(lost),
            "confident": int(missed["confident_error"].sum()),
            # Of the images whose most probable class is not melanoma, how many each operating point flags all the same.
            "flagged_at": {name: int(flagged.map(lambda names, name=name: name in names).sum()) for name in points.points},
        },
        "confident_errors": {
            "images": len(confident),
            "lesions": int(confident["lesion_id"].nunique()),
            "share_of_errors": len(confident) / errors if errors else None,
            "by_pair": [{"dx": dx, "predicted": to, "images": int(number)} for (dx, to), number in pairs.items()],
        },
    }
