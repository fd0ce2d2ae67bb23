"""Fine-tune a torchvision network on the training list and keep the epoch that is best on validation.

Reads   params `train`; data/prepared; data/splits/{train,val}.csv and facts.json
Writes  models/classifier/{weights.safetensors,config.json}; metrics/train.json; plots/train/ (curves)

Killed and started again, it goes on from the last finished epoch (skinlesion/checkpoint.py) and ends with the same weights.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from skinlesion import artifacts, backbones, checkpoint, classifier, engine, loading, metric_loggers, training, transforms
from skinlesion.diagnoses import CLASSES
from skinlesion.errors import run_stage
from skinlesion.files import file_digest, write_json
from skinlesion.params import TrainParams, load_params
from skinlesion.versions import git_commit, library_versions

logger = logging.getLogger(__name__)

# Their source decides the result, so a checkpoint of other code is not resumed from.
TRAINING_CODE = (artifacts, backbones, classifier, engine, loading, training, transforms, sys.modules[__name__])


def main() -> None:
    params = load_params(check_backbone=True).train
    prepared = artifacts.read_prepared()
    facts = artifacts.read_split_facts()
    splits = {name: artifacts.read_split(name) for name in ("train", "val")}
    fabric = engine.make_fabric(device=params.device, precision=params.precision, seed=params.seed)
    model = backbones.build_backbone(params.backbone, num_classes=len(CLASSES), size=prepared.size)
    weights_sha256 = backbones.load_pretrained(model, params.weights, backbone=params.backbone)
    mean, std = backbones.normalization(params.backbone)
    config = classifier.ClassifierConfig(
        backbone=params.backbone,
        classes=CLASSES,
        size=prepared.size,
        fit=prepared.fit,
        mean=mean,
        std=std,
        params=params.model_dump(),
        epoch=0,
        weights_sha256=weights_sha256,
        fingerprint=facts.fingerprint,
        images_sha256=file_digest(artifacts.PREPARED / "images.npy", "sha256"),
        data={"source": facts.source, "synthetic": facts.synthetic},
        git_commit=git_commit(),
        versions=library_versions(),
    )
    logger.info("training %s on %s in %s", params.backbone, fabric.device, fabric.strategy.precision.precision)

    resume = checkpoint.Checkpoint(resume_key(config))
    with resume.lock():
        setup = build_training(fabric, model, prepared, splits, params=params)
        fitted = fit_and_log(setup, params, resume)
        classifier.save_classifier(fitted.best_state, replace(config, epoch=fitted.best_epoch))
        write_json(artifacts.METRICS / "train.json", summary(fitted, params, model))
        resume.delete()
    logger.info("best epoch %d of %d by %s", fitted.best_epoch, len(fitted.history), params.select_by)


def fit_and_log(setup: training.Training, params: TrainParams, resume: checkpoint.Checkpoint) -> training.Fitted:
    """Train, and give every epoch's metrics to the loggers that params name."""
    loggers = metric_loggers.open_loggers(params.loggers, artifacts.PLOTS / "train")

    def log_epoch(metrics: dict[str, float]) -> None:
        for metric_logger in loggers:
            metric_logger.log_epoch(metrics)

    fitted = training.fit(setup, params, checkpoint=resume, on_epoch=log_epoch)
    for metric_logger in loggers:
        metric_logger.close()
    return fitted


def build_training(
    fabric: Fabric,
    model: nn.Module,
    prepared: artifacts.PreparedImages,
    splits: dict[str, pd.DataFrame],
    *,
    params: TrainParams,
) -> training.Training:
    """Set up data (`train` and `val` of `splits`), loss, optimizer and schedule around the network."""
    code = {dx: index for index, dx in enumerate(CLASSES)}
    rows = {name: prepared.rows_of(splits[name]["image_id"]) for name in ("train", "val")}
    labels = {name: splits[name]["dx"].map(code).to_numpy(dtype=np.int64) for name in ("train", "val")}
    augment = transforms.train_transform(params.augmentation, size=prepared.size)
    images = loading.AugmentedImages(prepared.images, rows["train"], labels["train"], transform=augment)
    sampler = loading.SeededShuffle(len(images), seed=params.seed)
    on_cuda = fabric.device.type == "cuda"
    batches = loading.train_loader(images, sampler, batch_size=params.batch_size, pin_memory=on_cuda)
    validation = loading.plain_loader(prepared.images, rows["val"], labels["val"])
    chosen = loading.choose_some(len(images), params.batch_norm_images, seed=params.seed)
    statistics = loading.plain_loader(prepared.images, rows["train"][chosen], labels["train"][chosen])
    loaders = fabric.setup_dataloaders(batches, validation, statistics, use_distributed_sampler=False)

    weight = training.class_weights(labels["train"], scheme=params.class_weights)
    criterion = nn.CrossEntropyLoss(weight=weight, label_smoothing=params.label_smoothing).to(fabric.device)
    optimizer = training.make_optimizer(model, lr=params.lr, weight_decay=params.weight_decay)
    warmup_steps, total_steps = round(params.warmup_epochs * len(batches)), params.epochs * len(batches)
    factor = partial(training.warmup_cosine, warmup_steps=warmup_steps, total_steps=total_steps)
    schedule = LambdaLR(optimizer, factor)
    fabric_model, fabric_optimizer = fabric.setup(model.to(memory_format=torch.channels_last), optimizer)
    mean, std = backbones.normalization(params.backbone)
    standardize = partial(classifier.standardize, mean=mean, std=std)
    return training.Training(
        fabric=fabric,
        model=fabric_model,
        optimizer=fabric_optimizer,
        schedule=schedule,
        criterion=criterion,
        normalize=lambda images: standardize(images.permute(0, 2, 3, 1)),
        sampler=sampler,
        train_batches=loaders[0],
        validation_batches=loaders[1],
        statistics_batches=loaders[2],
    )


def resume_key(config: classifier.ClassifierConfig) -> str:
    """The key of this training's checkpoint: all of its config and code, but for the commit, which may move on."""
    facts = {name: value for name, value in vars(config).items() if name not in ("git_commit", "epoch")}
    return checkpoint.resume_key(facts, TRAINING_CODE)


def summary(fitted: training.Fitted, params: TrainParams, model: nn.Module) -> dict[str, Any]:
    """What `dvc metrics show` tells of a training: the best epoch and its validation metrics."""
    best = fitted.history[fitted.best_epoch - 1]
    return {
        "backbone": params.backbone,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": len(fitted.history),
        "best_epoch": fitted.best_epoch,
        "train_loss": best["train/loss"],
        "val": {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")},
    }


if __name__ == "__main__":
    run_stage(main)
