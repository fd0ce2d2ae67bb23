"""Batches of augmented training images from the prepared array: same batches for any number of workers, and after a resume."""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from skinlesion.base.cores import available_cores
from skinlesion.training.sampling import Draw

PLAIN_BATCH = 128  # images a step where nothing is learnt
MOST_WORKERS = 16

# uint8 (3, size, size), class index, encoded metadata float32 (width,); in a batch stacked along a new first axis.
Item = tuple[torch.Tensor, int, torch.Tensor]


@dataclass(frozen=True)
class LabelledImages:
    """A list of images with what the loop needs to know of each.

    images : uint8 (N, size, size, 3), memory-mapped: processes share its pages, none has a copy.
    rows : int64 (M,), positions in `images`.
    labels : int64 (M,), class indices.
    metadata : float32 (M, width), encoded; the width is 0 where the network takes none.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    metadata: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, positions: np.ndarray | slice) -> "LabelledImages":
        """The images at some positions of the list."""
        return LabelledImages(self.images, self.rows[positions], self.labels[positions], self.metadata[positions])


class AugmentedImages(Dataset[Item]):
    """One list after another (the training list, then synthetic images) by `Draw`, augmented.

    `transform` takes uint8 (3, size, size), gives the same, and draws from torch's default CPU generator.
    """

    def __init__(self, *lists: LabelledImages, transform: v2.Transform) -> None:
        self.lists, self.transform = lists, transform
        self.starts = np.cumsum([0, *(len(each) for each in lists)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, draw: Draw) -> Item:
        position, seed = draw
        chosen = int(np.searchsorted(self.starts, position, side="right")) - 1
        source, place = self.lists[chosen], position - self.starts[chosen]
        image = torch.from_numpy(source.images[source.rows[place]].copy()).permute(2, 0, 1)
        generator = torch.default_generator
        state = generator.get_state()  # without workers this is also the generator of dropout
        generator.manual_seed(seed)
        try:
            return self.transform(image), int(source.labels[place]), torch.from_numpy(source.metadata[place])
        finally:
            generator.set_state(state)


def worker_count(processes: int = 1) -> int:
    """Processes that load for each of `processes` that train on this machine: the cores left over, 1 to `MOST_WORKERS`.

    The number changes speed, not results.
    """
    return max(1, min(MOST_WORKERS, available_cores() // processes - 1))


def train_loader(
    dataset: AugmentedImages, batches: Sampler[list[Draw]], *, pin_memory: bool, processes: int = 1
) -> DataLoader[Item]:
    """Batches of uint8 (B, 3, size, size), int64 (B,) and float32 (B, width), as `batches` composes them."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=worker_count(processes),
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


def plain_loader(listed: LabelledImages) -> DataLoader[Item]:
    """Images of a list as they are, once, in order; in batches like those of `train_loader`.

    In this process: copying prepared images is faster than handing them over.
    """
    dataset = AugmentedImages(listed, transform=v2.Identity())
    return DataLoader(dataset, batch_size=PLAIN_BATCH, sampler=[(position, 0) for position in range(len(dataset))])
