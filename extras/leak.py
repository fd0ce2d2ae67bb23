"""Train and score one recipe with and without siblings of its test images in the training list, to measure what a leak adds.

Reads   params `leak`, `train`, `bootstrap`, `machine` (of its devices one), `ensemble` (the first member's overrides) and of
        `split` the folds; data/prepared; data/splits
Writes  metrics/extras/leak.json; data/extras/leak/{image_level,lesion_level}.csv, predictions of the same test images;
        plots/extras/leak/: inflation.csv (the differences with intervals), history.csv (the metrics of every epoch)

What the two trainings are given, and why so: skinlesion/audits/leak.py. The deal by image is made here, from the images of all
three lists, and is seen by nothing else: no param gives the pipeline such a split. With several `leak.seeds` each kind is
trained with each of them and its probabilities are averaged, so that there is one table of predictions a kind, from which every
figure and its paired interval over lesions can be computed again; that interval does not hold what another seed would give. So
each training's own metrics stand beside it, and a difference is the leak's only as far as it exceeds that of the control, the
test images without a sibling. Synthetic images and `train.loggers` are left out.

Killed and started again it goes on from the last finished epoch of the training that was interrupted.
"""

import itertools
import logging
from itertools import chain
from typing import Any

import pandas as pd

from extras.leak_training import Trained, train
from skinlesion.artifacts.paths import PLOTS
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import SPLIT_NAMES, read_split, read_split_facts
from skinlesion.artifacts.tables import labels_of, write_table
from skinlesion.audits import leak
from skinlesion.audits.findings import write_extra
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.audits import LeakParams
from skinlesion.config.params import load_params
from skinlesion.config.training import TrainParams
from skinlesion.evaluation.inference.ensemble import member_metrics, spread
from skinlesion.evaluation.inference.inference import soft_vote
from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.evaluation.results.predictions import PREDICTIONS, write_predictions

TABLES = PREDICTIONS.parent / "extras" / "leak"
LEAK_PLOTS = PLOTS / "extras" / "leak"
NAMES = {"accuracy": "accuracy", "macro_auc": "macro AUC", "mel_sensitivity": "sensitivity for melanoma"}

logger = logging.getLogger(__name__)


@one_at_a_time("leak")
def main() -> None:
    params = load_params()
    recipe = params.leak_recipe()
    prepared, facts = read_prepared(), read_split_facts()
    images = pd.concat([read_split(name) for name in SPLIT_NAMES], ignore_index=True)
    folds = {"folds": params.split.folds, "validation_folds": params.split.validation_folds}
    lists = leak.make_lists(images, **folds, seed=params.leak.seed)
    machine = params.machine.model_copy(update={"devices": 1, "num_nodes": 1})
    trained = {
        arm: [train(arm, lists.of(arm), seed, recipe=recipe, machine=machine, prepared=prepared) for seed in params.leak.seeds]
        for arm in leak.ARMS
    }
    votes = {arm: soft_vote([one.predicted for one in each], test_time="none") for arm, each in trained.items()}
    tables = {arm: leak.prediction_table(lists.test, logits) for arm, logits in votes.items()}
    siblings = leak.has_sibling(lists.test, lists.train[leak.IMAGE_LEVEL])
    inflation = leak.measure_inflation(tables, siblings.to_numpy(), params.bootstrap)
    write_predictions(tables, TABLES)
    with atomic_folder(LEAK_PLOTS) as folder:
        write_table(inflation, folder / "inflation.csv", leak.COLUMNS)
        history = pd.DataFrame(
            {"training": one.config.name, "epoch": epoch} | {name.replace("/", "_"): value for name, value in metrics.items()}
            for one in itertools.chain(*trained.values())
            for epoch, metrics in enumerate(one.fitted.history, start=1)
        )
        write_table(history, folder / "history.csv", history.columns)
    content = {
        "data": {"source": facts.source, "synthetic": facts.synthetic},
        "fingerprint": facts.fingerprint,
        "bootstrap": describe_draws(params.bootstrap),
        **describe_run(lists, trained, params.leak, recipe),
        **leak.describe_inflation(inflation),
    }
    write_extra("leak", content, of=["images", "recipe"])
    for one in chain.from_iterable(trained.values()):
        one.resume.delete()
    report(inflation, leak.count_siblings(lists.test, lists.train[leak.IMAGE_LEVEL])["share"])


def describe_run(lists: leak.Lists, trained: dict[str, list[Trained]], params: LeakParams, recipe: TrainParams) -> dict[str, Any]:
    """What metrics/extras/leak.json says of the lists, of who has a sibling, and of each training alone."""
    labels = labels_of(lists.test)
    alone = {arm: [member_metrics(labels, one.predicted.logits) for one in each] for arm, each in trained.items()}
    differences = [
        {metric: image_level[metric] - lesion_level[metric] for metric in image_level}
        for image_level, lesion_level in zip(alone[leak.IMAGE_LEVEL], alone[leak.LESION_LEVEL], strict=True)
    ]
    return {
        "recipe": {"backbone": recipe.backbone, "weights": recipe.weights, "epochs": recipe.epochs, "seeds": params.seeds},
        "lists": {
            "dealt": leak.describe_list(lists.dealt),
            **{arm: leak.describe_list(lists.train[arm]) for arm in leak.ARMS},
            "val": leak.describe_list(lists.val),
            "test": leak.describe_list(lists.test),
        },
        "siblings": {
            "dealt": leak.count_siblings(lists.test, lists.dealt),
            "image_level": leak.count_siblings(lists.test, lists.train[leak.IMAGE_LEVEL]),
        },
        "trainings": {
            one.config.name: {"best_epoch": one.config.epoch, **metrics}
            for arm, each in trained.items()
            for one, metrics in zip(each, alone[arm], strict=True)
        },
        "spread_over_seeds": spread(differences),
    }


def report(inflation: pd.DataFrame, share: float) -> None:
    """One line: the difference on all test images, and beside it on the control, which tells noise from the leak."""
    told = {}
    for group, part in inflation.groupby("group"):
        rows = part.set_index("metric")
        told[group] = ", ".join(
            f"{name} {rows.at[metric, 'inflation']:+.3f} ({rows.at[metric, 'low']:+.3f} to {rows.at[metric, 'high']:+.3f})"
            for metric, name in NAMES.items()
        )
    line = "siblings of %.1f %% of the test images in training: %s; control, test images without a sibling: %s"
    logger.info(line, 100 * share, told[leak.ALL], told.get(leak.WITHOUT, "none"))


if __name__ == "__main__":
    run_stage(main)
