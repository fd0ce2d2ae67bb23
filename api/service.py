"""What the application works with: the predictor, its worker and threads, and whether it takes requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from api.batching import Batcher
from api.limits import RateLimit, Shares
from api.metrics import Metrics
from api.multipart import Limits, SentFile
from api.problems import Problem
from api.schemas import METHODS_HERE
from api.settings import Settings
from skinlesion.artifacts.patients import Patient
from skinlesion.base.cores import available_cores
from skinlesion.serving.predictor import Predictor
from skinlesion.serving.upload_checks import UploadError
from skinlesion.serving.uploads import check_size, decode_upload

logger = logging.getLogger(__name__)

Done = TypeVar("Done")


class Seen(NamedTuple):
    """What is kept of an image while it waits: its square, what is wrong with it, and what was done to it."""

    square: np.ndarray
    quality: tuple[str, ...]
    notes: tuple[str, ...]


class Service:
    """The state of one application.

    methods : of explanation that can be used on this model; empty until warm.
    card : of the model.
    in_work : requests with images whose body has come whole, and images that are still decoded although nobody waits any more.
    failure : why the model cannot be used, where that turned out when it was tried; the server ends then.
    draining : set when the server is told to stop; from then on it isn't ready, and connections are closed after their answer.
    """

    def __init__(self, settings: Settings, predictor: Predictor) -> None:
        self.settings, self.predictor = settings, predictor
        self.rate_limit = RateLimit(settings.rate_limit)
        self.batcher = Batcher(
            predictor.logits,
            wait=settings.batch_wait_ms / 1000,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            on_pass=self._count_pass,
        )
        self.in_work = 0
        body = settings.max_body_bytes
        self.bodies = Shares(settings.max_requests * body, most=max(body, settings.max_requests * body // 2))
        self.metrics = Metrics(in_work=lambda: self.in_work, queued=lambda: self.batcher.queued, ready=lambda: self.ready)
        self.card = predictor.card()  # read once: it is of the files that were loaded
        self.methods: tuple[str, ...] = ()
        self.draining = False
        self.failure: str | None = None
        self._warm = False
        self._worker: asyncio.Task[None] | None = None
        # Decoding lets go of the interpreter's lock, so that a thread a core is busy; each holds one decoded image.
        self._cores = available_cores()
        self._decoders = ThreadPoolExecutor(self._cores, "decode")
        self._decoding: dict[object, float] = {}  # when those that are being decoded began
        self._drawers = ThreadPoolExecutor(1, "explain")
        self._drawings = 0

    @property
    def ready(self) -> bool:
        """Whether requests are answered: the model is warm, its worker and decoders run, and the server is not stopping."""
        worker = self._worker
        return self._warm and not self.draining and worker is not None and not worker.done() and not self.stuck

    @property
    def stuck(self) -> bool:
        """Whether every decoder has had its image for longer than a request may take."""
        began = list(self._decoding.values())  # a copy, as threads change it
        return len(began) == self._cores and time.monotonic() - max(began) > self.settings.request_seconds

    @property
    def limits(self) -> Limits:
        """Of a body with as many files as the settings allow."""
        chosen = self.settings
        return Limits(chosen.max_files, chosen.max_file_bytes, chosen.max_body_bytes, chosen.body_seconds)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the worker, and warm the model up meanwhile."""
        self._worker = asyncio.create_task(self.batcher.run())
        warming = asyncio.create_task(self._warm_up())
        try:
            yield
        finally:
            for task in (warming, self._worker):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            for pool in (self._decoders, self._drawers):
                pool.shutdown(wait=False, cancel_futures=True)

    async def _warm_up(self) -> None:
        """A pass of one image, and what the first explanation loads: the first request is as fast as the next."""
        try:
            size = self.predictor.config.size
            await self.batcher.logits([np.zeros((size, size, 3), np.uint8)], Patient())
            usable = await asyncio.get_running_loop().run_in_executor(self._drawers, self.predictor.usable_methods)
        except Exception as error:  # the server ends, and says it
            logger.exception("the model failed on a black image")
            self.failure = str(error) or type(error).__name__
            return
        self.methods = tuple(method for method in usable if method in METHODS_HERE)
        self._warm = True
        logger.info("ready")

    def _count_pass(self, images: int, seconds: float) -> None:
        self.metrics.batch_images.observe(images)
        self.metrics.network_seconds.observe(seconds)

    async def see(self, files: Sequence[SentFile]) -> list[Seen | UploadError]:
        """Decode files in the threads for that, and let go of their bytes."""
        return await asyncio.gather(*(self.run_decoder(self._see, file) for file in files))

    async def run_decoder(self, function: Callable[[SentFile], Done], file: SentFile) -> Done:
        """Call a function that decodes a file, in a thread for that; one that is left in work counts until it is done."""
        loop = asyncio.get_running_loop()
        decoding = self._decoders.submit(self._time, function, file)
        try:
            return await asyncio.wrap_future(decoding)
        except asyncio.CancelledError:
            if not decoding.cancelled():  # those that had not begun never will
                self.in_work += 1
                decoding.add_done_callback(lambda _: _call_in(loop, self._decoded))
            raise

    def _time(self, function: Callable[[SentFile], Done], file: SentFile) -> Done:
        mark = object()
        self._decoding[mark] = time.monotonic()
        try:
            return function(file)
        finally:
            del self._decoding[mark]

    def _decoded(self) -> None:
        self.in_work -= 1

    def _see(self, file: SentFile) -> Seen | UploadError:
        try:
            image, notes = self.decode(file)
        except UploadError as error:
            return error
        return Seen(self.predictor.square(image), self.predictor.quality(image), notes)

    def decode(self, file: SentFile) -> tuple[Image.Image, tuple[str, ...]]:
        """A file's image, RGB and upright, and what was done to it. Raises UploadError where it is refused."""
        most = self.settings.max_file_bytes
        check_size(file.size)
        if file.size > most:  # its bytes were not kept
            raise UploadError("too-large", f"The file has {file.size / 1e6:.2f} MB, more than {most / 1e6:g}: save it smaller.")
        data = bytes(file.data)
        file.data.clear()
        upload = decode_upload(data)
        return upload.image, upload.notes

    async def draw(self, function: Callable[[], Done]) -> Done:
        """Call a function that draws an explanation, in the thread for that.

        It counts until the thread is done with it, also where the request's time was over before.

        Raises
        ------
        Problem
            As many explanations as the settings allow are being drawn or wait.
        """
        if self._drawings >= self.settings.max_explanations:
            raise Problem("busy", "Too many heat maps are asked for: try again in a few seconds.", headers={"Retry-After": "5"})
        self._drawings += 1
        loop = asyncio.get_running_loop()
        drawing = self._drawers.submit(function)
        drawing.add_done_callback(lambda _: _call_in(loop, self._drawn))
        return await asyncio.wrap_future(drawing)

    def _drawn(self) -> None:
        self._drawings -= 1


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call a function in a loop's thread; where the loop is gone, nobody counts any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
