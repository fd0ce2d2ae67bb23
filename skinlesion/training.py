"""The training loop: one epoch of optimisation, one validation, and the fit that repeats them, keeps the best and resumes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from skinlesion.checkpoint import Checkpoint
from skinlesion.diagnoses import CLASSES
from skinlesion.errors import PipelineError
from skinlesion.loading import SeededShuffle
from skinlesion.params import TrainParams

logger = logging.getLogger(__name__)

# uint8 (B, 3, H, W) to the network's input.
Normalize = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Training:
    """All that one training is made of; `fit` drives it. `model` and `optimizer` are Fabric's wrappers."""

    fabric: Fabric
    model: Any
    optimizer: Any
    schedule: LambdaLR
    criterion: nn.Module
    normalize: Normalize
    sampler: SeededShuffle
    train_batches: Any
    validation_batches: Any
    statistics_batches: Any  # training images without augmentation, for batch norm; empty to keep the running averages


@dataclass
class Fitted:
    """What `fit` found: metrics of every epoch, and the weights (CPU) of the best one; epochs count from 1."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)


def class_weights(labels: np.ndarray, *, scheme: str) -> torch.Tensor | None:
    """Weights of the classes in the loss, float32 (7,), or None for `none`.

    `inverse` is 1 / n_c, `sqrt_inverse` its square root, n_c the training images of class c; scaled so that the mean
    weight over the training images is 1. A class without an image gets weight 0.
    """
    if scheme == "none":
        return None
    counts = np.bincount(labels, minlength=len(CLASSES)).astype(np.float64)
    power = {"inverse": 1.0, "sqrt_inverse": 0.5}[scheme]
    weights = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0.0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def make_optimizer(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) that decays matrices and kernels, and leaves biases and norms alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr)


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Factor on the learning rate at `step` (0 is the first): linear rise to 1, then a half cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train_step(training: Training, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One optimizer step on a batch of uint8 (B, 3, H, W) and int64 (B,); returns the detached loss, on the device."""
    loss = training.criterion(training.model(training.normalize(images)).float(), labels)
    training.fabric.backward(loss)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def train_one_epoch(training: Training, *, description: str) -> dict[str, float]:
    """Optimise over all batches once; returns the mean training loss and the learning rate at the end.

    Raises
    ------
    PipelineError
        The loss is not finite.
    """
    training.model.train()
    total, images_seen = torch.zeros((), device=training.fabric.device), 0
    with tqdm(total=len(training.sampler), desc=description, unit="img", disable=None, leave=False) as progress:
        for images, labels in training.train_batches:
            total += train_step(training, images, labels) * len(labels)
            training.schedule.step()
            images_seen += len(labels)
            progress.update(len(labels))
    mean_loss = float(total) / images_seen
    if not math.isfinite(mean_loss):
        raise PipelineError(f"{description}: the training loss is {mean_loss}: lower train.lr, or use precision 32")
    return {"train/loss": mean_loss, "train/lr": training.schedule.get_last_lr()[0]}


def recompute_batch_norm(training: Training) -> None:
    """Compute batch norm's means and variances anew, over training images as evaluation shows them: without augmentation.

    The running averages are those of the last few augmented batches, and a validation with them jumps from epoch to epoch
    ("precise batch norm": Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, section 3).
    """
    if len(training.statistics_batches):
        update_bn((training.normalize(images) for images, _ in training.statistics_batches), training.model)


@torch.inference_mode()
def validate(training: Training) -> dict[str, float]:
    """Run the network over the validation list; returns `validation_metrics`."""
    training.model.eval()
    logits, labels = [], []
    for images, targets in training.validation_batches:
        logits.append(training.model(training.normalize(images)).float().cpu().numpy())
        labels.append(targets.cpu().numpy())
    return validation_metrics(np.concatenate(logits), np.concatenate(labels))


def validation_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics that `train.select_by` can name, from logits (N, 7) and class indices (N,); `val/loss` is the plain NLL.

    Means over classes are taken over those that the list holds.

    Raises
    ------
    PipelineError
        A logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise PipelineError("validation: the network gives logits that are not finite: lower train.lr, or use precision 32")
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    predicted = logits.argmax(axis=1)
    present = [index for index in range(len(CLASSES)) if 0 < (labels == index).sum() < len(labels)]
    recalls = recall_score(labels, predicted, labels=np.unique(labels), average=None, zero_division=0)
    aucs = [roc_auc_score(labels == index, np.exp(log_probabilities[:, index])) for index in present]
    melanoma = labels == CLASSES.index("mel")
    return {
        "val/loss": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "val/accuracy": float(accuracy_score(labels, predicted)),
        "val/balanced_accuracy": float(recalls.mean()),
        "val/macro_f1": float(f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)),
        "val/macro_auc": float(np.mean(aucs)) if aucs else math.nan,
        "val/mel_recall": float((predicted[melanoma] == CLASSES.index("mel")).mean()) if melanoma.any() else math.nan,
    }


