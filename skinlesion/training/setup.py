"""Everything that a training is made of, set up from its params: data, loss, optimizer, schedule, averaging."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import nn

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.prepared import PREPARED, PreparedImages
from skinlesion.artifacts.splits import read_split_facts
from skinlesion.artifacts.synthetic import SyntheticImages
from skinlesion.artifacts.tables import labels_of
from skinlesion.base.files import file_digest
from skinlesion.base.versions import git_commit, library_versions
from skinlesion.config.schema import MachineParams
from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES
from skinlesion.model import backbones, classifier
from skinlesion.model.network import NetworkSpec, SkinNetwork, build_network
from skinlesion.training import loading
from skinlesion.training.augmentation.presets import resolve
from skinlesion.training.augmentation.transforms import train_transform
from skinlesion.training.averaging import make_average
from skinlesion.training.loading import LabelledImages
from skinlesion.training.loop import Training
from skinlesion.training.losses import make_criterion
from skinlesion.training.optimizers import make_optimizer, parameter_groups
from skinlesion.training.sampling import EpochSampler, GlobalBatches
from skinlesion.training.schedules import make_schedule


@dataclass(frozen=True)
class TrainingData:
    """What is learnt from and what is validated on.

    train, validation : the two lists.
    lesions : str (images of `train` and of `synthetic`,), the lesion of each; a synthetic image is one of its own.
    synthetic : drawn images that are added to the training list; usually none.
    """

    train: LabelledImages
    validation: LabelledImages
    synthetic: LabelledImages
    lesions: np.ndarray

    def labels(self) -> np.ndarray:
        """Class indices of everything that is learnt from, int64."""
        return np.concatenate([self.train.labels, self.synthetic.labels])


def start_network(params: TrainParams, *, size: int, seed: int) -> tuple[SkinNetwork, str | None]:
    """A network as training finds it, for images of `size` x `size` pixels, and the sha256 of its checkpoint, None if random."""
    torch.manual_seed(seed)
    network = build_network(NetworkSpec.of(params), num_classes=len(CLASSES), size=size)
    return network, backbones.load_pretrained(network.backbone, params.weights, backbone=params.backbone)


def describe_classifier(
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


def gather_data(
    prepared: PreparedImages, splits: dict[str, pd.DataFrame], synthetic: SyntheticImages, *, with_metadata: bool
) -> TrainingData:
    """The lists `train` and `val` of `splits`, and synthetic images, as the loop takes them.

    A synthetic image has the metadata of a training image of its class: with none at all, the network would learn that
    nothing known means a rare diagnosis.
    """

    def listed(name: str) -> LabelledImages:
        split = splits[name]
        encoded = encode_metadata(split) if with_metadata else np.empty((len(split), 0), dtype=np.float32)
        return LabelledImages(prepared.images, prepared.rows_of(split["image_id"]), labels_of(split), encoded)

    train, drawn, labels = listed("train"), len(synthetic.dx), labels_of(pd.DataFrame({"dx": synthetic.dx}))
    lenders = np.empty(drawn, dtype=np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        lenders[own] = np.resize(np.flatnonzero(train.labels == label), len(own))
    return TrainingData(
        train=train,
        validation=listed("val"),
        synthetic=LabelledImages(synthetic.images, np.arange(drawn), labels, train.metadata[lenders]),
        lesions=np.array([*splits["train"]["lesion_id"], *(f"synthetic {number}" for number in range(drawn))]),
    )


def build_training(
    fabric: Fabric, network: SkinNetwork, data: TrainingData, *, params: TrainParams, machine: MachineParams, seed: int
) -> Training:
    """Set up everything around the network."""
    augmentation, labels = resolve(params.augmentation), data.labels()
    size = data.train.images.shape[1]
    sampler = EpochSampler(
        labels, data.lesions, sampler=params.sampler, one_view_per_lesion=params.one_view_per_lesion, seed=seed
    )
    batches = GlobalBatches(sampler, batch_size=params.batch_size, rank=fabric.global_rank, world=fabric.world_size)
    augmented = loading.AugmentedImages(data.train, data.synthetic, transform=train_transform(augmentation, size=size))
    shares = slice(fabric.global_rank, None, fabric.world_size)
    chosen = loading.choose_some(len(data.train), params.batch_norm_images, seed=seed)
    processes = fabric.world_size // machine.num_nodes
    loaders: Any = fabric.setup_dataloaders(  # as many as are given
        loading.train_loader(augmented, batches, pin_memory=fabric.device.type == "cuda", processes=processes),
        loading.plain_loader(data.validation.at(shares)),
        loading.plain_loader(data.train.at(chosen)),
        use_distributed_sampler=False,
    )
    if machine.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack memory_format
    if fabric.device.type == "cuda" and fabric.world_size > 1:
        # Each process has its share of the batch; statistics over so few images would be worse than one process's.
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    optimizer = make_optimizer(parameter_groups(network, params), params)
    schedule = make_schedule(optimizer, params, steps_per_epoch=math.ceil(len(batches) / params.accumulate))
    compiled: Any = torch.compile(network, dynamic=False) if params.compile else network
    model, fabric_optimizer = fabric.setup(compiled, optimizer)
    if fabric.world_size > 1:
        torch.manual_seed(seed * 1_009 + fabric.global_rank)  # until here all are alike; dropout's masks should not be
    return Training(
        fabric=fabric,
        params=params,
        seed=seed,
        network=network,
        model=model,
        optimizer=fabric_optimizer,
        schedule=schedule,
        criterion=make_criterion(params, np.bincount(labels, minlength=len(CLASSES))).to(fabric.device),
        normalize=make_normalize(params.backbone, channels_last=machine.channels_last),
        augmentation=augmentation,
        average=make_average(network, params),
        batches=batches,
        train_batches=loaders[0],
        validation_batches=loaders[1],
        statistics_batches=loaders[2],
    )


def make_normalize(backbone: str, *, channels_last: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """uint8 (B, 3, H, W) to what the backbone's checkpoint was trained with, in that memory order."""
    mean, std = backbones.normalization(backbone)
    order = torch.channels_last if channels_last else torch.contiguous_format
    standardize = partial(classifier.standardize, mean=mean, std=std)
    return lambda images: standardize(images.permute(0, 2, 3, 1)).contiguous(memory_format=order)
