"""Our side of the benchmarks: images as JPEGs and prepared, and the training that the `train` stage builds over them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from skinlesion.artifacts.prepared import PreparedImages, read_prepared
from skinlesion.artifacts.raw import image_path, list_images, read_metadata
from skinlesion.artifacts.synthetic import SyntheticImages
from skinlesion.artifacts.tables import labels_of
from skinlesion.base.cores import available_cores
from skinlesion.config.schema import MachineParams
from skinlesion.config.training import TrainParams
from skinlesion.data.preparing import write_prepared
from skinlesion.data.sample.sample import draw_sample
from skinlesion.training import engine, setup
from skinlesion.training.loop import Batch, Training, train_step
from skinlesion.training.optimizers import set_train_mode


@dataclass(frozen=True)
class Images:
    """The same images twice.

    listed : a row an image, columns `skinlesion.artifacts.tables.METADATA_COLUMNS`.
    paths : their JPEGs, 600 x 450 pixels like HAM10000's.
    prepared : as `prepare` writes them.
    """

    listed: pd.DataFrame
    paths: list[Path]
    prepared: PreparedImages

    def repeated(self, number: int) -> "Images":
        """A list of `number` images, which begins again where it ends."""
        order = np.arange(number) % len(self.listed)
        return replace(self, listed=self.listed.iloc[order], paths=[self.paths[position] for position in order])

    def labels(self) -> list[int]:
        """Class indices."""
        return labels_of(self.listed).tolist()


def draw_images(folder: Path, *, size: int, lesions: int) -> None:
    """Draw synthetic JPEGs of `lesions` lesions, about 1.3 each, and prepare them as squares of `size` pixels."""
    draw_sample(folder, seed=0, lesions=lesions, width=600, height=450)
    write_prepared(
        list_images(folder),
        size=size,
        fit="squash",
        color_constancy="none",
        workers=available_cores(),
        raw=folder,
        folder=folder / "prepared",
    )


def read_images(folder: Path) -> Images:
    """What `draw_images` wrote into a folder."""
    listed = read_metadata(folder)
    paths = [image_path(image_id, folder) for image_id in listed["image_id"]]
    return Images(listed, paths, read_prepared(folder / "prepared"))


@dataclass
class StageLoop:
    """What the stage `train` trains with; `precision` by Fabric's name."""

    training: Training
    precision: str
    mixing: torch.Generator

    @classmethod
    def over(cls, images: Images, params: TrainParams, machine: MachineParams) -> "StageLoop":
        """The stage's training from random weights, its list all of `images`."""
        size = images.prepared.size
        network, _ = setup.start_network(params, size=size, seed=0)
        fabric = engine.make_fabric(params, machine, seed=0)
        none = SyntheticImages(np.empty((0, size, size, 3), dtype=np.uint8), [], "")
        splits = {"train": images.listed, "val": images.listed}
        data = setup.gather_data(images.prepared, splits, none, with_metadata=params.metadata)
        training = setup.build_training(fabric, network, data, params=params, machine=machine, seed=0)
        set_train_mode(network, frozen=False)
        return cls(training, engine.precision_of(fabric), torch.Generator().manual_seed(0))

    @property
    def device(self) -> torch.device:
        return self.training.fabric.device

    def batches(self) -> Iterator[Batch]:
        """The next epoch, on the device."""
        self.training.batches.sampler.epoch += 1
        return iter(self.training.train_batches)

    def step(self, batch: Batch) -> None:
        """One optimizer step, as in `train_one_epoch`."""
        train_step(self.training, [batch], images=len(batch[1]), weighted=True, mixing=self.mixing)
