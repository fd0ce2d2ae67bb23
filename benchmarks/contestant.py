"""One way to train in a process of its own.

What a training asks of its process (how memory is kept, which algorithms are chosen) would otherwise help or hinder the others.
Processes wait while another one is measured.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.timing import Loop, warm_up
from skinlesion.base.errors import PipelineError
from skinlesion.config.training import TrainParams
from skinlesion.training.engine import explained_failures


class Contestant(AbstractContextManager["Contestant"]):
    """A process that holds a loop. To be used as a context, at whose end the process ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=os.chdir, initargs=(Path.cwd(),))

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a module's function in the process and wait for what it gives.

        Raises
        ------
        PipelineError
            The process was killed.
        """
        try:
            return self.pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise PipelineError(
                f"the process of '{self.name}' was ended, probably for want of memory: lower --batch, or name fewer --settings"
            ) from None


class Held:
    """What the process of a contestant holds: its loop, and the batch on which it was warmed up."""

    loop: Loop
    batch: Any
    params: TrainParams


def prepare(build: Callable[[TrainParams], Loop], params: TrainParams) -> str:
    """Build the loop and warm it up; its precision, by Fabric's name."""
    Held.params = params
    with explained_failures(params):
        Held.loop = build(params)
        Held.batch = warm_up(Held.loop)
    return Held.loop.precision


def measure(timer: Callable[[Loop, Any, int], float], count: int) -> float:
    """Images per second of the loop, by a timer of `benchmarks.timing`.

    count : of steps, or of batches when the timer is `time_loading`.
    """
    with explained_failures(Held.params):
        return timer(Held.loop, Held.batch, count)
