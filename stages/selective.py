"""Measure what is gained by answering only where the classifier is confident, or with a set of diagnoses.

Reads   section `selective` of params.yaml; data/predictions/{val,test}.csv; models/calibration.json
Writes  metrics/selective.json; models/conformal.json (what a user of the classifier forms sets by); plots/selective/ (risk over
        coverage of both splits; sizes of the sets on test)

Thresholds of confidence are chosen on validation and audited on test. For the sets, validation is dealt in two by lesion: on one
part the calibration is fitted, on one image a lesion of the other the quantile, so that what they promise holds for a new lesion.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.tables import labels_of, logits_of, probabilities_of, write_table
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import SelectiveParams, load_params
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.abstention import (
    area_under_risk_coverage,
    audit_abstention,
    confidence_threshold,
    risk_coverage_curve,
)
from skinlesion.evaluation.analysis.conformal import (
    audit_sets,
    choose_one_image,
    class_scores,
    conformal_quantile,
    deal_lesions,
    prediction_sets,
)
from skinlesion.evaluation.metrics.bootstrap import Measure, bootstrap, describe_draws, percentile_intervals, point_estimate
from skinlesion.evaluation.metrics.calibration import Calibrator, check_calibrated, fit_calibrator
from skinlesion.evaluation.results.decisions import CLASSIFIER_SHA256, read_calibration, write_conformal
from skinlesion.evaluation.results.predictions import PREDICTIONS, read_predictions

CURVE_POINTS = 300
CURVE_COLUMNS = ("split", "coverage", "risk", "confidence")
SIZE_COLUMNS = ("level", "size", "images", "share")

logger = logging.getLogger(__name__)


def judge(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Which images are wrong, bool, and how confident the classifier is of each, float64, both (images,)."""
    probabilities = probabilities_of(table)
    return probabilities.argmax(axis=1) != labels_of(table), probabilities.max(axis=1)


def with_intervals(measure: Measure, lesion_ids: pd.Series, params: SelectiveParams) -> dict[str, Any]:
    """A measure's values and their intervals by bootstrap over lesions."""
    drawn = bootstrap(measure, lesion_ids, draws=params.bootstrap_draws, seed=params.seed)
    return point_estimate(measure, len(lesion_ids)) | {"intervals": percentile_intervals(drawn, params.confidence)}


def describe_abstention(tables: dict[str, pd.DataFrame], params: SelectiveParams) -> dict[str, Any]:
    """What each asked coverage gives: the threshold from validation, its audit on validation and, with intervals, on test."""
    points = {}
    for coverage in params.coverages:
        threshold = confidence_threshold(judge(tables["val"])[1], coverage)
        audits = {
            split: audit_abstention(labels_of(table), probabilities_of(table), threshold) for split, table in tables.items()
        }
        points[f"{coverage:g}"] = {
            "threshold": threshold,
            "val": point_estimate(audits["val"], len(tables["val"])),
            "test": with_intervals(audits["test"], tables["test"]["lesion_id"], params),
        }
    return points


def calibrated_apart(
    tables: dict[str, pd.DataFrame], params: SelectiveParams
) -> tuple[pd.DataFrame, dict[str, np.ndarray], dict[str, Any]]:
    """The part of validation for the quantile, probabilities of it and of test by a calibration fitted on the other, and that.

    Raises
    ------
    PipelineError
        A part has no image.
    """
    val = tables["val"]
    held = deal_lesions(val["lesion_id"], params.conformal_share, seed=params.seed)
    if held.all() or not held.any():
        raise PipelineError(
            f"validation has {val['lesion_id'].nunique()} lesion(s), too few to be dealt in two: use a larger sample, or another "
            "selective.conformal_share"
        )
    fitted, whole = val[~held], read_calibration()
    calibrator = fit_calibrator(labels_of(fitted), logits_of(fitted), whole.method)
    parts = {"held": val[held].reset_index(drop=True), "test": tables["test"]}
    probabilities = {name: calibrator.probabilities(logits_of(part)) for name, part in parts.items()}
    return (
        parts["held"],
        probabilities,
        calibrator.content() | {"test_time": whole.test_time, CLASSIFIER_SHA256: whole.classifier_sha256},
    )


