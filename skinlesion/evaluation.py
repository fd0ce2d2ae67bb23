"""What is said of a prediction table, and how one is made: for validation and test, and for images of another source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from skinlesion import artifacts, calibration_scores
from skinlesion.base.errors import PipelineError
from skinlesion.calibration import Calibrator
from skinlesion.classifier import Classifier
from skinlesion.diagnoses import CLASSES
from skinlesion.inference import Predicted, soft_vote
from skinlesion.metrics import ClassificationMetrics
from skinlesion.splitting import fingerprint
from skinlesion.test_time import TestTime

LOGIT_DECIMALS = 6  # about what float32 knows of a logit; keeps the tables readable


def check_same_split(splits: dict[str, pd.DataFrame], members: dict[str, Classifier]) -> None:
    """Refuse a classifier that was trained on other lists: it may have seen the test images."""
    if {fingerprint(splits)} != {member.config.fingerprint for member in members.values()}:
        raise PipelineError(
            f"{artifacts.CLASSIFIER} was trained on other lists than those in {artifacts.SPLITS}, so it may have seen the "
            "images that it would be measured on: run `train` again, or `dvc repro`"
        )


def labels_of(frame: pd.DataFrame) -> np.ndarray:
    """Indices into `CLASSES`, int64 (images,)."""
    return pd.Index(CLASSES).get_indexer(frame["dx"]).astype(np.int64)


def arrays_of(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (images,), logits and calibrated probabilities, float64 (images, classes), of a prediction table."""
    logits, probabilities = table[list(artifacts.LOGIT_COLUMNS)], table[list(artifacts.PROBABILITY_COLUMNS)]
    return labels_of(table), logits.to_numpy(), probabilities.to_numpy()


def vote(predicted: dict[str, Predicted], test_time: TestTime) -> np.ndarray:
    """The ensemble's logits, float64 (images, classes), as they are written down, from what each member says."""
    return np.round(soft_vote(list(predicted.values()), test_time=test_time), LOGIT_DECIMALS)


def prediction_table(listed: pd.DataFrame, logits: np.ndarray, calibrator: Calibrator) -> pd.DataFrame:
    """The rows of a list with logits and calibrated probabilities."""
    numbers = np.hstack([logits, calibrator.probabilities(logits)])
    columns = [*artifacts.LOGIT_COLUMNS, *artifacts.PROBABILITY_COLUMNS]
    return pd.concat([listed[list(artifacts.DESCRIPTIVE_COLUMNS)], pd.DataFrame(numbers, listed.index, columns)], axis=1)


def metrics_of(table: pd.DataFrame) -> ClassificationMetrics:
    """The metrics of a table of images or of lesions."""
    return ClassificationMetrics(labels_of(table), table[list(artifacts.PROBABILITY_COLUMNS)].to_numpy())


def describe_table(table: pd.DataFrame, calibrator: Calibrator, bins: int) -> dict[str, Any]:
    """Size, headline metrics, calibration in `bins` bins, and metrics a class, of a prediction table; no intervals."""
    labels, logits, _ = arrays_of(table)
    measured = metrics_of(table)
    return {
        "images": len(table),
        "lesions": int(table["lesion_id"].nunique()),
        **measured.summary(),
        **calibration_scores.calibration_scores(labels, logits, calibrator=calibrator, bins=bins),
        "recalibration": calibration_scores.recalibration_per_class(labels, logits, calibrator),
        "per_class": measured.summary_per_class(),
    }
