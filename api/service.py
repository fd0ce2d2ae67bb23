"""What the application works with: the predictor, its worker and threads, and whether it accepts requests."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from starlette.datastructures import UploadFile

from api.batching import Batcher
from api.metrics import Metrics
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

    methods : methods of explanation that work on this model; empty until warm.
    card : the card of the model.
    in_work : requests with images, and images that are still decoded although nobody waits for them any more.
    failure : why the model cannot be used, if it failed on its first image; the server then ends.
    draining : set when the server is told to stop; from then on it is not ready, and connections are closed after their answer.
    """

    def __init__(self, settings: Settings, predictor: Predictor) -> None:
        self.settings, self.predictor = settings, predictor
        self.batcher = Batcher(
            predictor.logits,
            wait=settings.batch_wait_ms / 1000,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            on_pass=self._count_pass,
        )
        self.in_work = 0
        self.metrics = Metrics(in_work=lambda: self.in_work, queued=lambda: self.batcher.queued, ready=lambda: self.ready)
        self.card = predictor.card()  # read once: it belongs to the files that were loaded
        self.methods: tuple[str, ...] = ()
        self.draining = False
        self.failure: str | None = None
        self._warm = False
        self._worker: asyncio.Task[None] | None = None
        # Decoding releases the interpreter's lock, so one thread a core is busy; each holds one decoded image.
        self._cores = available_cores()
        self._decoders = ThreadPoolExecutor(self._cores, "decode")
        self._decoding: dict[object, float] = {}  # when each file that is being decoded was begun
        self._drawers = ThreadPoolExecutor(1, "explain")
        self._drawings = 0

    @property
    def ready(self) -> bool:
        """Whether requests are accepted: warm, worker running, decoders not stuck, not stopping."""
        worker = self._worker
        return self._warm and not self.draining and worker is not None and not worker.done() and not self.stuck

    @property
    def stuck(self) -> bool:
        """Whether every decoder has had its image for longer than a request may take."""
        began = list(self._decoding.values())  # a copy, because threads change it
        return len(began) == self._cores and time.monotonic() - max(began) > self.settings.request_seconds

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
        """Run one image, and load what the first explanation needs: the first request is as fast as the next."""
        try:
            size = self.predictor.config.size
            await self.batcher.logits([np.zeros((size, size, 3), np.uint8)], Patient())
            usable = await asyncio.get_running_loop().run_in_executor(self._drawers, self.predictor.usable_methods)
        except Exception as error:  # the server ends with it
            logger.exception("the model failed on a black image")
            self.failure = str(error) or type(error).__name__
            return
        self.methods = tuple(method for method in usable if method in METHODS_HERE)
        self._warm = True
        logger.info("ready")

    def _count_pass(self, images: int, seconds: float) -> None:
        self.metrics.batch_images.observe(images)
        self.metrics.network_seconds.observe(seconds)

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """A place among the requests in work, for as long as a request may take.

        Raises
        ------
        Problem
            All places are taken, or the time is over.
        """
        settings = self.settings
        if self.in_work >= settings.max_requests:
            raise Problem("busy", "Too many requests are in work: try again in a moment.", headers={"Retry-After": "1"})
        self.in_work += 1
        try:
            async with asyncio.timeout(settings.request_seconds):
                yield
        except TimeoutError:
            detail = f"There was no answer after {settings.request_seconds:g} seconds: send fewer or smaller files."
            raise Problem("time-limit", detail) from None
        finally:
            self.in_work -= 1

    async def see(self, files: Sequence[UploadFile]) -> list[Seen | UploadError]:
        """Decode files in the threads for that, and release their bytes."""
        return await asyncio.gather(*(self.run_decoder(self._see, file) for file in files))

    async def run_decoder(self, function: Callable[[UploadFile], Done], file: UploadFile) -> Done:
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

    def _time(self, function: Callable[[UploadFile], Done], file: UploadFile) -> Done:
        mark = object()
        self._decoding[mark] = time.monotonic()
        try:
            return function(file)
        finally:
            del self._decoding[mark]

    def _decoded(self) -> None:
        self.in_work -= 1

    def _see(self, file: UploadFile) -> Seen | UploadError:
        try:
            image, notes = self.decode(file)
        except UploadError as error:
            return error
        return Seen(self.predictor.square(image), self.predictor.quality(image), notes)

    def decode(self, file: UploadFile) -> tuple[Image.Image, tuple[str, ...]]:
        """A file's image, RGB and upright, and what was done to it. Raises and counts UploadError if the file is refused."""
        most, size = self.settings.max_file_bytes, file.size or 0
        try:
            check_size(size)
            if size > most:
                raise UploadError("too-large", f"The file has {size / 1e6:.2f} MB, more than {most / 1e6:g}: save it smaller.")
            with file.file as content:  # closed, it releases its memory
                data = content.read()
            upload = decode_upload(data)
        except UploadError as error:
            self.metrics.refused.labels(error.reason).inc()
            raise
        return upload.image, upload.notes

    async def draw(self, function: Callable[[], Done]) -> Done:
        """Call a function that draws an explanation, in the thread for that.

        It counts until the thread is done with it, even if the request's time was over before.

        Raises
        ------
        Problem
            As many explanations as the settings allow are being drawn or wait.
        """
        if self._drawings >= self.settings.max_explanations:
            raise Problem("busy", "Too many heat maps are in work: try again in a few seconds.", headers={"Retry-After": "5"})
        self._drawings += 1
        loop = asyncio.get_running_loop()
        drawing = self._drawers.submit(function)
        drawing.add_done_callback(lambda _: _call_in(loop, self._drawn))
        return await asyncio.wrap_future(drawing)

    def _drawn(self) -> None:
        self._drawings -= 1


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call a function in a loop's thread; if the loop is closed, nobody counts any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
