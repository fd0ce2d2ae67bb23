"""What nearest training cases are worth: how many share the truth, what their vote reaches, and what its agreement tells."""

from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import labels_of, probabilities_of
from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import Measured
from skinlesion.evaluation.metrics.classification import ClassificationMetrics, area_under_roc, flagged_counts, rank_scores, ratio
from skinlesion.explanation.neighbors.search import vote

METRICS: tuple[str, ...] = ("accuracy", "balanced_accuracy", "mel_sensitivity", "mel_specificity")
ALL = "all"


def measure_neighbors(test: pd.DataFrame, labels: np.ndarray, training: pd.DataFrame, how: BootstrapParams) -> dict[str, Any]:
    """Everything that `metrics/neighbors.json` says of N images and their `k` neighbours, intervals by bootstrap over lesions.

    Parameters
    ----------
    test : a prediction table of N images.
    labels : int (N, k), the neighbours' classes as indices into `CLASSES`, the nearest first.
    training : the list that was searched, `lesion_id` and `dx`.

    Returns
    -------
    Values with `low` and `high`, of differences those of the paired bootstrap; NaN where undefined.

    share_of_truth : share of an image's neighbours that have its true class, mean over all images and over those of each
        class; beside it the class's share of the training lesions, which neighbours drawn at random would have.
    metrics : each of `METRICS` of the neighbours' vote and of the network, and vote less network.
    agreement : the network's accuracy where the vote is what it predicts, and where not; the first less the second.
    error_detection : AUC with which the share of neighbours that have the predicted class, and the network's confidence, rank
        right predictions above wrong ones; the first less the second.
    """
    probabilities, truth = probabilities_of(test), labels_of(test)
    network, voted = ClassificationMetrics(truth, probabilities), vote(labels)
    by_vote = ClassificationMetrics(truth, np.eye(len(CLASSES))[voted])
    agree, right = voted == network.predicted, network.predicted == truth
    supporting = (labels == network.predicted[:, None]).mean(axis=1)
    scores = {"neighbors": rank_scores(right, supporting), "confidence": rank_scores(right, probabilities.max(axis=1))}
    groups = {ALL: np.ones(len(test), dtype=bool)} | {dx: truth == index for index, dx in enumerate(CLASSES)}
    shared = (labels == truth[:, None]).mean(axis=1)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = {f"share.{name}": _mean(weights, shared, group) for name, group in groups.items()}
        both = {"vote": by_vote.headline(weights), "network": network.headline(weights)}
        values |= {f"{name}.{metric}": each[metric] for name, each in both.items() for metric in METRICS}
        values |= {f"difference.{metric}": both["vote"][metric] - both["network"][metric] for metric in METRICS}
        accuracies = {"agree": _mean(weights, right, agree), "disagree": _mean(weights, right, ~agree)}
        values |= accuracies | {"agreement": accuracies["agree"] - accuracies["disagree"]}
        areas = {name: area_under_roc(*flagged_counts(ranking, weights)) for name, ranking in scores.items()}
        return values | areas | {"detection": areas["neighbors"] - areas["confidence"]}

    found = Measured.of(measure, test["lesion_id"], how).with_intervals(how.confidence)
    lesions = training.groupby("lesion_id")["dx"].first().value_counts(normalize=True)
    return {
        "share_of_truth": {
            ALL: _sizes(test, groups[ALL]) | found[f"share.{ALL}"],
            "by_class": {
                dx: _sizes(test, groups[dx]) | found[f"share.{dx}"] | {"training_lesions": float(lesions.get(dx, 0.0))}
                for dx in CLASSES
            },
        },
        "metrics": {
            metric: {name: found[f"{name}.{metric}"] for name in ("vote", "network", "difference")} for metric in METRICS
        },
        "agreement": {
            "agree": _sizes(test, agree) | found["agree"],
            "disagree": _sizes(test, ~agree) | found["disagree"],
            "difference": found["agreement"],
        },
        "error_detection": {**{name: found[name] for name in scores}, "difference": found["detection"]},
    }


def _mean(weights: np.ndarray, values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Weighted mean over the images of a group, (draws,); NaN in draws without any."""
    return ratio(weights[:, group] @ values[group].astype(np.float64), weights[:, group].sum(axis=1), undefined=np.nan)


def _sizes(test: pd.DataFrame, group: np.ndarray) -> dict[str, int]:
    """Images and lesions of a group."""
    return {"images": int(group.sum()), "lesions": int(test.loc[group, "lesion_id"].nunique())}
