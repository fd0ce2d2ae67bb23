"""Which training images an epoch shows, in which order, and how processes share them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler, WeightedRandomSampler

from skinlesion.base.errors import PipelineError

# One element of an epoch: position in the training list, and the seed of its augmentation.
Draw = tuple[int, int]

# Image weight of a class with n candidates is n to this power, and its share of the draws therefore n to one more.
POWERS = {"balanced": -1.0, "square_root": -0.5}


class EpochSampler(Sampler[Draw]):
    """The draws of an epoch over a training list of M images: they depend on the seed and on `epoch`, and on nothing else.

    `epoch` is set by whoever trains, so that a resumed training goes on with the right one. (There is no `set_epoch`: Fabric's
    loaders would call it with a count of their own.)

    Parameters
    ----------
    labels : int64 (M,), class indices.
    lesions : (M,), names or numbers of the lesions. An image that belongs to none has one of its own.
    sampler : `shuffle`: each image once an epoch. `balanced`: as many draws, with replacement, each class equally likely.
        `square_root`: the same with the likelihood of a class proportional to the square root of its images.
    one_view_per_lesion : an epoch sees one image of each lesion, drawn anew each epoch. There are as many draws as lesions, and
        the classes are balanced by their lesions.
    seed : of the order, the choice and the augmentation.
    """

    def __init__(self, labels: np.ndarray, lesions: np.ndarray, *, sampler: str, one_view_per_lesion: bool, seed: int) -> None:
        self.labels, self.seed, self.epoch = labels, seed, 0
        self.power = None if sampler == "shuffle" else POWERS[sampler]
        self.lesions = np.unique(lesions, return_inverse=True)[1] if one_view_per_lesion else None
        self.draws = len(labels) if self.lesions is None else len(np.unique(self.lesions))

    def __len__(self) -> int:
        return self.draws

    def __iter__(self) -> Iterator[Draw]:
        generator = np.random.default_rng([self.seed, self.epoch])
        candidates = np.arange(len(self.labels)) if self.lesions is None else one_of_each(self.lesions, generator)
        if self.power is None:
            order = generator.permutation(len(candidates))
        else:
            order = draw_weighted(self.labels[candidates], generator, power=self.power)
        seeds = generator.integers(2**62, size=len(order))
        yield from zip(candidates[order].tolist(), seeds.tolist(), strict=True)


def one_of_each(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One position of each group, every member equally likely: int64 (groups,), in the order of the groups."""
    shuffled = generator.permutation(len(groups))
    return shuffled[np.unique(groups[shuffled], return_index=True)[1]]


def draw_weighted(labels: np.ndarray, generator: np.random.Generator, *, power: float) -> np.ndarray:
    """As many positions as labels, with replacement, int64 (M,): an image of a class of n is drawn in proportion to n^power."""
    weights = np.bincount(labels)[labels].astype(np.float64) ** power
    seed = int(generator.integers(2**62))
    draws = WeightedRandomSampler(weights.tolist(), len(labels), replacement=True, generator=torch.Generator().manual_seed(seed))
    return np.fromiter(draws, dtype=np.int64, count=len(labels))


class GlobalBatches(Sampler[list[Draw]]):
    """A process's part of every batch: draws rank, rank + world, ... of it. With one process the batches of a plain loader.

    All processes have the same number of batches, and together each draw once. A last batch with fewer than two images a
    process, which batch norm refuses, is left out; a training list smaller than the batch makes one batch.

    Parameters
    ----------
    sampler : the draws of an epoch, the same in every process.
    batch_size : images a batch over all processes.
    rank, world : which process this is, from 0, and of how many.

    Attributes
    ----------
    images : draws that an epoch uses, over all processes.
    sizes : images of each batch, over all processes.

    Raises
    ------
    PipelineError
        A batch, or the whole list, has fewer than two images a process.
    """

    def __init__(self, sampler: EpochSampler, *, batch_size: int, rank: int = 0, world: int = 1) -> None:
        least = 2 * world
        for size, name, way_out in (
            (batch_size, "train.batch_size", "raise it, or lower machine.devices or machine.num_nodes"),
            (len(sampler), "the images of a training epoch", "check split, or lower machine.devices or machine.num_nodes"),
        ):
            if size < least:
                raise PipelineError(f"{name}: {size}, and batch norm needs 2 on each of {world} process(es): {way_out}")
        self.sampler, self.batch_size, self.rank, self.world = sampler, batch_size, rank, world
        full, rest = divmod(len(sampler), batch_size)
        self.sizes = [batch_size] * full + ([rest] if rest >= least else [])
        self.images = sum(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = list(self.sampler)
        for start in range(0, self.images, self.batch_size):
            yield draws[start : start + self.batch_size][self.rank :: self.world]