def describe_sets(
    tables: dict[str, pd.DataFrame], params: SelectiveParams
) -> tuple[dict[str, Any], pd.DataFrame, dict[str, Any]]:
    """Coverage and size of the sets of each level on test, how many sets have which size, and how a set is formed."""
    held, probabilities, calibration = calibrated_apart(tables, params)
    options = {"method": params.conformal_method, "penalty": params.raps_penalty, "free": params.raps_free}
    chances = np.random.default_rng(params.seed)
    scores = {name: class_scores(values, chances.random(len(values)), **options) for name, values in probabilities.items()}
    one = choose_one_image(held["lesion_id"], seed=params.seed)
    true_scores = scores["held"][one, labels_of(held)[one]]
    levels, sizes = {}, []
    for level in params.conformal_levels:
        quantile = conformal_quantile(true_scores, level)
        if not np.isfinite(quantile):
            logger.warning("level %g: %d lesions are too few to promise it, so every set holds every diagnosis", level, len(one))
        sets = prediction_sets(scores["test"], quantile)
        audit = audit_sets(labels_of(tables["test"]), sets)
        levels[f"{level:g}"] = {
            "quantile": quantile if np.isfinite(quantile) else None,
            "lesions_of_validation": len(one),
            "test": with_intervals(audit, tables["test"]["lesion_id"], params),
        }
        counts = np.bincount(sets.sum(axis=1), minlength=len(CLASSES) + 1)[1:]
        sizes += [
            {"level": level, "size": size, "images": int(images), "share": images / len(sets)}
            for size, images in enumerate(counts, start=1)
        ]
    quantiles = {name: level["quantile"] for name, level in levels.items()}
    return levels, pd.DataFrame(sizes), options | {"levels": quantiles, "calibration": calibration}


@one_at_a_time("selective")
def main() -> None:
    params = load_params().selective
    tables = {split: read_predictions(split) for split in ("val", "test")}
    for split, table in tables.items():
        check_calibrated(table, Calibrator.of(read_calibration()), name=f"{PREDICTIONS / split}.csv")
    judged = {split: judge(table) for split, table in tables.items()}
    areas = {
        split: with_intervals(area_under_risk_coverage(*judged[split]), table["lesion_id"], params)
        for split, table in tables.items()
    }
    abstention = describe_abstention(tables, params)
    levels, sizes, conformal = describe_sets(tables, params)
    write_conformal(conformal)
    with atomic_folder(PLOTS / "selective") as folder:
        curves = [risk_coverage_curve(*each, most=CURVE_POINTS).assign(split=split) for split, each in judged.items()]
        write_table(pd.concat(curves), folder / "risk_coverage.csv", CURVE_COLUMNS)
        write_table(sizes, folder / "set_sizes.csv", SIZE_COLUMNS)
    draws = describe_draws(draws=params.bootstrap_draws, confidence=params.confidence, seed=params.seed)
    content = {"bootstrap": draws, "risk_coverage": areas, "abstention": abstention, "conformal": levels}
    write_json(METRICS / "selective.json", content)
    for name, point in abstention.items():
        test = point["test"]
        said = "coverage %s: on test %.3f answered, accuracy %.3f, %.3f of the melanomas answered with another diagnosis"
        logger.info(said, name, test["coverage"], test["accuracy"], test["melanomas_missed"])
    for name, level in levels.items():
        test = level["test"]
        logger.info("sets of level %s: on test coverage %.3f, mean size %.2f", name, test["coverage"], test["size"])


if __name__ == "__main__":
    run_stage(main)
