"""Measure the classifier on validation and test; the only stage that runs it over them.

Reads   params `evaluate`, `bootstrap` and `machine`; models/classifier; data/prepared; data/splits/{train,val,test}.csv (of
        train the diagnoses alone, for the baseline) and facts.json
Writes  data/predictions/{val,test}.csv; models/calibration.json; metrics/evaluate.json; plots/evaluate/ (of test, as CSV)

The members' probabilities, and those of `test_time` views, are averaged, then the calibration is fitted on validation. Every
metric but the `_before` ones and those of `members` and `spread` is of calibrated probabilities and can be computed again from
the prediction tables, whose logits are the log of the mean probability where any were averaged. `per_lesion` is of one prediction
a lesion, the mean of its images' probabilities. What a metric is where it is undefined:
skinlesion/evaluation/metrics/classification.py.
"""

import logging
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import SPLIT_NAMES, read_split, read_split_facts
from skinlesion.artifacts.tables import labels_of, write_table
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.devices import choose_device
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import Params, load_params
from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.ensemble import describe_members
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.evaluation.inference.inference import predict_ensemble
from skinlesion.evaluation.inference.predictions import check_same_split, prediction_table, vote
from skinlesion.evaluation.metrics.bootstrap import bootstrap_intervals, describe_draws
from skinlesion.evaluation.metrics.calibration import TEMPERATURE_RANGE, Calibrator, fit_calibrator
from skinlesion.evaluation.metrics.classification import ClassificationMetrics
from skinlesion.evaluation.metrics.lesions import predict_lesions
from skinlesion.evaluation.metrics.plot_tables import plot_tables
from skinlesion.evaluation.metrics.tables import describe_table, headline_with_intervals, metrics_of
from skinlesion.evaluation.results.decisions import CLASSIFIER_SHA256, write_calibration
from skinlesion.evaluation.results.predictions import write_predictions
from skinlesion.model.classifier import load_ensemble

logger = logging.getLogger(__name__)


@one_at_a_time("evaluate")
def main() -> None:
    whole = load_params()
    params, machine = whole.evaluate, whole.machine
    keep_freed_memory()
    splits = {name: read_split(name) for name in SPLIT_NAMES}
    members, prepared = load_ensemble(), read_prepared()
    check_same_split(splits, members)
    device, size, views = choose_device(machine.device), machine.batch_size, params.test_time
    predicted = {
        name: predict_ensemble(members, prepared, splits[name], device=device, batch_size=size, test_time=views)
        for name in ("val", "test")
    }
    logits = {name: vote(each, params.test_time) for name, each in predicted.items()}

    calibrator = fit_calibrator(labels_of(splits["val"]), logits["val"], params.calibration)
    if calibrator.temperature in TEMPERATURE_RANGE:
        warning = "temperature %.2f is an end of the searched range: calibrated probabilities are not reliable"
        logger.warning(warning, calibrator.temperature)
    tables = {name: prediction_table(splits[name], values, calibrator) for name, values in logits.items()}
    alone = describe_members(predicted, {name: labels_of(splits[name]) for name in predicted})
    measured = measure_and_write(tables, calibrator, splits["train"], whole, alone, classifier=classifier_digest())
    for name in ("accuracy", "balanced_accuracy", "macro_auc", "mel_sensitivity"):
        low, high = measured["test"]["intervals"][name].values()
        logger.info("test %s %.3f (%.3f to %.3f)", name, measured["test"][name], low, high)


def measure_and_write(
    tables: dict[str, pd.DataFrame],
    calibrator: Calibrator,
    train: pd.DataFrame,
    whole: Params,
    alone: dict[str, Any],
    *,
    classifier: str | None,
) -> dict[str, Any]:
    """Measure the prediction tables of `val` and `test`, and write everything that the stage writes; what evaluate.json holds.

    train : the training list. alone : what each member reaches alone, as `ensemble.describe_members` gives it.
    classifier : digest of the one that predicted; None where its weights are not kept.
    """
    facts, prior, params, how = read_split_facts(), class_shares(train), whole.evaluate, whole.bootstrap
    metrics = {name: measure_split(table, calibrator, prior, how, bins=params.calibration_bins) for name, table in tables.items()}
    write_predictions(tables)
    write_calibration(calibrator.content() | {"test_time": params.test_time, CLASSIFIER_SHA256: classifier})
    with atomic_folder(PLOTS / "evaluate") as folder:
        for name, frame in plot_tables(tables["test"], metrics["test"], calibrator, params.calibration_bins).items():
            write_table(frame, folder / f"{name}.csv", frame.columns)
    described = {
        "data": {"source": facts.source, "synthetic": facts.synthetic},
        CLASSIFIER_SHA256: classifier,
        "test_time": params.test_time,
        "calibration": params.calibration,
        "bootstrap": describe_draws(how),
        **metrics,
        **alone,
    }
    write_json(METRICS / "evaluate.json", described)
    return described


def class_shares(frame: pd.DataFrame) -> np.ndarray:
    """Share of each class in a list, float64 (classes,)."""
    return np.bincount(labels_of(frame), minlength=len(CLASSES)) / len(frame)


def measure_split(
    table: pd.DataFrame, calibrator: Calibrator, prior: np.ndarray, how: BootstrapParams, *, bins: int
) -> dict[str, Any]:
    """Everything that metrics/evaluate.json says of a split."""
    by_lesion = predict_lesions(table)
    return {
        **describe_table(table, calibrator, bins),
        "intervals": bootstrap_intervals(metrics_of(table).headline, table["lesion_id"], how),
        "per_lesion": headline_with_intervals(metrics_of(by_lesion), by_lesion["lesion_id"], how),
        "majority_baseline": majority_baseline(labels_of(table), prior),
    }


def majority_baseline(labels: np.ndarray, prior: np.ndarray) -> dict[str, Any]:
    """Headline metrics of giving every image the class shares of the training list, and so its most frequent class."""
    measured = ClassificationMetrics(labels, np.tile(prior, (len(labels), 1)))
    return {"class": CLASSES[int(prior.argmax())], **measured.summary()}


if __name__ == "__main__":
    run_stage(main)
