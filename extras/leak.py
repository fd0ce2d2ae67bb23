"""Train and score one recipe with and without siblings of its test images in the training list, to measure what a leak adds.

Reads   params `leak`, `train`, `ensemble` (the first member's overrides) and of `split` the folds; data/prepared; data/splits
Writes  metrics/extras/leak.json; data/extras/leak/{image_level,lesion_level}.csv, predictions of the same test images;
        plots/extras/leak/: inflation.csv (the differences with intervals), history.csv (the metrics of every epoch)

What the two trainings are given, and why so: skinlesion/leak.py. The deal by image is made here, from the images of all three
lists, and is seen by nothing else: no param gives the pipeline such a split. With several `leak.seeds` each kind is trained with
each of them and its probabilities are averaged, so that there is one table of predictions a kind, from which every figure and its
paired interval over lesions can be computed again; that interval does not hold what another seed would give, hence each
training's own metrics stand beside it. Synthetic images and `train.loggers` are left out.

Killed and started again it goes on from the last finished epoch of the training that was interrupted.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric

from skinlesion import artifacts, checkpoint, engine, fitting, leak, training_setup
from skinlesion.bootstrap import describe_draws
from skinlesion.classifier import Classifier, ClassifierConfig
from skinlesion.devices import choose_device
from skinlesion.diagnoses import CLASSES
from skinlesion.ensemble import member_metrics, spread
from skinlesion.errors import PipelineError, run_stage
from skinlesion.extra_metrics import write_extra
from skinlesion.files import atomic_folder
from skinlesion.inference import Predicted, predict, soft_vote
from skinlesion.network import NetworkSpec, build_network, load_pretrained
from skinlesion.params import LeakParams, load_params
from skinlesion.splitting import fingerprint
from skinlesion.synthetic_images import SyntheticImages
from skinlesion.tables import write_table
from skinlesion.train_params import TrainParams
from stages.train import describe

TABLES = artifacts.PREDICTIONS.parent / "extras" / "leak"
PLOTS = artifacts.PLOTS / "extras" / "leak"
SAID = {"accuracy": "accuracy", "macro_auc": "macro AUC", "mel_sensitivity": "sensitivity for melanoma"}

logger = logging.getLogger(__name__)


class Trained(NamedTuple):
    """One training: what it was, how it went, what it says of the test images; and its checkpoint, kept until all is written."""

    config: ClassifierConfig
    fitted: fitting.Fitted
    predicted: Predicted
    resume: checkpoint.Checkpoint


def main() -> None:
    params = load_params(check_backbone=True)
    recipe = params.leak_recipe()
    check_one_device(recipe)
    prepared, facts = artifacts.read_prepared(), artifacts.read_split_facts()
    images = pd.concat([artifacts.read_split(name) for name in artifacts.SPLIT_NAMES], ignore_index=True)
    folds = {"folds": params.split.folds, "validation_folds": params.split.validation_folds}
    lists = leak.make_lists(images, **folds, seed=params.leak.seed)
    trained = {
        arm: [train(arm, lists.of(arm), seed, recipe=recipe, prepared=prepared) for seed in params.leak.seeds]
        for arm in leak.ARMS
    }
    votes = {arm: soft_vote([one.predicted for one in each], test_time="none") for arm, each in trained.items()}
    tables = {arm: leak.prediction_table(lists.test, logits) for arm, logits in votes.items()}
    siblings = leak.has_sibling(lists.test, lists.train[leak.IMAGE_LEVEL])
    draws = {"draws": params.leak.bootstrap_draws, "confidence": params.leak.confidence, "seed": params.leak.seed}
    inflation = leak.measure_inflation(tables, siblings.to_numpy(), **draws)
    artifacts.write_predictions(tables, TABLES)
    with atomic_folder(PLOTS) as folder:
        write_table(inflation, folder / "inflation.csv", leak.COLUMNS)
        history = history_table(trained)
        write_table(history, folder / "history.csv", history.columns)
    content = {
        "data": {"source": facts.source, "synthetic": facts.synthetic},
        "fingerprint": facts.fingerprint,
        "bootstrap": describe_draws(**draws),
        **describe_run(lists, trained, params.leak, recipe),
        **leak.describe_inflation(inflation),
    }
    write_extra("leak", content, of=["images", "recipe"])
    for one in chain.from_iterable(trained.values()):
        one.resume.delete()
    report(inflation, leak.count_siblings(lists.test, lists.train[leak.IMAGE_LEVEL])["share"])


def check_one_device(recipe: TrainParams) -> None:
    """Refuse a recipe for several processes: each would run this script, and its trainings follow one another."""
    if recipe.num_nodes > 1 or engine.count_devices(recipe.devices, choose_device(recipe.device)) > 1:
        raise PipelineError(
            f"leak trains on one device, and its recipe asks for train.devices={recipe.devices} on "
            f"train.num_nodes={recipe.num_nodes}: set leak.overrides to {{devices: 1, num_nodes: 1}}"
        )


def train(
    arm: str, lists: dict[str, pd.DataFrame], seed: int, *, recipe: TrainParams, prepared: artifacts.PreparedImages
) -> Trained:
    """Train one network and let it predict the test list; both arms start from the same weights and draw the same numbers."""
    torch.manual_seed(seed)
    network = build_network(NetworkSpec.of(recipe), num_classes=len(CLASSES), size=prepared.size)
    start_sha256 = load_pretrained(network, recipe.weights, backbone=recipe.backbone)
    precision = engine.choose_precision(recipe, network, size=prepared.size)
    fabric = engine.make_fabric(recipe, precision=precision, seed=seed)
    described = describe(recipe, prepared, member=arm, seed=seed, weights_sha256=start_sha256)
    config = replace(described, fingerprint=fingerprint(lists))
    logger.info("training %s (%s) on %s in %s", config.name, recipe.backbone, fabric.device.type, precision)
    none = SyntheticImages(np.empty((0, *prepared.images.shape[1:]), dtype=np.uint8), [], "")
    data = training_setup.gather_data(prepared, lists, none, with_metadata=recipe.metadata)
    resume = checkpoint.Checkpoint(resume_key(config, fabric, precision=precision))
    with resume.lock():
        training = training_setup.build_training(fabric, network, data, params=recipe, seed=seed)
        fitted = fitting.fit(training, checkpoint=resume, on_epoch=lambda metrics: None)
    best = build_network(NetworkSpec.of(recipe), num_classes=len(CLASSES), size=prepared.size)
    best.load_state_dict(fitted.best_state)
    config = replace(config, epoch=fitted.best_epoch)
    options = {"device": fabric.device, "batch_size": recipe.batch_size}
    predicted = predict(Classifier(best.eval(), config), prepared, lists["test"], **options)
    return Trained(config, fitted, predicted, resume)


def resume_key(config: ClassifierConfig, fabric: Fabric, **facts: str) -> str:
    """The key of a training's checkpoint: all that decides its result, but for the commit, which may move on."""
    described = {name: value for name, value in vars(config).items() if name not in ("git_commit", "epoch")}
    code = [module for name, module in sys.modules.items() if name.startswith("skinlesion.")]
    return checkpoint.resume_key(described | facts | {"where": fabric.device.type}, [*code, sys.modules[__name__]])


