"""Fine-tune one member of the ensemble on the training list and keep the epoch that is best on validation.

Reads   params `train`, `ensemble.overrides`, `machine`; data/prepared; data/splits/{train,val}.csv, facts.json; data/synthetic
Writes  models/members/MEMBER-SEED/{weights.safetensors,config.json}; metrics/train/MEMBER-SEED.json;
        plots/train/MEMBER-SEED/: history.csv (the metrics of every epoch), and what `train.loggers: [dvclive]` adds

Run as `python -m stages.train --member base --seed 0`. Killed and started again, it goes on from the last finished epoch
(skinlesion/training/checkpoint.py) and ends with the same weights. With several devices or nodes every process runs this
script, and the first one alone writes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric

from skinlesion.artifacts.paths import MEMBERS, METRICS, PLOTS
from skinlesion.artifacts.prepared import PREPARED, PreparedImages, read_prepared
from skinlesion.artifacts.splits import read_split, read_split_facts
from skinlesion.artifacts.synthetic import SYNTHETIC, read_synthetic
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import file_digest, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.base.versions import git_commit, library_versions
from skinlesion.config.params import Params, load_params
from skinlesion.config.schema import MachineParams
from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES
from skinlesion.model import backbones, classifier
from skinlesion.model.network import NetworkSpec, SkinNetwork, build_network, load_pretrained
from skinlesion.training import checkpoint, engine, fit, setup
from skinlesion.training.loggers import open_loggers

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--member", required=True, help="a name of ensemble.members, as base")
    parser.add_argument("--seed", required=True, type=int, help="of the head's weights, the order and the augmentation, >= 0")
    options = parser.parse_args(arguments)
    whole = load_params(check_backbone=True)
    params, machine = member_params(whole, options.member), whole.machine
    splits = {name: read_split(name) for name in ("train", "val")}
    prepared = read_prepared()
    synthetic = read_synthetic(prepared.size)
    synthetic.check_training_list(splits["train"])
    torch.manual_seed(options.seed)
    network = build_network(NetworkSpec.of(params), num_classes=len(CLASSES), size=prepared.size)
    start_sha256 = load_pretrained(network, params.weights, backbone=params.backbone)
    precision = engine.choose_precision(params, machine, network, size=prepared.size)
    fabric = engine.make_fabric(params, machine, precision=precision, seed=options.seed)
    config = describe(params, prepared, member=options.member, seed=options.seed, weights_sha256=start_sha256)
    if fabric.is_global_zero:
        devices = f"{fabric.world_size} x {fabric.device.type}"
        logger.info("training %s (%s) on %s in %s", config.name, params.backbone, devices, precision)
    data = setup.gather_data(prepared, splits, synthetic, with_metadata=params.metadata)
    resume = checkpoint.Checkpoint(resume_key(config, fabric, machine, precision=precision))
    with engine.ending_together(fabric), held_alone(config.name, resume) if fabric.is_global_zero else nullcontext():
        training = setup.build_training(fabric, network, data, params=params, machine=machine, seed=options.seed)
        fitted = fit_and_log(training, config.name, resume)
        if fabric.is_global_zero:
            write(fitted, data, network, replace(config, epoch=fitted.best_epoch), params)
            resume.delete()
    fabric.barrier()


def member_params(params: Params, member: str) -> TrainParams:
    """The section `train` as the member has it."""
    if member not in params.ensemble.members:
        raise PipelineError(f"--member {member} is not in ensemble.members: {', '.join(params.ensemble.members)}")
    return params.member(member)


def describe(
    params: TrainParams, prepared: PreparedImages, *, member: str, seed: int, weights_sha256: str | None
) -> classifier.ClassifierConfig:
    """Where the classifier comes from and how it is loaded; the epoch is not known yet."""
    facts = read_split_facts()
    mean, std = backbones.normalization(params.backbone)
    return classifier.ClassifierConfig(
        member=member,
        seed=seed,
        backbone=params.backbone,
        network=asdict(NetworkSpec.of(params)),
        classes=CLASSES,
        size=prepared.size,
        fit=prepared.fit,
        color_constancy=prepared.color_constancy,
        mean=mean,
        std=std,
        params=params.model_dump(),
        epoch=0,
        weights_sha256=weights_sha256,
        fingerprint=facts.fingerprint,
        images_sha256=file_digest(PREPARED / "images.npy", "sha256"),
        data={"source": facts.source, "synthetic": facts.synthetic},
        git_commit=git_commit(),
        versions=library_versions(),
    )


def resume_key(config: classifier.ClassifierConfig, fabric: Fabric, machine: MachineParams, **facts: Any) -> str:
    """The key of this training's checkpoint: all that decides its result, but for the commit, which may move on."""
    described = {name: value for name, value in vars(config).items() if name not in ("git_commit", "epoch")}
    facts["synthetic_sha256"] = file_digest(SYNTHETIC / "images.npy", "sha256")
    code = [module for name, module in sys.modules.items() if name.startswith("skinlesion.")]
    facts["where"] = f"{fabric.world_size} x {fabric.device.type}"  # of each process's generators the state is saved
    facts["channels_last"] = machine.channels_last  # sums are rounded in another order
    return checkpoint.resume_key(described | facts, [*code, sys.modules[__name__]])


@contextmanager
def held_alone(name: str, resume: checkpoint.Checkpoint) -> Iterator[None]:
    """Keep other processes from this member's outputs, and from this training in DVC's temporary workspaces too."""
    with one_at_a_time(f"train@{name}"), resume.lock():
        yield


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
