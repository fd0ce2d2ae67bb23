"""Images per second of our input pipeline, of the usual one, and of the network: `python -m benchmarks.input_pipeline`.

(a) our loader: augmented batches from the prepared array
(b) the usual loader: open, decode, resize and augment each JPEG each epoch, the same workers and the same augmentation
(c) the network's training step alone, on one fixed batch
(d) training as the `train` stage does it: (a) feeding (c)

The JPEGs are synthetic, 600 x 450 pixels like HAM10000's; the list repeats them until an epoch has enough batches for every
worker. Rounds of the four alternate, and ratios are medians over rounds.
Everything that no argument sets is as params.yaml has it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.plain_loop import decoding_loader
from benchmarks.stage_loop import StageLoop, draw_images, read_images
from benchmarks.timing import synchronize
from skinlesion.base.errors import run_stage
from skinlesion.config.params import Params, load_params
from skinlesion.config.training import TrainParams
from skinlesion.data.geometry import fit_image
from skinlesion.training import loading
from skinlesion.training.augmentation import transforms
from skinlesion.training.augmentation.presets import resolve
from skinlesion.training.loop import train_one_epoch

BATCHES_A_WORKER = 16  # at least: what workers have ready when the clock starts is then a small part of an epoch


def read_epoch(batches: Iterator[Any]) -> tuple[float, Any]:
    """Images per second of a loader over one epoch, its first batch (start of the workers, cold caches) left out; that batch.

    The epoch is read to its end, after which the workers have nothing to do until the next one begins.
    """
    first = next(batches)
    started, images = time.perf_counter(), 0
    for batch in batches:
        images += len(batch[0])
    return images / (time.perf_counter() - started), first


def measure(loop: StageLoop, usual: DataLoader, *, steps: int) -> dict[str, float]:
    """One round of the four, in images per second."""
    ours, batch = read_epoch(loop.batches())
    speeds = {"a": ours, "b": read_epoch(iter(usual))[0]}
    speeds["c"] = len(batch[0]) * steps / seconds_of(loop, lambda: take_steps(loop, batch, steps))
    # Never one of the frozen epochs that params.yaml may ask for.
    epoch = loop.training.params.freeze_epochs + loop.training.batches.epoch
    speeds["d"] = loop.training.batches.images / seconds_of(loop, lambda: train_one_epoch(loop.training, epoch))
    return speeds


def take_steps(loop: StageLoop, batch: Any, steps: int) -> None:
    for _ in range(steps):
        loop.step(batch)


def seconds_of(loop: StageLoop, action: Callable[[], object]) -> float:
    """Seconds until the device has done what `action` asks for."""
    started = time.perf_counter()
    action()
    synchronize(loop.device)
    return time.perf_counter() - started


def resize_and_augment(image: Image.Image, *, size: int, augment: v2.Transform) -> torch.Tensor:
    """The prepared square, made anew, with our own augmentation: uint8 (3, size, size)."""
    return augment(torch.from_numpy(np.array(fit_image(image, size=size, fit="squash"))).permute(2, 0, 1))


def build(folder: Path, params: Params, *, size: int, lesions: int) -> tuple[StageLoop, DataLoader]:
    """Draw JPEGs, prepare them, and set up our training and the usual loader over the same list."""
    draw_images(folder, size=size, lesions=lesions)
    images = read_images(folder)
    least = BATCHES_A_WORKER * loading.worker_count() * params.train.batch_size
    images = images.repeated(max(len(images.listed), least))
    augment = transforms.train_transform(resolve(params.train.augmentation), size=size)
    transform = partial(resize_and_augment, size=size, augment=augment)
    usual = decoding_loader(images.paths, images.labels(), transform, batch_size=params.train.batch_size)
    return StageLoop.over(images, params.train, params.machine), usual


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.input_pipeline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="mobilenet_v2", help="torchvision name (default: %(default)s)")
    precisions = get_args(TrainParams.model_fields["precision"].annotation)
    parser.add_argument("--precision", default="bf16", choices=precisions, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=144, help="pixels (default: %(default)s)")
    parser.add_argument("--lesions", type=int, default=360, help="synthetic lesions, 1.4 images each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps of (c) a round (default: %(default)s)")
    options = parser.parse_args(arguments)
    params = load_params()
    chosen = {"backbone": options.backbone, "precision": options.precision, "weights": "none"}
    params = params.model_copy(update={"train": params.train.model_copy(update=chosen)})
    with tempfile.TemporaryDirectory() as folder:
        loop, usual = build(Path(folder), params, size=options.size, lesions=options.lesions)
        rounds = [measure(loop, usual, steps=options.steps) for _ in range(options.rounds)]
    names = {"a": "our loader", "b": "decode each epoch", "c": "model step alone", "d": "training"}
    lines = [
        f"{options.backbone}, {options.size} px, {loop.precision}, {loop.device}, {torch.get_num_threads()} threads, "
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
