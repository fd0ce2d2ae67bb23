"""How fast engines answer: what a caller waits for one image and for a batch, measured in turns on this machine."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from skinlesion.artifacts.prepared import read_prepared
from skinlesion.base.cores import available_cores
from skinlesion.base.devices import cpu_model
from skinlesion.config.schema import TestTime
from skinlesion.config.serving import ExportParams
from skinlesion.serving.export.parity import Members, engine_of

MOST_SECONDS = 20.0  # of the rounds with one batch; on a busy machine fewer rounds fit
FEWEST_ROUNDS = 2
WARM_UP_CALLS = 3  # the first ones take memory, and let the libraries choose their algorithms

Engine = Callable[[torch.Tensor], Any]


def time_engines(engines: Mapping[str, Engine], images: torch.Tensor, *, batches: Sequence[int], rounds: int) -> dict[str, Any]:
    """Time calls of engines with the same images, one call of each in every round, there and back.

    What disturbs the machine for a while so disturbs all of them, and the figures of one run can be compared.

    Parameters
    ----------
    engines : by name, each takes a batch of images.
    images : of which the first ones make a batch, as many as the largest of `batches` at least.
    batches : images a call.
    rounds : at most; with one batch they end after `MOST_SECONDS`.

    Returns
    -------
    By batch (`"1"`), then by engine, as `describe_seconds`.
    """
    timed = {batch: seconds_of_calls(engines, images[:batch], rounds=rounds) for batch in batches}
    return {
        str(batch): {name: describe_seconds(values, images=batch) for name, values in seconds.items()}
        for batch, seconds in timed.items()
    }


def seconds_of_calls(engines: Mapping[str, Engine], images: torch.Tensor, *, rounds: int) -> dict[str, list[float]]:
    """Seconds of a call of each engine with these images, one a round, after a warm-up of all; as `time_engines` otherwise."""
    for engine in engines.values():
        for _ in range(WARM_UP_CALLS):
            engine(images)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    ends = time.monotonic() + MOST_SECONDS
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and time.monotonic() > ends:
            break
        for name in list(engines)[:: 1 if number % 2 == 0 else -1]:
            begun = time.perf_counter()
            engines[name](images)
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def describe_seconds(seconds: Sequence[float], *, images: int) -> dict[str, float]:
    """Median and 95th percentile of the calls in milliseconds, images per second by the median call, and how many calls."""
    median = statistics.median(seconds)
    slow = float(np.quantile(seconds, 0.95))
    return {"p50_ms": 1000 * median, "p95_ms": 1000 * slow, "images_per_second": images / median, "calls": len(seconds)}


def measure_speed(
    ensembles: Mapping[str, Members], test: pd.DataFrame, params: ExportParams, *, test_time: TestTime
) -> dict[str, Any]:
    """Time of a call of each engine, torch among them, on as many threads, for one image and for a batch of the test list."""
    threads, before, load = available_cores(), torch.get_num_threads(), os.getloadavg()[0]
    prepared = read_prepared()
    first = test.head(params.batch_size)
    images = torch.from_numpy(prepared.images[prepared.rows_of(first["image_id"])])
    engines = {name: engine_of(members, first, test_time=test_time) for name, members in ensembles.items()}
    torch.set_num_threads(threads)
    try:
        batches = sorted({1, len(images)})
        timed = time_engines(engines, images, batches=batches, rounds=params.rounds)
    finally:
        torch.set_num_threads(before)
    for batch in timed.values():
        for each in batch.values():
            each["times_torch"] = each["images_per_second"] / batch["torch"]["images_per_second"]
    return {"cpu": cpu_model(), "threads": threads, "load_before": round(load, 2), "batches": timed}
