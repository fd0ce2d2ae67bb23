"""Images per second of our input pipeline, of the usual one, and of the network: `python -m benchmarks.input_pipeline`.

(a) our loader: augmented batches from the prepared array
(b) the usual loader: open, decode, resize and augment each JPEG each epoch, the same workers and the same augmentation
(c) the network's training step alone, on one fixed batch
(d) training as the `train` stage does it: (a) feeding (c)

The JPEGs are synthetic, 600 x 450 pixels like HAM10000's. Rounds of the four alternate, and ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from skinlesion import artifacts, backbones, engine, loading, training, transforms
from skinlesion.cores import available_cores
from skinlesion.diagnoses import CLASSES
from skinlesion.errors import run_stage
from skinlesion.geometry import fit_image
from skinlesion.params import Params, TrainParams, load_params
from skinlesion.preparing import write_prepared
from skinlesion.synthetic.sample import draw_sample
from stages.train import build_training


class DecodedEachTime(Dataset[tuple[torch.Tensor, int]]):
    """What most training scripts do: JPEG in, resized and augmented tensor out."""

    def __init__(self, paths: list[Path], *, size: int, transform: v2.Transform) -> None:
        self.paths, self.size, self.transform = paths, size, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[position]) as image:
            square = fit_image(image.convert("RGB"), size=self.size, fit="squash")
        return self.transform(torch.from_numpy(np.array(square)).permute(2, 0, 1)), 0


Batch = tuple[torch.Tensor, torch.Tensor]


def read_epoch(batches: Iterable[Batch]) -> tuple[float, Batch]:
    """Images per second of a loader over one epoch, its first batch (start of the workers, cold caches) left out; that batch.

    The epoch is read to its end, after which the workers have nothing to do until the next one begins.
    """
    iterator = iter(batches)
    first = next(iterator)
    started, images = time.perf_counter(), 0
    for batch, _ in iterator:
        images += len(batch)
    return images / (time.perf_counter() - started), first


def measure(setup: training.Training, usual: DataLoader, *, steps: int) -> dict[str, float]:
    """One round of the four, in images per second."""
    setup.sampler.epoch += 1
    ours, (images, labels) = read_epoch(setup.train_batches)
    speeds = {"a": ours, "b": read_epoch(usual)[0]}
    speeds["c"] = len(labels) * steps / seconds_of(lambda: model_steps(setup, images, labels, steps=steps))
    speeds["d"] = len(setup.sampler) / seconds_of(lambda: training.train_one_epoch(setup, description="benchmark"))
    return speeds


def model_steps(setup: training.Training, images: torch.Tensor, labels: torch.Tensor, *, steps: int) -> None:
    """Training steps on one batch, the same calls as in `train_one_epoch`."""
    setup.model.train()
    for _ in range(steps):
        training.train_step(setup, images, labels)
    if setup.fabric.device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def build(folder: Path, params: Params, *, size: int, lesions: int) -> tuple[training.Training, DataLoader]:
    """Draw JPEGs, prepare them, and set up our training and the usual loader over the same images."""
    fabric = engine.make_fabric(device=params.train.device, precision=params.train.precision, seed=params.train.seed)
    model = backbones.build_backbone(params.train.backbone, num_classes=len(CLASSES), size=size)
    draw_sample(folder, seed=0, lesions=lesions, width=600, height=450)
    image_ids = sorted(path.stem for path in (folder / "images").glob("*.jpg"))
    write_prepared(image_ids, size=size, fit="squash", workers=available_cores(), raw=folder, folder=folder / "prepared")
    prepared = artifacts.read_prepared(folder / "prepared")
    listed = artifacts.read_metadata(folder)
    setup = build_training(fabric, model, prepared, {"train": listed, "val": listed}, params=params.train)
    augment = transforms.train_transform(params.train.augmentation, size=size)
    paths = [artifacts.image_path(image_id, folder) for image_id in listed["image_id"]]
    usual = DataLoader(
        DecodedEachTime(paths, size=size, transform=augment),
        batch_size=params.train.batch_size,
        shuffle=True,
        num_workers=loading.worker_count(),
        persistent_workers=True,
    )
    return setup, usual


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2", help="torchvision name (default: %(default)s)")
    precisions = get_args(TrainParams.model_fields["precision"].annotation)
    parser.add_argument("--precision", default="bf16", choices=precisions, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=144, help="pixels (default: %(default)s)")
    parser.add_argument("--lesions", type=int, default=360, help="synthetic lesions, 1.4 images each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps of (c) a round (default: %(default)s)")
    options = parser.parse_args()
    params = load_params()
    chosen = {"backbone": options.backbone, "precision": options.precision, "weights": "none"}
    params = params.model_copy(update={"train": params.train.model_copy(update=chosen)})
    with tempfile.TemporaryDirectory() as folder:
        setup, usual = build(Path(folder), params, size=options.size, lesions=options.lesions)
        rounds = [measure(setup, usual, steps=options.steps) for _ in range(options.rounds)]
    names = {"a": "our loader", "b": "decode each epoch", "c": "model step alone", "d": "training"}
    lines = [
        f"{options.backbone}, {options.size} px, {options.precision}, {setup.fabric.device}, {torch.get_num_threads()} threads, "
        f"{loading.worker_count()} loading process(es), batch {params.train.batch_size}, medians of {options.rounds} rounds"
    ]
    lines += [
        f"({key}) {label:<18} {statistics.median(each[key] for each in rounds):8.1f} images/s" for key, label in names.items()
    ]
    for above, below, aim in (("a", "b", 3.0), ("d", "c", 0.9)):
        ratios = [each[above] / each[below] for each in rounds]
        lines.append(
            f"{above}/{below} {statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}); aim: at least {aim}"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_stage(main)