def describe_run(lists: leak.Lists, trained: dict[str, list[Trained]], params: LeakParams, recipe: TrainParams) -> dict[str, Any]:
    """What metrics/extras/leak.json says of the lists, of who has a sibling, and of each training alone."""
    labels = training_setup.class_indices(lists.test["dx"])
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


def history_table(trained: dict[str, list[Trained]]) -> pd.DataFrame:
    """The metrics of every epoch of every training: `training`, `epoch` (1 is the first), a column a metric."""
    rows = [
        {"training": one.config.name, "epoch": epoch} | {name.replace("/", "_"): value for name, value in metrics.items()}
        for each in trained.values()
        for one in each
        for epoch, metrics in enumerate(one.fitted.history, start=1)
    ]
    return pd.DataFrame(rows)


def report(inflation: pd.DataFrame, share: float) -> None:
    """One line of what siblings in training add to the score of all test images."""
    rows = inflation[inflation["group"] == leak.ALL].set_index("metric")
    said = [
        f"{name} {rows.at[metric, 'inflation']:+.3f} ({rows.at[metric, 'low']:+.3f} to {rows.at[metric, 'high']:+.3f})"
        for metric, name in SAID.items()
    ]
    logger.info("inflation by siblings of %.1f %% of the test images in training: %s", 100 * share, ", ".join(said))


if __name__ == "__main__":
    run_stage(main)
