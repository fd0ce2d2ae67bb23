"""The training loop: one epoch of optimization and one validation. `fit` repeats them, keeps the best, resumes."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score
from torch import nn
from tqdm import tqdm

from skinlesion.base.errors import PipelineError
from skinlesion.config.augmentation import Augmentation
from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES
from skinlesion.model.batch_norm import batch_norms, frozen_statistics, renewed_statistics
from skinlesion.model.network import SkinNetwork
from skinlesion.training.augmentation.mixing import mix_batch
from skinlesion.training.averaging import WeightAverage
from skinlesion.training.losses import Criterion, weights_apply
from skinlesion.training.optimizers import climb, descend, set_train_mode
from skinlesion.training.sampling import GlobalBatches
from skinlesion.training.schedules import Schedule

CHECK_EVERY = 50  # steps between looks at the loss: looking makes the CPU wait for a GPU

# uint8 (B, 3, H, W) to the network's input.
Normalize = Callable[[torch.Tensor], torch.Tensor]
T = TypeVar("T")
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass
class Training:
    """All that one training is made of.

    network : the network itself; `model` is Fabric's wrapper of it (and of its compiled form), for optimization alone.
    optimizer : Fabric's wrapper.
    batches : composes the global batches; the `epoch` of its sampler is set before each.
    train_batches, validation_batches, statistics_batches : this process's share; but of the training images without
        augmentation over which batch norm is computed, every process sees all.
    average : averaged weights, or None.
    """

    fabric: Fabric
    params: TrainParams
    seed: int
    network: SkinNetwork
    model: Any
    optimizer: Any
    schedule: Schedule
    criterion: Criterion
    normalize: Normalize
    augmentation: Augmentation
    average: WeightAverage | None
    batches: GlobalBatches
    train_batches: Any
    validation_batches: Any
    statistics_batches: Any

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the averaged one once there is an average."""
        return self.average.network if self.average is not None and self.average.active else self.network


def train_one_epoch(training: Training, epoch: int) -> dict[str, float]:
    """Optimize over all batches once; the mean training loss over the images of all processes, and the rate at the end.

    Raises
    ------
    PipelineError
        The loss is not finite.
    """
    params, fabric = training.params, training.fabric
    frozen = epoch <= params.freeze_epochs
    set_train_mode(training.network, frozen=frozen)
    training.batches.sampler.epoch = epoch
    weighted = weights_apply(epoch, epochs=params.epochs, defer_weights=params.defer_weights)
    mixing = torch.Generator().manual_seed(training.seed * 1_000_003 + epoch * 1_009 + fabric.global_rank)
    total = torch.zeros((), device=fabric.device)
    description = f"epoch {epoch}/{params.epochs}"
    disable = None if fabric.is_global_zero else True
    with tqdm(total=training.batches.images, desc=description, unit="img", disable=disable, leave=False) as progress:
        sizes = [sum(group) for group in grouped(training.batches.sizes, params.accumulate)]
        groups = grouped(training.train_batches, params.accumulate)
        for number, (group, images) in enumerate(zip(groups, sizes, strict=True), start=1):
            total += train_step(training, group, images=images, weighted=weighted, mixing=mixing)
            if number % CHECK_EVERY == 0:
                check_loss(float(total), description)
            progress.update(images)
    total_of_all: Any = fabric.all_reduce(total, reduce_op="sum")  # a tensor, as it was given
    mean_loss = float(total_of_all) / training.batches.images
    check_loss(mean_loss, description)
    return {"train/loss": mean_loss, "train/lr": params.freeze_lr if frozen else training.schedule.last_lr()}


def check_loss(loss: float, description: str) -> None:
    """Refuse to go on with a loss that is not finite."""
    if not math.isfinite(loss):
        raise PipelineError(
            f"{description}: the training loss is {loss}: lower train.lr, set train.clip_norm, or use precision 32"
        )


