"""One training of the leak demonstration (extras/leak.py): from its lists to what it says of the test images.

It is put together as stages/train.py is, on one device, without synthetic images and loggers.
"""

import logging
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.artifacts.splits import fingerprint
from skinlesion.artifacts.synthetic import SyntheticImages
from skinlesion.config.schema import MachineParams
from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import Predicted, predict
from skinlesion.model.classifier import Classifier, ClassifierConfig
from skinlesion.model.network import NetworkSpec, build_network
from skinlesion.training import checkpoint, engine, fit, setup

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
    network, start_sha256 = setup.start_network(recipe, size=prepared.size, seed=seed)
    fabric = engine.make_fabric(recipe, machine, seed=seed)
    described = setup.describe_classifier(recipe, prepared, member=arm, seed=seed, weights_sha256=start_sha256)
    config = replace(described, fingerprint=fingerprint(lists))
    logger.info("training %s (%s) on %s in %s", config.name, recipe.backbone, fabric.device.type, engine.precision_of(fabric))
    none = SyntheticImages(np.empty((0, *prepared.images.shape[1:]), dtype=np.uint8), [], "")
    data = setup.gather_data(prepared, lists, none, with_metadata=recipe.metadata)
    resume = checkpoint.Checkpoint(checkpoint.resume_key(config, fabric, stage=__file__, channels_last=machine.channels_last))
    with resume.lock():
        training = setup.build_training(fabric, network, data, params=recipe, machine=machine, seed=seed)
        fitted = fit.fit(training, checkpoint=resume, on_epoch=lambda metrics: None)
    best = build_network(NetworkSpec.of(recipe), num_classes=len(CLASSES), size=prepared.size)
    best.load_state_dict(fitted.best_state)
    config = replace(config, epoch=fitted.best_epoch)
    trained = Classifier(best.eval(), config)
    predicted = predict(trained, prepared, lists["test"], device=fabric.device, batch_size=recipe.batch_size)
    return Trained(config, fitted, predicted, resume)
