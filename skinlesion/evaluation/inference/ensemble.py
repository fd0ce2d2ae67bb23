"""How good each member of an ensemble is alone, and how far they lie apart."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax

from skinlesion.evaluation.inference.inference import Predicted
from skinlesion.evaluation.metrics.classification import LEADING, ClassificationMetrics


def member_metrics(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """`HEADLINE` metrics of one member alone: of the images as they are, without test-time views and without calibration.

    A temperature would not change what it predicts; AUC and average precision, which compare images, it can change a little.

    labels : int (images,), indices into `CLASSES`. logits : float (images, classes).
    """
    return ClassificationMetrics(labels, softmax(logits.astype(np.float64), axis=1)).summary()


def spread(members: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (of the sample, so None for one member), smallest and largest of `LEADING` over members.

    None where a metric is undefined.
    """
    described = {}
    for name in LEADING:
        values = np.array([member[name] for member in members], dtype=np.float64)
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        described[name] = {"mean": values.mean(), "sd": deviation, "min": values.min(), "max": values.max()}
    return described


def describe_members(predicted: Mapping[str, Mapping[str, Predicted]], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What metrics/evaluate.json says of the members: each one's `member_metrics`, and their `spread`, by split.

    predicted : by split and member. labels : of the images of a split.
    """
    measured = {
        split: {name: member_metrics(labels[split], one.logits) for name, one in each.items()}
        for split, each in predicted.items()
    }
    names = next(iter(measured.values()))
    return {
        "members": {name: {split: each[name] for split, each in measured.items()} for name in names},
        "spread": {split: spread(list(each.values())) for split, each in measured.items()},
    }
