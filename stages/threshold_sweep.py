"""Choose operating points of the target on validation and audit them on test.

Reads   params `threshold_sweep` and `bootstrap`; data/predictions/{val,test}.csv; of models/calibration.json whose it is.
Writes  models/operating_points.json (what a user of the classifier applies); metrics/threshold_sweep.json (what each point
        achieves on both splits, with intervals on test, and its predictive values at other prevalences);
        plots/threshold_sweep/ (the curves, the points and the decision curve of test as CSV).

Validation values carry no interval: the thresholds were chosen to give them.
"""

import logging
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.evaluation import ThresholdSweepParams
from skinlesion.config.params import load_params
from skinlesion.config.schema import BootstrapParams
from skinlesion.evaluation.analysis import thresholds
from skinlesion.evaluation.analysis.decision_curve import at_prevalence, decision_curve
from skinlesion.evaluation.analysis.thresholds import Rule, sweep
from skinlesion.evaluation.metrics.bootstrap import bootstrap_intervals, describe_draws, estimate
from skinlesion.evaluation.results.decisions import CLASSIFIER_SHA256, read_calibration, write_operating_points
from skinlesion.evaluation.results.predictions import read_predictions

CURVE_POINTS = 300
CURVE_COLUMNS = ("split", "threshold", "sensitivity", "specificity", "precision", "f1", "flagged")
POINT_KEYS = ("rule", "constraint", "threshold", "val")  # of a point, in models/operating_points.json

Truth = tuple[np.ndarray, np.ndarray]

logger = logging.getLogger(__name__)


def describe_split(truth: Truth, lesion_ids: pd.Series, how: BootstrapParams) -> dict[str, Any]:
    """Size, prevalence and AUC of the target in a split; the AUC, which no threshold was chosen for, with its interval."""
    return {
        "images": len(truth[0]),
        "lesions": int(lesion_ids.nunique()),
        "positives": int(truth[0].sum()),
        "prevalence": float(truth[0].mean()),
        **estimate(thresholds.target_auc(*truth), lesion_ids, how),
    }


def list_rules(params: ThresholdSweepParams) -> list[Rule]:
    """The operating points that params ask for, and Youden's."""
    asked = {
        "recall": params.recall_constraints,
        "specificity": params.specificity_constraints,
        "cost": params.cost_ratios,
        "guaranteed": params.guaranteed_recalls,
    }
    return [*(Rule(kind, value) for kind, values in asked.items() for value in values), Rule("youden")]


def choose_thresholds(rules: list[Rule], truth: Truth, lesion_ids: pd.Series, params: ThresholdSweepParams) -> dict[str, float]:
    """The threshold of each point, by name, from the truth and scores of validation."""
    chosen = {rule.name: thresholds.choose_threshold(rule, *truth, lesion_ids, guarantee=params.guarantee) for rule in rules}
    for name in (rule.name for rule in rules if rule.kind == "guaranteed" and chosen[rule.name] == 0):
        lesions = lesion_ids[truth[0]].nunique()
        message = "%s: %d lesions of the target on validation are too few to promise it: everything is flagged"
        logger.warning(message, name, lesions)
    return chosen


def describe_point(
    rule: Rule, threshold: float, truths: dict[str, Truth], lesion_ids: pd.Series, prevalences: list[float], how: BootstrapParams
) -> dict[str, Any]:
    """What a threshold achieves on validation and on test, with intervals over the lesions of test."""
    rates = thresholds.audit(*truths["test"], threshold)
    return {
        "rule": rule.kind,
        "constraint": rule.value,
        "threshold": threshold,
        "val": thresholds.achieved(*truths["val"], threshold),
        "test": thresholds.achieved(*truths["test"], threshold),
        "intervals": bootstrap_intervals(rates, lesion_ids, how),
        "at_prevalence": {f"{each:g}": estimate(at_prevalence(rates, each), lesion_ids, how) for each in prevalences},
    }


@one_at_a_time("threshold-sweep")
def main() -> None:
    params, how = load_params().threshold_sweep, load_params().bootstrap
    classes = params.target_classes()
    tables = {split: read_predictions(split) for split in ("val", "test")}
    truths = {split: thresholds.target_scores(table, classes, split=split) for split, table in tables.items()}

    rules = list_rules(params)
    chosen = choose_thresholds(rules, truths["val"], tables["val"]["lesion_id"], params)
    lesion_ids = tables["test"]["lesion_id"]
    points = {rule.name: describe_point(rule, chosen[rule.name], truths, lesion_ids, params.prevalences, how) for rule in rules}
    splits = {split: describe_split(truths[split], table["lesion_id"], how) for split, table in tables.items()}

    content: dict[str, Any] = {"target": params.target, "classes": classes, "score": "sum of calibrated probabilities"}
    content |= {"rule": "flag when score >= threshold", "chosen_on": "val"}
    content |= {CLASSIFIER_SHA256: read_calibration().classifier_sha256}
    applied = {name: {key: point[key] for key in POINT_KEYS} for name, point in points.items()}
    write_operating_points(content | {"points": applied})
    with atomic_folder(PLOTS / "threshold_sweep") as folder:
        curves = [sweep(*truth, list(chosen.values()), most=CURVE_POINTS).assign(split=split) for split, truth in truths.items()]
        write_table(pd.concat(curves), folder / "curve.csv", CURVE_COLUMNS)
        write_table(thresholds.point_rows(points), folder / "operating_points.csv", thresholds.POINT_COLUMNS)
        benefit = decision_curve(*truths["test"])
        write_table(benefit, folder / "decision_curve.csv", benefit.columns)
    described = {"target": params.target, "classes": classes, "bootstrap": describe_draws(how), **splits, "points": points}
    write_json(METRICS / "threshold_sweep.json", described)
    for name, point in points.items():
        test, (low, high) = point["test"], point["intervals"]["sensitivity"].values()
        message = "%s: threshold %.4f, on test sensitivity %.3f (%.3f to %.3f), specificity %.3f"
        logger.info(message, name, point["threshold"], test["sensitivity"], low, high, test["specificity"])


if __name__ == "__main__":
    run_stage(main)
