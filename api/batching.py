"""One worker that runs the network, for the images of all requests that came within a few milliseconds of each other."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from api.problems import Problem
from skinlesion.artifacts.patients import Patient

Network = Callable[[np.ndarray, list[Patient]], np.ndarray]


@dataclass(frozen=True)
class Waiting:
    """An image that waits for its pass.

    since : when it began to wait, in seconds of the event loop's clock. answer : gets the image's logits, float64 (7,).
    """

    square: np.ndarray
    patient: Patient
    since: float
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """Images in, logits out; `run` is the worker.

    network : as `Predictor.logits`; called in a thread of its own, never twice at the same time.
    wait : seconds that an image waits for others. While a pass runs, images gather for the next one in any case.
    max_batch : images in a pass. max_queue : images that may wait.
    on_pass : called with the images and seconds of each pass.
    """

    def __init__(
        self, network: Network, *, wait: float, max_batch: int, max_queue: int, on_pass: Callable[[int, float], None]
    ) -> None:
        self._network, self._wait, self._max_batch, self._max_queue, self._on_pass = network, wait, max_batch, max_queue, on_pass
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "network")

    @property
    def queued(self) -> int:
        """Images that wait."""
        return self._queue.qsize()

    async def logits(self, squares: Sequence[np.ndarray], patient: Patient) -> np.ndarray:
        """Logits of the images of one request, float64 (N, 7), before calibration.

        Raises
        ------
        Problem
            The queue has no room for all of them.
        PipelineError
            As `Predictor.logits`.
        """
        if self.queued + len(squares) > self._max_queue:
            raise Problem("busy", "Too many images wait for the classifier: try again in a moment.", headers={"Retry-After": "1"})
        loop = asyncio.get_running_loop()
        items = [Waiting(square, patient, loop.time(), loop.create_future()) for square in squares]
        for item in items:
            self._queue.put_nowait(item)
        return np.stack(await asyncio.gather(*(item.answer for item in items)))

    async def run(self) -> None:
        """Run passes until cancelled."""
        try:
            while True:
                batch = await self._gather()
                # An image whose request has ended meanwhile is left out.
                await self._answer([item for item in batch if not item.answer.done()])
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> list[Waiting]:
        """The images of the next pass, one at least."""
        batch = [await self._queue.get()]
        until = batch[0].since + self._wait
        try:
            async with asyncio.timeout_at(until):
                while len(batch) < self._max_batch:
                    batch.append(await self._queue.get())
        except TimeoutError:
            while len(batch) < self._max_batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
        return batch

    async def _answer(self, batch: list[Waiting]) -> None:
        if not batch:
            return
        squares, patients = np.stack([item.square for item in batch]), [item.patient for item in batch]
        started = time.perf_counter()
        try:
            logits = await asyncio.get_running_loop().run_in_executor(self._thread, self._network, squares, patients)
        except Exception as error:  # each request reports it, and the worker goes on
            for item in batch:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        self._on_pass(len(batch), time.perf_counter() - started)
        for item, row in zip(batch, logits, strict=True):
            if not item.answer.done():
                item.answer.set_result(row)
