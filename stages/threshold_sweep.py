"""Choose operating points of the target on validation and audit them on test.

Reads   section `threshold_sweep` of params.yaml; data/predictions/{val,test}.csv.
Writes  models/operating_points.json (what a user of the classifier applies); metrics/threshold_sweep.json (what each point
        achieves on both splits, with intervals on test); plots/threshold_sweep/ (the curves and the points as CSV).

Validation values carry no interval: the thresholds were chosen to give them.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts import METRICS, PLOTS, read_predictions, write_operating_points
from skinlesion.bootstrap import bootstrap, describe_draws, percentile_intervals, point_estimate
from skinlesion.errors import run_stage
from skinlesion.files import atomic_folder, write_json
from skinlesion.params import ThresholdSweepParams, load_params
from skinlesion.tables import write_table
from skinlesion.thresholds import achieved, audit, choose_thresholds, point_name, sweep, target_auc, target_scores

CURVE_POINTS = 300
CURVE_COLUMNS = ("split", "threshold", "sensitivity", "specificity", "precision", "f1", "flagged")
POINT_COLUMNS = (
    *("point", "split", "threshold", "sensitivity", "sensitivity_low", "sensitivity_high"),
    *("specificity", "specificity_low", "specificity_high", "precision", "f1", "flagged"),
)

Truth = tuple[np.ndarray, np.ndarray]

logger = logging.getLogger(__name__)


def describe_split(truth: Truth, lesion_ids: pd.Series, params: ThresholdSweepParams) -> dict[str, Any]:
    """Size, prevalence and AUC of the target in a split; the AUC, which no threshold was chosen for, with its interval."""
    measure = target_auc(*truth)
    drawn = bootstrap(measure, lesion_ids, draws=params.bootstrap_draws, seed=params.seed)
    return {
        "images": len(truth[0]),
        "lesions": int(lesion_ids.nunique()),
        "positives": int(truth[0].sum()),
        "prevalence": float(truth[0].mean()),
        **point_estimate(measure, len(truth[0])),
        "intervals": percentile_intervals(drawn, params.confidence),
    }


def describe_points(
    thresholds: dict[str, float], truths: dict[str, Truth], lesion_ids: pd.Series, params: ThresholdSweepParams
) -> dict[str, Any]:
    """What each threshold achieves on validation and on test, with intervals over the lesions of test."""
    constraints: dict[str, float | None] = {point_name(constraint): constraint for constraint in params.recall_constraints}
    points = {}
    for name, threshold in thresholds.items():
        drawn = bootstrap(audit(*truths["test"], threshold), lesion_ids, draws=params.bootstrap_draws, seed=params.seed)
        points[name] = {
            "constraint": constraints.get(name),
            "threshold": threshold,
            "val": achieved(*truths["val"], threshold),
            "test": achieved(*truths["test"], threshold),
            "intervals": percentile_intervals(drawn, params.confidence),
        }
    return points


def point_rows(points: dict[str, Any]) -> pd.DataFrame:
    """The points as a table, a row a point and split; intervals in the rows of test alone."""
    rows = []
    for name, point in points.items():
        ends = {
            f"{rate}_{end}": point["intervals"][rate][end] for rate in ("sensitivity", "specificity") for end in ("low", "high")
        }
        rows.append({"point": name, "split": "val", "threshold": point["threshold"], **point["val"]})
        rows.append({"point": name, "split": "test", "threshold": point["threshold"], **point["test"], **ends})
    return pd.DataFrame(rows)


def main() -> None:
    """Run the stage."""
    params = load_params().threshold_sweep
    classes = params.target_classes()
    tables = {split: read_predictions(split) for split in ("val", "test")}
    truths = {split: target_scores(table, classes, split=split) for split, table in tables.items()}

    thresholds = choose_thresholds(*truths["val"], params.recall_constraints)
    points = describe_points(thresholds, truths, tables["test"]["lesion_id"], params)
    splits = {split: describe_split(truths[split], table["lesion_id"], params) for split, table in tables.items()}

    write_operating_points(
        {
            "target": params.target,
            "classes": classes,
            "score": "sum of calibrated probabilities",
            "rule": "flag when score >= threshold",
            "chosen_on": "val",
            "points": {name: {key: point[key] for key in ("constraint", "threshold", "val")} for name, point in points.items()},
        }
    )
    with atomic_folder(PLOTS / "threshold_sweep") as folder:
        curves = [
            sweep(*truth, list(thresholds.values()), most=CURVE_POINTS).assign(split=split) for split, truth in truths.items()
        ]
        write_table(pd.concat(curves), folder / "curve.csv", CURVE_COLUMNS)
        write_table(point_rows(points), folder / "operating_points.csv", POINT_COLUMNS)
    draws = describe_draws(draws=params.bootstrap_draws, confidence=params.confidence, seed=params.seed)
    described = {"target": params.target, "classes": classes, "bootstrap": draws, **splits, "points": points}
    write_json(METRICS / "threshold_sweep.json", described)
    for name, point in points.items():
        said = f"{name}: threshold {point['threshold']:.4f}, on test sensitivity {point['test']['sensitivity']:.3f}"
        low, high = point["intervals"]["sensitivity"].values()
        logger.info("%s (%.3f to %.3f), specificity %.3f", said, low, high, point["test"]["specificity"])


if __name__ == "__main__":
    run_stage(main)
