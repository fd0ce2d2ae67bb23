"""Images per second of a loop that trains: end to end, of its step, of its loading; and what machine it was."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from skinlesion.base.devices import cpu_model

WARM_UP_STEPS = 2  # the first one compiles, or lets the libraries choose their algorithms


class Loop(Protocol):
    """A way to train: `StageLoop` or `PlainLoop`."""

    precision: str

    @property
    def device(self) -> torch.device: ...

    def batches(self) -> Iterator[Any]: ...

    def step(self, batch: Any) -> None: ...


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Where it is measured; the load is the mean number of busy processes in the minute before."""
    return {
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else cpu_model(),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
    }


def print_facts(facts: dict[str, Any]) -> None:
    """One line, at the top."""
    sys.stdout.write(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()) + "\n")


def synchronize(device: torch.device) -> None:
    """Wait for the device; a CPU is never behind."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


def warm_up(loop: Loop) -> Any:
    """Start the workers, go through an epoch of loading and take the first steps; a batch for `time_step`."""
    batches = loop.batches()
    batch = next(batches)
    for _ in batches:
        pass
    for _ in range(WARM_UP_STEPS):
        loop.step(batch)
    synchronize(loop.device)
    return batch


def time_end_to_end(loop: Loop, _: Any, steps: int) -> float:
    """Images per second of an epoch of `steps` + 1 batches.

    The clock runs from the arrival of the first batch to that of the last, which is not trained on: `steps` steps, and the
    loading of as many batches. The epoch is read to its end, after which the workers have nothing to do.
    """
    batches, images = loop.batches(), 0
    batch = next(batches)
    synchronize(loop.device)
    started = time.perf_counter()
    for _ in range(steps):
        loop.step(batch)
        images += len(batch[1])
        batch = next(batches)
    synchronize(loop.device)
    seconds = time.perf_counter() - started
    for _ in batches:
        raise ValueError(f"the epoch has more than {steps} + 1 batches")
    return images / seconds


def time_loading(loop: Loop, _: Any, batches: int) -> float:
    """Images per second of loading alone, over whole epochs until they have at least so many batches."""
    read = images = 0
    started = time.perf_counter()
    while read < batches:
        for batch in loop.batches():
            read, images = read + 1, images + len(batch[1])
    synchronize(loop.device)
    return images / (time.perf_counter() - started)


def time_step(loop: Loop, batch: Any, steps: int) -> float:
    """Images per second of `steps` steps on one batch, nothing being loaded meanwhile."""
    synchronize(loop.device)
    started = time.perf_counter()
    for _ in range(steps):
        loop.step(batch)
    synchronize(loop.device)
    return steps * len(batch[1]) / (time.perf_counter() - started)
