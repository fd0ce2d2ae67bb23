"""Fine-tune one member of the ensemble on the training list and keep the epoch that is best on validation.

Reads   params `train`, `ensemble.overrides`, `machine`; data/prepared; data/splits/{train,val}.csv, facts.json; data/synthetic
Writes  models/members/MEMBER-SEED/{weights.safetensors,config.json}; metrics/train/MEMBER-SEED.json;
        plots/train/MEMBER-SEED/: history.csv (the metrics of every epoch), and what `train.loggers: [dvclive]` adds

Run as `python -m stages.train --member base --seed 0`. Killed and started again, it goes on from the last finished epoch
(skinlesion/training/checkpoint.py) and ends with the same weights. With several devices or nodes every process runs this
script, and the first one alone writes.
"""

import argparse
import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pandas as pd

from skinlesion.artifacts.paths import MEMBERS, METRICS, PLOTS
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.artifacts.synthetic import SYNTHETIC, read_synthetic
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import file_digest, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.params import load_params
from skinlesion.config.training import TrainParams
from skinlesion.model import classifier
from skinlesion.model.network import SkinNetwork
from skinlesion.training import checkpoint, engine, fit, setup
from skinlesion.training.loggers import open_loggers

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--member", required=True, help="a name of ensemble.members, as base")
    parser.add_argument("--seed", required=True, type=int, help="of the head's weights, the order and the augmentation, >= 0")
    options = parser.parse_args(arguments)
    whole = load_params()
    if options.member not in whole.ensemble.members:
        raise PipelineError(f"--member {options.member} is not in ensemble.members: {', '.join(whole.ensemble.members)}")
    params, machine = whole.member(options.member), whole.machine
    splits = {name: read_split(name) for name in ("train", "val")}
    prepared = read_prepared()
    synthetic = read_synthetic(prepared.size)
    synthetic.check_training_list(splits["train"])
    network, start_sha256 = setup.start_network(params, size=prepared.size, seed=options.seed)
    fabric = engine.make_fabric(params, machine, seed=options.seed)
    config = setup.describe_classifier(params, prepared, member=options.member, seed=options.seed, weights_sha256=start_sha256)
    if fabric.is_global_zero:
        devices, precision = f"{fabric.world_size} x {fabric.device.type}", engine.precision_of(fabric)
        logger.info("training %s (%s) on %s in %s", config.name, params.backbone, devices, precision)
    data = setup.gather_data(prepared, splits, synthetic, with_metadata=params.metadata)
    drawn = file_digest(SYNTHETIC / "images.npy", "sha256")
    resume = checkpoint.Checkpoint(
        checkpoint.resume_key(config, fabric, stage=__file__, synthetic_sha256=drawn, channels_last=machine.channels_last)
    )
    with engine.ending_together(fabric), ExitStack() as alone:
        if fabric.is_global_zero:  # of this member's outputs, and of exactly this training in DVC's temporary workspaces too
            alone.enter_context(one_at_a_time(f"train@{config.name}"))
            alone.enter_context(resume.lock())
        training = setup.build_training(fabric, network, data, params=params, machine=machine, seed=options.seed)
        fitted = fit_and_log(training, config.name, resume)
        if fabric.is_global_zero:
            write(fitted, data, network, replace(config, epoch=fitted.best_epoch), params)
            resume.delete()
    fabric.barrier()


def fit_and_log(training: Any, name: str, resume: checkpoint.Checkpoint) -> fit.Fitted:
    """Train, and in the first process give every epoch's metrics to the loggers that params name."""
    names = training.params.loggers if training.fabric.is_global_zero else []
    opened = open_loggers(names, PLOTS / "train" / name)

    def log_epoch(metrics: dict[str, float]) -> None:
        for metric_logger in opened:
            metric_logger.log_epoch(metrics)

    fitted = fit.fit(training, checkpoint=resume, on_epoch=log_epoch)
    for metric_logger in opened:
        metric_logger.close()
    return fitted


def write(
    fitted: fit.Fitted,
    data: setup.TrainingData,
    network: SkinNetwork,
    config: classifier.ClassifierConfig,
    params: TrainParams,
) -> None:
    """Write the member, its metrics and its plots."""
    classifier.save_classifier(fitted.best_state, config, MEMBERS / config.name)
    best = fitted.history[fitted.best_epoch - 1]
    summary = {
        "backbone": params.backbone,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "images": {"train": len(data.train), "synthetic": len(data.synthetic), "val": len(data.validation)},
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "train_loss": best["train/loss"],
        "val": {metric.removeprefix("val/"): value for metric, value in best.items() if metric.startswith("val/")},
    }
    write_json(METRICS / "train" / f"{config.name}.json", summary)
    plots = PLOTS / "train" / config.name
    history = pd.DataFrame(fitted.history).rename(columns=lambda column: column.replace("/", "_"))
    history.insert(0, "epoch", range(1, len(history) + 1))
    write_table(history, plots / "history.csv", history.columns)
    logger.info("best epoch %d of %d by %s", fitted.best_epoch, len(fitted.history), params.select_by)


if __name__ == "__main__":
    run_stage(main)
