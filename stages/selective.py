"""Measure what is gained by answering only where the classifier is confident, or with a set of diagnoses.

Reads   params `selective` and `bootstrap`; data/predictions/{val,test}.csv; models/calibration.json
Writes  metrics/selective.json; models/conformal.json (what a user of the classifier forms sets by); plots/selective/ (risk over
        coverage of both splits; sizes of the sets on test)

Thresholds of confidence are chosen on validation and audited on test. For the sets, validation is dealt in two by lesion: on one
part the calibration is fitted, on one image a lesion of the other the quantile, so that what they promise holds for a new lesion.
"""

import logging
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.tables import labels_of, logits_of, probabilities_of, write_table
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.evaluation import SelectiveParams
from skinlesion.config.params import load_params
from skinlesion.config.schema import BootstrapParams
from skinlesion.evaluation.analysis import abstention, conformal
from skinlesion.evaluation.metrics.bootstrap import describe_draws, estimate, point_estimate
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


def describe_abstention(tables: dict[str, pd.DataFrame], params: SelectiveParams, how: BootstrapParams) -> dict[str, Any]:
    """What each asked coverage gives: the threshold from validation, its audit on validation and, with intervals, on test."""
    points = {}
    for coverage in params.coverages:
        threshold = abstention.confidence_threshold(judge(tables["val"])[1], coverage)
        audits = {
            split: abstention.audit_abstention(labels_of(table), probabilities_of(table), threshold)
            for split, table in tables.items()
        }
        points[f"{coverage:g}"] = {
            "threshold": threshold,
            "val": point_estimate(audits["val"], len(tables["val"])),
            "test": estimate(audits["test"], tables["test"]["lesion_id"], how),
        }
    return points


def score_apart(
    tables: dict[str, pd.DataFrame], params: SelectiveParams, rule: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Scores of the true class of one image a lesion of a part of validation, of each class of test, and their calibration.

    The calibration is fitted on the rest of validation.
    """
    val, whole = tables["val"], read_calibration()
    held = conformal.deal_lesions(val["lesion_id"], params.conformal_share, seed=params.seed)
    calibrator = fit_calibrator(labels_of(val[~held]), logits_of(val[~held]), whole.method)
    chances = np.random.default_rng(params.seed)
    scores = [
        conformal.class_scores(calibrator.probabilities(logits_of(part)), chances.random(len(part)), **rule)
        for part in (val[held], tables["test"])
    ]
    one = conformal.choose_one_image(val.loc[held, "lesion_id"], seed=params.seed)
    calibration = calibrator.content() | {"test_time": whole.test_time, CLASSIFIER_SHA256: whole.classifier_sha256}
    return scores[0][one, labels_of(val[held])[one]], scores[1], calibration


def describe_sets(
    tables: dict[str, pd.DataFrame], params: SelectiveParams, how: BootstrapParams
) -> tuple[dict[str, Any], pd.DataFrame, dict[str, Any]]:
    """Coverage and size of the sets of each level on test, how many sets have which size, and how a set is formed."""
    rule = {"method": params.conformal_method, "penalty": params.raps_penalty, "free": params.raps_free}
    true_scores, scores, calibration = score_apart(tables, params, rule)
    levels, sets = {}, {}
    for level in params.conformal_levels:
        quantile = conformal.conformal_quantile(true_scores, level)
        if not np.isfinite(quantile):
            message = "level %g: %d lesions are too few to promise it, so every set holds every diagnosis"
            logger.warning(message, level, len(true_scores))
        sets[level] = conformal.prediction_sets(scores, quantile)
        levels[f"{level:g}"] = {
            "quantile": quantile if np.isfinite(quantile) else None,
            "lesions_of_validation": len(true_scores),
            "test": estimate(conformal.audit_sets(labels_of(tables["test"]), sets[level]), tables["test"]["lesion_id"], how),
        }
    quantiles = {name: level["quantile"] for name, level in levels.items()}
    return levels, conformal.size_table(sets), rule | {"levels": quantiles, "calibration": calibration}


@one_at_a_time("selective")
def main() -> None:
    params, how = load_params().selective, load_params().bootstrap
    tables = {split: read_predictions(split) for split in ("val", "test")}
    for split, table in tables.items():
        check_calibrated(table, Calibrator.of(read_calibration()), name=f"{PREDICTIONS / split}.csv")
    judged = {split: judge(table) for split, table in tables.items()}
    areas = {
        split: estimate(abstention.area_under_risk_coverage(*judged[split]), table["lesion_id"], how)
        for split, table in tables.items()
    }
    points = describe_abstention(tables, params, how)
    levels, sizes, rule = describe_sets(tables, params, how)
    write_conformal(rule)
    with atomic_folder(PLOTS / "selective") as folder:
        curves = [abstention.risk_coverage_curve(*each, most=CURVE_POINTS).assign(split=split) for split, each in judged.items()]
        write_table(pd.concat(curves), folder / "risk_coverage.csv", CURVE_COLUMNS)
        write_table(sizes, folder / "set_sizes.csv", SIZE_COLUMNS)
    content = {"bootstrap": describe_draws(how), "risk_coverage": areas, "abstention": points, "conformal": levels}
    write_json(METRICS / "selective.json", content)
    for name, point in points.items():
        test = point["test"]
        message = "coverage %s: on test %.3f answered, accuracy %.3f, %.3f of the melanomas answered with another diagnosis"
        logger.info(message, name, test["coverage"], test["accuracy"], test["melanomas_missed"])
    for name, level in levels.items():
        test = level["test"]
        logger.info("sets of level %s: on test coverage %.3f, mean size %.2f", name, test["coverage"], test["size"])


if __name__ == "__main__":
    run_stage(main)
