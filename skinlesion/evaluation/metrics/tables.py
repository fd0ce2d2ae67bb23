"""The metrics of a prediction table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, labels_of
from skinlesion.evaluation.metrics import calibration_scores
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.metrics.classification import ClassificationMetrics


def arrays_of(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (images,), logits and calibrated probabilities, float64 (images, classes), of a prediction table."""
    logits, probabilities = table[list(LOGIT_COLUMNS)], table[list(PROBABILITY_COLUMNS)]
    return labels_of(table), logits.to_numpy(), probabilities.to_numpy()


def metrics_of(table: pd.DataFrame) -> ClassificationMetrics:
    """The metrics of a table of images or of lesions."""
    return ClassificationMetrics(labels_of(table), table[list(PROBABILITY_COLUMNS)].to_numpy())


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
