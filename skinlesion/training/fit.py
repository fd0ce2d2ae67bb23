"""Training from the first epoch to the last: validation after each, the best kept, everything saved for a restart."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric

from skinlesion.base.errors import PipelineError
from skinlesion.config.training import TrainParams
from skinlesion.training.checkpoint import Checkpoint
from skinlesion.training.engine import explained_failures
from skinlesion.training.loop import Training, gather, is_better, recompute_batch_norm, share_buffers, train_one_epoch, validate

logger = logging.getLogger(__name__)


@dataclass
class Fitted:
    """What `fit` found: metrics of every epoch, and the weights (CPU) of the best one; epochs count from 1."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)


def fit(training: Training, *, checkpoint: Checkpoint, on_epoch: Callable[[dict[str, float]], None]) -> Fitted:
    """Train until the last epoch, or until `patience` epochs brought no better `select_by`; resumes from `checkpoint`.

    `on_epoch` is called with the metrics of every epoch in order, first with those of epochs trained before a resume.
    """
    params = training.params
    fitted = _resume(training, checkpoint)
    for metrics in fitted.history:
        on_epoch(metrics)
    while len(fitted.history) < params.epochs and epochs_in_vain(fitted, params) < params.patience:
        epoch = len(fitted.history) + 1
        started = time.perf_counter()
        with explained_failures(params):
            metrics = train_one_epoch(training, epoch)
            seconds_training = time.perf_counter() - started
            if training.average is not None:
                training.average.after_epoch(training.network, epoch)
            share_buffers(training)
            recompute_batch_norm(training)
            metrics |= validate(training)
        _keep_best(fitted, metrics, training)
        selected = metrics[f"val/{params.select_by}"]
        training.schedule.epoch_end(-selected if params.select_by == "loss" else selected)
        _save(training, fitted, checkpoint)
        on_epoch(metrics)
        _report(epoch, metrics, training, seconds=time.perf_counter() - started, seconds_training=seconds_training)
    return fitted


def epochs_in_vain(fitted: Fitted, params: TrainParams) -> int:
    """Epochs without a better one, counted from the last change of phase at the earliest: what follows it is another training."""
    changes = [params.freeze_epochs, math.floor(params.defer_weights * params.epochs)]
    if params.average == "swa":
        changes.append(math.floor(params.swa_start * params.epochs))
    return len(fitted.history) - max(fitted.best_epoch, *changes)


def _keep_best(fitted: Fitted, metrics: dict[str, float], training: Training) -> None:
    """Append an epoch to the history and copy its weights if they are the best so far."""
    select_by = training.params.select_by
    value = metrics[f"val/{select_by}"]
    if math.isnan(value):
        raise PipelineError(f"train.select_by is '{select_by}', which the validation list does not define: choose another metric")
    best = fitted.history[fitted.best_epoch - 1][f"val/{select_by}"] if fitted.history else math.nan
    fitted.history.append(metrics)
    if not fitted.best_state or is_better(value, best, select_by=select_by):
        fitted.best_epoch = len(fitted.history)
        fitted.best_state = {name: tensor.detach().cpu().clone() for name, tensor in training.evaluated.state_dict().items()}


def _save(training: Training, fitted: Fitted, checkpoint: Checkpoint) -> None:
    """Save everything that a restart needs to go on as if nothing had happened; the first process writes."""
    fabric = training.fabric
    generators = gather(fabric, _generators(fabric))
    if fabric.is_global_zero:
        checkpoint.save(
            {
                "epoch": len(fitted.history),
                "network": training.network.state_dict(),
                "average": training.average.state_dict() if training.average is not None else None,
                "optimizer": training.optimizer.state_dict(),
                "schedule": training.schedule.state_dict(),
                "scaler": _scaler(fabric).state_dict() if _scaler(fabric) is not None else None,
                "generators": generators,
                "history": fitted.history,
                "best_epoch": fitted.best_epoch,
                "best_state": fitted.best_state,
            }
        )
    fabric.barrier()


def _resume(training: Training, checkpoint: Checkpoint) -> Fitted:
    """Put the saved state back in every process, or start afresh."""
    fabric, state = training.fabric, checkpoint.load()
    epochs = gather(fabric, state["epoch"] if state is not None else 0)
    if len(set(epochs)) > 1:
        raise PipelineError(
            f"the processes found checkpoints of different epochs ({epochs}): put the project on a folder that all nodes share, "
            "or delete .resume/train on each"
        )
    if state is None:
        return Fitted()
    training.network.load_state_dict(state["network"])
    if training.average is not None:
        training.average.load_state_dict(state["average"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.schedule.load_state_dict(state["schedule"])
    scaler = _scaler(fabric)
    if scaler is not None:
        scaler.load_state_dict(state["scaler"])
    own = state["generators"][fabric.global_rank]
    torch.set_rng_state(own["cpu"])
    if own["device"] is not None:
        torch.get_device_module(fabric.device).set_rng_state(own["device"])
    return Fitted(state["history"], state["best_epoch"], state["best_state"])


def _generators(fabric: Fabric) -> dict[str, torch.Tensor | None]:
    """State of the random generators of this process: the CPU's, and the device's if it is another."""
    on_cpu = fabric.device.type == "cpu"
    return {
        "cpu": torch.get_rng_state(),
        "device": None if on_cpu else torch.get_device_module(fabric.device).get_rng_state(),
    }


def _scaler(fabric: Fabric) -> Any:
    """The gradient scaler, which only 16-bit precision has."""
    return getattr(fabric.strategy.precision, "scaler", None)


def _report(epoch: int, metrics: dict[str, float], training: Training, *, seconds: float, seconds_training: float) -> None:
    """One log line an epoch: losses, the selecting metric, speed, and how long the rest may take."""
    params = training.params
    if training.fabric.is_global_zero:
        measured = (metrics["train/loss"], params.select_by, metrics[f"val/{params.select_by}"])
        times = (training.batches.images / seconds_training, seconds * (params.epochs - epoch))
        line = "epoch %d/%d: training loss %.4f, validation %s %.4f, %.0f images/s, at most %.0f s left"
        logger.info(line, epoch, params.epochs, *measured, *times)
