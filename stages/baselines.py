"""Measure what little information gives: the patient's metadata alone, and the image's colours alone.

Reads   section `baselines` of params.yaml; data/prepared; data/splits/{train,test}.csv; data/predictions/test.csv
Writes  metrics/baselines.json; plots/baselines/models.csv (the baselines and, beside them, the classifier)

Trained on the training list; nothing is chosen for them, on validation or elsewhere. The share of the most frequent class is in
metrics/evaluate.json.
"""

import logging

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import SPLITS, read_split
from skinlesion.artifacts.tables import labels_of, write_table
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.evaluation import BaselinesParams
from skinlesion.config.params import load_params
from skinlesion.evaluation.analysis import baselines
from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.evaluation.metrics.classification import HEADLINE, ClassificationMetrics
from skinlesion.evaluation.metrics.tables import headline_with_intervals, metrics_of
from skinlesion.evaluation.results.predictions import read_predictions

COLUMNS = ("model", "metric", "value", "low", "high")

logger = logging.getLogger(__name__)


def predict_baselines(train: pd.DataFrame, test: pd.DataFrame, params: BaselinesParams) -> dict[str, np.ndarray]:
    """Probabilities of the test images, float64 (images, classes), by each baseline."""
    prepared, labels = read_prepared(), labels_of(train)
    if len(np.unique(labels)) < 2:
        raise PipelineError(f"{SPLITS / 'train.csv'} holds one diagnosis, and nothing can be learnt from that")
    histograms = [
        np.sqrt(baselines.color_histograms(prepared.images, prepared.rows_of(frame["image_id"]), bins=params.color_bins))
        for frame in (train, test)
    ]
    known = [encode_metadata(frame) for frame in (train, test)]
    models = {
        "metadata": (baselines.metadata_model(seed=params.seed), *known),
        "colors": (baselines.color_model(), *histograms),
    }
    return {name: baselines.fit_predict(model, seen, labels, wanted) for name, (model, seen, wanted) in models.items()}


@one_at_a_time("baselines")
def main() -> None:
    params, how = load_params().baselines, load_params().bootstrap
    train, test, predictions = read_split("train"), read_split("test"), read_predictions("test")
    described = {
        name: headline_with_intervals(ClassificationMetrics(labels_of(test), probabilities), test["lesion_id"], how)
        for name, probabilities in predict_baselines(train, test, params).items()
    }
    classifier = headline_with_intervals(metrics_of(predictions), predictions["lesion_id"], how)
    rows = [
        {"model": name, "metric": metric, "value": values[metric], **values["intervals"][metric]}
        for name, values in (described | {"classifier": classifier}).items()
        for metric in HEADLINE
    ]
    with atomic_folder(PLOTS / "baselines") as folder:
        write_table(pd.DataFrame(rows), folder / "models.csv", COLUMNS)
    write_json(METRICS / "baselines.json", {"split": "test", "bootstrap": describe_draws(how)} | described)
    for name, values in described.items():
        balanced, area = values["balanced_accuracy"], values["macro_auc"]
        logger.info("%s alone: on test balanced accuracy %.3f, macro_auc %.3f", name, balanced, area)


if __name__ == "__main__":
    run_stage(main)
