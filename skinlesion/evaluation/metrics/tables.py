"""The metrics of a prediction table."""

from typing import Any

import pandas as pd

from skinlesion.artifacts.tables import labels_of, logits_of, probabilities_of
from skinlesion.config.schema import BootstrapParams
from skinlesion.evaluation.metrics import calibration_scores
from skinlesion.evaluation.metrics.bootstrap import bootstrap_intervals
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.metrics.classification import ClassificationMetrics


def metrics_of(table: pd.DataFrame) -> ClassificationMetrics:
    """The metrics of a table of images or of lesions."""
    return ClassificationMetrics(labels_of(table), probabilities_of(table))


def headline_with_intervals(measured: ClassificationMetrics, lesion_ids: pd.Series, how: BootstrapParams) -> dict[str, Any]:
    """`HEADLINE` metrics, and their `intervals` by bootstrap over lesions."""
    return measured.summary() | {"intervals": bootstrap_intervals(measured.headline, lesion_ids, how)}


def describe_table(table: pd.DataFrame, calibrator: Calibrator, bins: int) -> dict[str, Any]:
    """Size, headline metrics, calibration in `bins` bins, and metrics a class, of a prediction table; no intervals."""
    labels, logits, measured = labels_of(table), logits_of(table), metrics_of(table)
    return {
        "images": len(table),
        "lesions": int(table["lesion_id"].nunique()),
        **measured.summary(),
        **calibration_scores.calibration_scores(labels, logits, calibrator=calibrator, bins=bins),
        "recalibration": calibration_scores.recalibration_per_class(labels, logits, calibrator),
        "per_class": measured.summary_per_class(),
    }
