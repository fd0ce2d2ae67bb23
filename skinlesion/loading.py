"""Batches of augmented training images from the prepared array: same batches for any number of workers, and after a resume."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from skinlesion.cores import available_cores

PLAIN_BATCH = 128  # images a step where nothing is learnt

# One element of an epoch: position in the list, and the seed of its augmentation.
Draw = tuple[int, int]


class AugmentedImages(Dataset[tuple[torch.Tensor, int]]):
    """Images of a split by `Draw`: uint8 (3, size, size) and the class index.

    Parameters
    ----------
    images : uint8 (N, size, size, 3), memory-mapped: workers share its pages, none has a copy.
    rows : int64 (M,), positions in `images`.
    labels : int64 (M,), class indices.
    transform : augmentation that draws from torch's default CPU generator.
    """

    def __init__(self, images: np.ndarray, rows: np.ndarray, labels: np.ndarray, *, transform: v2.Transform) -> None:
        self.images, self.rows, self.labels, self.transform = images, rows, labels, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, int]:
        position, seed = draw
        image = torch.from_numpy(self.images[self.rows[position]].copy()).permute(2, 0, 1)
        generator = torch.default_generator
        state = generator.get_state()  # without workers this is also the generator of dropout
        generator.manual_seed(seed)
        try:
            return self.transform(image), int(self.labels[position])
        finally:
            generator.set_state(state)


class SeededShuffle(Sampler[Draw]):
    """A new order, and a new augmentation seed an image, each epoch; both depend on `seed` and `epoch` alone."""

    def __init__(self, length: int, *, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.length)
        seeds = generator.integers(2**62, size=self.length)
        yield from zip(order.tolist(), seeds.tolist(), strict=True)


def worker_count() -> int:
    """Processes that load: one less than the cores we may use, 1 to 8. The number changes speed, not results."""
    return max(1, min(8, available_cores() - 1))


def train_loader(dataset: AugmentedImages, sampler: SeededShuffle, *, batch_size: int, pin_memory: bool) -> DataLoader:
    """Batches of uint8 (B, 3, size, size) and int64 (B,), without a last batch of one image, which batch norm refuses."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=len(sampler) % batch_size == 1,
        num_workers=worker_count(),
        persistent_workers=True,
        prefetch_factor=4,
        pin_memory=pin_memory,
        # Its own, or starting the workers would draw from dropout's generator, which a resumed run does at another time.
        generator=torch.Generator(),
        # Forked workers share the memory-mapped array; other start methods would send a copy to each.
        multiprocessing_context="fork" if sys.platform == "linux" else None,
    )


def choose_some(length: int, most: int, *, seed: int) -> np.ndarray:
    """At most `most` different positions below `length`, int64, sorted; never such that a last plain batch has one image."""
    number = min(length, most)
    number -= number % PLAIN_BATCH == 1
    return np.sort(np.random.default_rng(seed).permutation(length)[:number])


def plain_loader(images: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> DataLoader:
    """Images of a list as they are, once, in order; arguments and items as of `AugmentedImages`.

    In this process: copying prepared images is faster than handing them over.
    """
    dataset = AugmentedImages(images, rows, labels, transform=v2.Identity())
    return DataLoader(dataset, batch_size=PLAIN_BATCH, sampler=[(position, 0) for position in range(len(dataset))])
