"""Measure the classifier on corrupted test images: each kind of corruption at five severities, against the clean images.

Reads   params `robustness`, `bootstrap`, `machine`, of `evaluate` test_time and calibration_bins; models/classifier,
        calibration.json and operating_points.json; data/prepared; data/predictions/test.csv
Writes  metrics/extras/robustness.json (clean, the mean over severities a corruption, and over corruptions);
        plots/extras/robustness/metrics.csv and operating_points.csv (every severity, with intervals and paired differences; 0 is
        clean) and examples.png (one test image under all of them)

Nothing is fitted: calibration and thresholds are those that the main pipeline chose on validation, and the classifier must give
the predictions that lie in data/predictions.
"""

import logging
import time
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import CLASSIFIER, PLOTS
from skinlesion.artifacts.tables import probabilities_of, write_table
from skinlesion.audits.findings import write_extra
from skinlesion.audits.robustness.corruptions import STRENGTHS, Condition
from skinlesion.audits.robustness.measures import (
    BOUNDS,
    METRIC_COLUMNS,
    POINT_COLUMNS,
    SUMMARY,
    measure_table,
    metric_rows,
    point_rows,
    summarize,
)
from skinlesion.audits.robustness.page import draw_corruption_page
from skinlesion.audits.robustness.predictions import CorruptedPredictions
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_folder
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.contents import OperatingPoints
from skinlesion.config.params import load_params
from skinlesion.config.schema import BootstrapParams
from skinlesion.evaluation.metrics.bootstrap import Measured, describe_draws, percentile_intervals
from skinlesion.evaluation.results.decisions import read_operating_points
from skinlesion.evaluation.results.predictions import PREDICTIONS, read_predictions

TOLERANCE = 1e-4  # between probabilities of one classifier on two machines

logger = logging.getLogger(__name__)


def check_reproduced(table: pd.DataFrame, predictions: pd.DataFrame) -> None:
    """Refuse a classifier that does not give the predictions that were evaluated and on which all figures rest."""
    apart = np.abs(probabilities_of(table) - probabilities_of(predictions)).max(axis=1)
    if apart.max() > TOLERANCE:
        raise PipelineError(
            f"classifier and predictions are not of one run: {CLASSIFIER} gives image "
            f"{predictions['image_id'].iloc[int(apart.argmax())]} a probability that differs by {apart.max():.4f} from that in "
            f"{PREDICTIONS / 'test.csv'}: run `dvc repro`, then this stage again"
        )


def measure_conditions(
    corrupted: CorruptedPredictions,
    conditions: list[Condition],
    clean: Measured,
    points: OperatingPoints,
    how: BootstrapParams,
    *,
    bins: int,
) -> tuple[dict[Condition, Measured], dict[str, list[dict[str, Any]]]]:
    """The metrics of each condition, and the rows of the tables `metrics` and `operating_points`."""
    measured_by: dict[Condition, Measured] = {}
    rows: dict[str, list[dict[str, Any]]] = {"metrics": [], "operating_points": []}
    begun = time.monotonic()
    for number, condition in enumerate(conditions, start=1):
        both = [(condition, measure_table(corrupted(condition), points, how, bins=bins))]
        if condition.corruption not in {known.corruption for known in measured_by}:
            both.insert(0, (Condition(condition.corruption, 0, float("nan")), clean))
        for shown, measured in both:
            rows["metrics"] += metric_rows(shown, measured, clean, confidence=how.confidence)
            rows["operating_points"] += point_rows(shown, measured, points, confidence=how.confidence)
        measured_by[condition] = measured
        left = (time.monotonic() - begun) / number * (len(conditions) - number) / 60
        progress = (condition.corruption, condition.severity, measured.values["accuracy"], measured.values["macro_auc"])
        logger.info("%s %d: accuracy %.3f, macro_auc %.3f; about %.1f minutes left", *progress, left)
    return measured_by, rows


@one_at_a_time("robustness")
def main() -> None:
    params = load_params()
    chosen, how = params.robustness, params.bootstrap
    test_time, bins = params.evaluate.test_time, params.evaluate.calibration_bins
    keep_freed_memory()
    predictions, points = read_predictions("test"), read_operating_points()
    corrupted = CorruptedPredictions(predictions, chosen, params.machine, test_time=test_time)
    severities = sorted(chosen.severities)
    conditions = [Condition(name, each, STRENGTHS[name][each - 1]) for name in chosen.corruptions for each in severities]
    begun = time.monotonic()
    check_reproduced(corrupted(None), predictions)
    passes = (len(predictions), len(conditions), (time.monotonic() - begun) * len(conditions) / 60)
    logger.info("%d images under %d conditions: about %.1f minutes", *passes)
    clean = measure_table(predictions, points, how, bins=bins)
    measured_by, rows = measure_conditions(corrupted, conditions, clean, points, how, bins=bins)
    summary = summarize(measured_by, clean, confidence=how.confidence)

    with atomic_folder(PLOTS / "extras" / "robustness") as folder:
        write_table(pd.DataFrame(rows["metrics"]), folder / "metrics.csv", METRIC_COLUMNS)
        write_table(pd.DataFrame(rows["operating_points"]), folder / "operating_points.csv", POINT_COLUMNS)
        first = np.array(corrupted.prepared.images[corrupted.rows[0]])
        shown = (list(chosen.corruptions), severities, folder / "examples.png")
        draw_corruption_page(first, predictions["image_id"].iloc[0], *shown, seed=chosen.seed)
    content = {
        "split": "test",
        "images": len(predictions),
        "lesions": int(predictions["lesion_id"].nunique()),
        "side": corrupted.prepared.size,
        "test_time": test_time,
        "severities": severities,
        "bootstrap": describe_draws(how),
        "clean": {**clean.values, "intervals": percentile_intervals(clean.drawn, how.confidence)},
        **summary,
    }
    write_extra("robustness", content, of=["predictions"])
    for metric in SUMMARY:
        mean = [summary["mean_corruption"][metric][f"mean{bound}"] for bound in BOUNDS]
        against = (clean.values[metric], summary["worst"][metric] or "none")
        logger.info("corrupted %s %.3f (%.3f to %.3f), clean %.3f; worst under %s", metric, *mean, *against)


if __name__ == "__main__":
    run_stage(main)