def grouped(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive items in lists of `size`, the last one maybe shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def train_step(training: Training, group: list[Batch], *, images: int, weighted: bool, mixing: torch.Generator) -> torch.Tensor:
    """One optimizer step on the batches of `group`, which hold `images` images over all processes.

    The gradient is that of the mean loss over those images, however they are dealt to batches and processes.

    Returns
    -------
    Sum of this process's losses, detached, on the device.
    """
    fabric, params = training.fabric, training.params
    prepared = [mixed(training, batch, mixing) for batch in group]

    def accumulate() -> torch.Tensor:
        summed = torch.zeros((), device=fabric.device)
        for position, (inputs, targets, metadata) in enumerate(prepared, start=1):
            with fabric.no_backward_sync(training.model, enabled=position < len(prepared)):
                losses = training.criterion(training.model(inputs, metadata).float(), targets, weighted=weighted)
                # DDP takes the mean over processes of what is each one's share of a mean.
                fabric.backward(losses.sum() * (fabric.world_size / images))
            summed += losses.detach().sum()
        return summed

    total = accumulate()
    if params.sam_rho > 0:
        parameters = list(training.network.parameters())
        weights = climb(parameters, params.sam_rho)
        training.optimizer.zero_grad(set_to_none=True)
        with frozen_statistics(training.network):
            accumulate()
        descend(parameters, weights)
    if params.clip_norm is not None:
        fabric.clip_gradients(training.model, training.optimizer, max_norm=params.clip_norm, error_if_nonfinite=False)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.schedule.step()
    if training.average is not None:
        training.average.after_step(training.network)
    return total


def mixed(training: Training, batch: Batch, mixing: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """A batch as the network and the criterion take it: normalized, and mixed if the augmentation mixes."""
    images, labels, metadata = batch
    inputs = training.normalize(images)
    known = metadata if training.network.needs_metadata else None
    if not (training.augmentation.mixup or training.augmentation.cutmix):
        return inputs, labels, known
    mixture = mix_batch(inputs, labels, augmentation=training.augmentation, generator=mixing, num_classes=len(CLASSES))
    if known is not None:
        known = mixture.share * known + (1 - mixture.share) * known.roll(1, 0)
    return mixture.images, mixture.targets, known


def recompute_batch_norm(training: Training) -> None:
    """Compute batch norm's means and variances anew, over training images as evaluation shows them: without augmentation.

    The running averages are those of the last few augmented batches, and a validation with them jumps from epoch to epoch
    ("precise batch norm": Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576, section 3). Averaged weights
    need it most: no batch ever passed through them. Frozen batch norms are left as they are.
    """
    network = training.evaluated
    frozen = not any(parameter.requires_grad for parameter in training.network.backbone.parameters())
    norms = [norm for name, norm in batch_norms(network).items() if not (frozen and name.startswith("backbone."))]
    if not norms or not len(training.statistics_batches):
        return
    with renewed_statistics(network, norms), torch.inference_mode(), training.fabric.autocast():
        for batch in training.statistics_batches:
            forward(network, training, batch)


def share_buffers(training: Training) -> None:
    """Give every process the first one's running averages: after the last batch each has its own, of its share of the images."""
    fabric = training.fabric
    if fabric.world_size > 1:
        for buffer in training.evaluated.buffers():
            torch.distributed.broadcast(buffer, src=0)


def forward(network: nn.Module, training: Training, batch: Batch) -> torch.Tensor:
    """Logits of a batch as it comes from a loader."""
    images, _, metadata = batch
    logits: torch.Tensor = network(training.normalize(images), metadata if training.network.needs_metadata else None)
    return logits


def validate(training: Training) -> dict[str, float]:
    """Run the network over the validation list, each process over its share; in all of them `validation_metrics` of the whole."""
    network = training.evaluated.eval()
    logits, labels = [], []
    with torch.inference_mode(), training.fabric.autocast():
        for batch in training.validation_batches:
            logits.append(forward(network, training, batch).float().cpu().numpy())
            labels.append(batch[1].cpu().numpy())
    share = (np.concatenate(logits), np.concatenate(labels)) if logits else (np.empty((0, len(CLASSES))), np.empty(0, np.int64))
    shares = gather(training.fabric, share)
    return validation_metrics(*(np.concatenate(parts) for parts in zip(*shares, strict=True)))


def gather(fabric: Fabric, value: Any) -> list[Any]:
    """The `value` of every process, in the order of the ranks."""
    if fabric.world_size == 1:
        return [value]
    gathered: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, value)
    return gathered


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
