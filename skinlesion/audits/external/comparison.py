"""A classifier on images of another source beside the test images of its own: both measured in one way, and their difference.

The two sets share no lesion, so each has bootstrap draws of its own, and the interval of a difference is that of the differences
of independent draws. A metric that is a mean over classes runs over those that are present; where the sets differ in that, its
difference would compare two quantities and is undefined (NaN). Accuracy, weighted F1, precision and the share of flagged images
move with the mix of diagnoses, too: their difference is not the classifier's alone.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.config.contents import OperatingPoints
from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.thresholds import audit, target_auc, truth_and_scores
from skinlesion.evaluation.metrics.bootstrap import Measure, Measured
from skinlesion.evaluation.metrics.classification import HEADLINE, ratio
from skinlesion.evaluation.metrics.tables import metrics_of

EXTERNAL, TEST = "external", "test"
OVER_CLASSES: tuple[str, ...] = ("balanced_accuracy", "macro_f1", "macro_auc", "macro_average_precision")
# "The arithmetic mean of the (true positives / positives) across each of the diagnostic categories", by which the ISIC challenge
# of 2018 ranks in task 3 (its page on evaluation). Its scoring takes a tie of two highest probabilities for
# wrong, and `skinlesion.evaluation.metrics.classification` the first of both; calibrated float64 probabilities hardly tie.
CHALLENGE, CHALLENGE_METRIC = "ISIC 2018 task 3: balanced multiclass accuracy", "balanced_accuracy"
PLOT_COLUMNS: tuple[str, ...] = ("set", "metric", "value", "low", "high")
PLOT_NAMES = {EXTERNAL: "external", TEST: "internal test"}
RATES: tuple[str, ...] = ("sensitivity", "specificity", "precision")


def draws_of(name: str, how: BootstrapParams) -> BootstrapParams:
    """The draws of a set. Test has those of params, so that its intervals are those of other stages, external another seed."""
    derived = int(np.random.SeedSequence([how.seed, 1]).generate_state(1)[0])
    return how if name == TEST else how.model_copy(update={"seed": derived})


def absent_classes(tables: dict[str, pd.DataFrame]) -> dict[str, list[str]]:
    """The diagnoses of which a set has no image."""
    return {name: [dx for dx in CLASSES if not (table["dx"] == dx).any()] for name, table in tables.items()}


def headline_measure(table: pd.DataFrame) -> Measure:
    """The headline metrics of a prediction table, and `recall_<class>`, as a function of image weights."""
    measured = metrics_of(table)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        confusion = measured.confusion(weights)
        recalls = ratio(np.einsum("dcc->dc", confusion), confusion.sum(axis=2), undefined=np.nan)
        return measured.headline(weights) | {f"recall_{dx}": recalls[:, index] for index, dx in enumerate(CLASSES)}

    return measure


def measure_beside(
    measures: dict[str, Measure], tables: dict[str, pd.DataFrame], how: BootstrapParams, *, undefined: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Values with intervals of each set, and of their difference.

    Parameters
    ----------
    measures, tables : by `EXTERNAL` and `TEST`.
    undefined : metrics that have no difference.

    Returns
    -------
    `external`, `test` and `difference` (external - test), each `{metric: {"value", "low", "high"}}`, NaN where undefined.
    """
    sets = {name: Measured.of(measure, tables[name]["lesion_id"], draws_of(name, how)) for name, measure in measures.items()}
    sets["difference"] = sets[EXTERNAL].less(sets[TEST])
    sets["difference"].values.update(dict.fromkeys(undefined, np.nan))
    return {name: measured.with_intervals(how.confidence) for name, measured in sets.items()}


def compare_headline(tables: dict[str, pd.DataFrame], how: BootstrapParams) -> dict[str, dict[str, Any]]:
    """`measure_beside` of the headline metrics, of F1 and of recall of each class."""
    absent = absent_classes(tables)
    undefined = OVER_CLASSES if absent[EXTERNAL] != absent[TEST] else ()
    measures = {name: headline_measure(table) for name, table in tables.items()}
    return measure_beside(measures, tables, how, undefined=undefined)


def compare_points(tables: dict[str, pd.DataFrame], operating_points: OperatingPoints, how: BootstrapParams) -> dict[str, Any]:
    """What the frozen thresholds achieve in both sets, and the area under the target's ROC curve."""
    truths = {name: truth_and_scores(table, operating_points.classes) for name, table in tables.items()}
    points = {}
    for point, chosen in operating_points.points.items():
        measures = {name: audit(*truth, chosen.threshold) for name, truth in truths.items()}
        points[point] = {"threshold": chosen.threshold, **measure_beside(measures, tables, how)}
    areas = measure_beside({name: target_auc(*truth) for name, truth in truths.items()}, tables, how)
    return {
        "target": operating_points.target,
        "classes": operating_points.classes,
        "positives": {name: int(positive.sum()) for name, (positive, _) in truths.items()},
        "auc": {name: values["auc"] for name, values in areas.items()},
        "points": points,
    }


def plot_tables(compared: dict[str, dict[str, Any]], points: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Rows of `PLOT_COLUMNS`, by file name: headline metrics, recall of each class, rates of each operating point."""
    plotted = {
        "metrics": [(name, name, compared) for name in HEADLINE],
        "recall": [(dx, f"recall_{dx}", compared) for dx in CLASSES],
        "operating_points": [(f"{name}: {rate}", rate, each) for name, each in points["points"].items() for rate in RATES],
    }
    return {
        table: pd.DataFrame(
            {"set": shown, "metric": label, **found[name][metric]}
            for label, metric, found in rows
            for name, shown in PLOT_NAMES.items()
        )
        for table, rows in plotted.items()
    }
