"""One training of the leak demonstration (extras/leak.py): from its lists to what it says of the test images.

It is put together as stages/train.py is, on one device, without synthetic images and loggers.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric

from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.artifacts.splits import fingerprint
from skinlesion.artifacts.synthetic import SyntheticImages
from skinlesion.config.schema import MachineParams
from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import Predicted, predict
from skinlesion.model.classifier import Classifier, ClassifierConfig
from skinlesion.model.network import NetworkSpec, build_network, load_pretrained
from skinlesion.training import checkpoint, engine, fit, setup
from stages.train import describe

logger = logging.getLogger(__name__)


class Trained(NamedTuple):
    """One training: what it was, how it went, what it says of the test images; and its checkpoint, kept until all is written."""

    config: ClassifierConfig
    fitted: fit.Fitted
    predicted: Predicted
    resume: checkpoint.Checkpoint


def train(
    arm: str, lists: dict[str, pd.DataFrame], seed: int, *, recipe: TrainParams, machine: MachineParams, prepared: PreparedImages
) -> Trained:
    """Train one network and let it predict the test list; both arms start from the same weights and draw the same numbers.

    machine : of one device: each of several processes would run the script, in which the trainings follow one another.
    """
    torch.manual_seed(seed)
    network = build_network(NetworkSpec.of(recipe), num_classes=len(CLASSES), size=prepared.size)
    start_sha256 = load_pretrained(network, recipe.weights, backbone=recipe.backbone)
    precision = engine.choose_precision(recipe, machine, network, size=prepared.size)
    fabric = engine.make_fabric(recipe, machine, precision=precision, seed=seed)
    described = describe(recipe, prepared, member=arm, seed=seed, weights_sha256=start_sha256)
    config = replace(described, fingerprint=fingerprint(lists))
    logger.info("training %s (%s) on %s in %s", config.name, recipe.backbone, fabric.device.type, precision)
    none = SyntheticImages(np.empty((0, *prepared.images.shape[1:]), dtype=np.uint8), [], "")
    data = setup.gather_data(prepared, lists, none, with_metadata=recipe.metadata)
    resume = checkpoint.Checkpoint(resume_key(config, fabric, machine, precision=precision))
    with resume.lock():
        training = setup.build_training(fabric, network, data, params=recipe, machine=machine, seed=seed)
        fitted = fit.fit(training, checkpoint=resume, on_epoch=lambda metrics: None)
    best = build_network(NetworkSpec.of(recipe), num_classes=len(CLASSES), size=prepared.size)
    best.load_state_dict(fitted.best_state)
    config = replace(config, epoch=fitted.best_epoch)
    options = {"device": fabric.device, "batch_size": recipe.batch_size}
    predicted = predict(Classifier(best.eval(), config), prepared, lists["test"], **options)
    return Trained(config, fitted, predicted, resume)


def resume_key(config: ClassifierConfig, fabric: Fabric, machine: MachineParams, **facts: Any) -> str:
    """The key of a training's checkpoint: all that decides its result, but for the commit, which may move on."""
    described = {name: value for name, value in vars(config).items() if name not in ("git_commit", "epoch")}
    code = [module for name, module in sys.modules.items() if name.startswith("skinlesion.")]
    facts |= {"where": fabric.device.type, "channels_last": machine.channels_last}
    return checkpoint.resume_key(described | facts, [*code, sys.modules[__name__]])