def is_better(value: float, best: float, *, select_by: str) -> bool:
    """Whether a validation metric has improved: loss falls, everything else rises."""
    return value < best if select_by == "loss" else value > best


def fit(
    training: Training,
    params: TrainParams,
    *,
    checkpoint: Checkpoint,
    on_epoch: Callable[[dict[str, float]], None],
) -> Fitted:
    """Train until the last epoch, or until `patience` epochs brought no better `select_by`; resumes from `checkpoint`.

    `on_epoch` is called with the metrics of every epoch in order, first with those of epochs trained before a resume.
    """
    fitted = _resume(training, checkpoint)
    for metrics in fitted.history:
        on_epoch(metrics)
    while len(fitted.history) < params.epochs and len(fitted.history) - fitted.best_epoch < params.patience:
        epoch = len(fitted.history) + 1
        started = time.perf_counter()
        training.sampler.epoch = epoch
        metrics = train_one_epoch(training, description=f"epoch {epoch}/{params.epochs}")
        seconds_training = time.perf_counter() - started
        recompute_batch_norm(training)
        metrics |= validate(training)
        _keep_best(fitted, metrics, training, select_by=params.select_by)
        if training.fabric.is_global_zero:
            checkpoint.save(_state(training, fitted))
        on_epoch(metrics)
        _report(epoch, metrics, training, params=params, seconds=time.perf_counter() - started, seconds_training=seconds_training)
    return fitted


def _keep_best(fitted: Fitted, metrics: dict[str, float], training: Training, *, select_by: str) -> None:
    """Append an epoch to the history and copy its weights if they are the best so far."""
    value = metrics[f"val/{select_by}"]
    if math.isnan(value):
        raise PipelineError(f"train.select_by is '{select_by}', which the validation list does not define: choose another metric")
    best = fitted.history[fitted.best_epoch - 1][f"val/{select_by}"] if fitted.history else math.nan
    fitted.history.append(metrics)
    if not fitted.best_state or is_better(value, best, select_by=select_by):
        fitted.best_epoch = len(fitted.history)
        fitted.best_state = {name: tensor.detach().cpu().clone() for name, tensor in training.model.module.state_dict().items()}


def _state(training: Training, fitted: Fitted) -> dict[str, Any]:
    """Everything that a restart needs to go on as if nothing had happened."""
    return {
        "epoch": len(fitted.history),
        "model": training.model.module.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "scaler": _scaler_state(training.fabric),
        "rng": torch.get_rng_state(),
        "device_rng": _device_generator(training.fabric).get_rng_state() if training.fabric.device.type != "cpu" else None,
        "history": fitted.history,
        "best_epoch": fitted.best_epoch,
        "best_state": fitted.best_state,
    }


def _resume(training: Training, checkpoint: Checkpoint) -> Fitted:
    """Put the saved state back, or start afresh."""
    state = checkpoint.load()
    if state is None:
        return Fitted()
    training.model.module.load_state_dict(state["model"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.schedule.load_state_dict(state["schedule"])
    scaler = getattr(training.fabric.strategy.precision, "scaler", None)
    if scaler is not None:
        scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["rng"])
    if state["device_rng"] is not None:
        _device_generator(training.fabric).set_rng_state(state["device_rng"])
    return Fitted(state["history"], state["best_epoch"], state["best_state"])


def _device_generator(fabric: Fabric) -> Any:
    """The module that holds the device's random generator: torch.cuda, torch.xpu or torch.mps."""
    return torch.get_device_module(fabric.device)


def _scaler_state(fabric: Fabric) -> dict[str, Any]:
    """State of the gradient scaler, which only 16-bit precision has."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    return scaler.state_dict() if scaler is not None else {}


def _report(
    epoch: int, metrics: dict[str, float], training: Training, *, params: TrainParams, seconds: float, seconds_training: float
) -> None:
    """One log line an epoch: losses, the selecting metric, speed, and how long the rest may take."""
    logger.info(
        "epoch %d/%d: training loss %.4f, validation %s %.4f, %.0f images/s, at most %.0f s left",
        epoch,
        params.epochs,
        metrics["train/loss"],
        params.select_by,
        metrics[f"val/{params.select_by}"],
        len(training.sampler) / seconds_training,
        seconds * (params.epochs - epoch),
    )
