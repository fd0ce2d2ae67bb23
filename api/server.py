"""The process: a socket, uvicorn, and a stop that answers all requests in work."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

import uvicorn

from api.application import create_app
from api.logs import log_as_json
from api.service import Service
from api.settings import PREFIX, Settings, read_settings
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.errors import PipelineError
from skinlesion.serving.predictor import load_predictor

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 16_384  # of a request's headers


class Server(uvicorn.Server):
    """uvicorn's server, which after SIGTERM accepts requests for `drain_seconds` more, and ends with exit code 0.

    A second signal ends the draining; a third one, by Ctrl-C, ends everything.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service, self._stop_at = service, float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signals SIGTERM and SIGINT."""
        if self._service.draining:
            if self.should_exit and sig == signal.SIGINT:
                self.force_exit = True
            self.should_exit = True
            return
        self._service.draining = True
        self._stop_at = time.monotonic() + self._service.settings.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if time.monotonic() >= self._stop_at or self._service.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)


def listen(settings: Settings) -> socket.socket:
    """A socket at host and port.

    Raises
    ------
    PipelineError
        The port is taken or not permitted, or the host is not known.
    """
    place = f"port {settings.port} of {settings.host}"
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise PipelineError(f"{place} is not available ({error.strerror}): set {PREFIX}PORT or {PREFIX}HOST to another") from None
    return bound


def main() -> None:
    """Load the model and serve it until SIGTERM or Ctrl-C."""
    settings = read_settings()
    log_as_json()
    keep_freed_memory()  # every pass frees and takes the same blocks; returning them to the system costs a third of its time
    bound = listen(settings)
    predictor = load_predictor(settings.root, model=settings.model, engine=settings.engine, device=settings.device)
    app, service = create_app(settings, predictor)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(each) for each in settings.trusted_proxies],
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_graceful_shutdown=settings.stop_seconds,
    )
    host, port = bound.getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    logger.info(f"serving {predictor.member} by {predictor.engine} at http://{where}, documented at /docs. Not for clinical use.")
    _say_for_whom(settings)
    Server(config, service).run(sockets=[bound])
    logger.info("stopped")
    if service.failure is not None:
        raise PipelineError(f"the model cannot be served, as it failed on a black image: {service.failure}")
    _leave_stuck_threads()


def _say_for_whom(settings: Settings) -> None:
    """Say who may reach the server as it is set up: it does not limit slow clients, connections and bodies by itself."""
    proxy = "the proxy of deploy/compose.yaml limits slow clients, connections and bodies (docs/serving.md)"
    if settings.local:
        logger.info(f"this server is for this machine alone: for others, {proxy}")
    elif not settings.trusted_proxies:
        logger.warning(f"{settings.host} can be reached from other machines without a proxy: {proxy}")
    if settings.api_key is None and not settings.local:
        logger.warning(f"anybody who reaches {settings.host} can send images: set {PREFIX}API_KEY_FILE, or add a login")


def _leave_stuck_threads() -> None:
    """End the process if a pass or a map that nobody waits for is still in work: Python would wait for its thread."""
    if any(thread.name.startswith(("network", "decode", "explain")) and thread.is_alive() for thread in threading.enumerate()):
        time.sleep(0.2)  # idle threads end at once
    stuck = [thread.name for thread in threading.enumerate() if thread.name.startswith(("network", "decode", "explain"))]
    if stuck:
        logger.warning(f"left in work: {', '.join(stuck)}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
