"""The API as a process of its own, as `make api` starts it, and raw requests to it."""

import json
import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.api_server import serve
from tests.loopback import high_water


@dataclass
class Running:
    """A process that serves at a port of 127.0.0.1, and its log."""

    process: psutil.Popen
    log_file: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def predict(self, *files: bytes, name: str = "a.jpg", route: str = "/predict") -> httpx.Response:
        """What it answers to files, all of one name."""
        field = "file" if route == "/explain" else "files"
        return httpx.post(self.url + route, files=[(field, (name, data)) for data in files], timeout=60)

    def log(self) -> list[dict[str, Any]]:
        """Every line of the log, each of which must be JSON."""
        return [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines()]

    def peak_memory(self) -> int:
        """Most resident memory so far, bytes."""
        return high_water(self.process.pid)

    def stop(self, timeout: float = 30) -> int:
        """Ask it to stop, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


@contextmanager
def api_process(root: Path, folder: Path, **settings: Any) -> Iterator[Running]:
    """Serve a workspace until the block ends; ready when it begins. `folder` gets log and standard error."""
    log = folder / "log.jsonl"
    with serve(root, log, **settings) as server:
        yield Running(server.process, log, server.port)


def send_raw(port: int, pieces: Iterable[bytes]) -> bytes:
    """Send bytes as they are, as long as they are taken, and give all that comes back until the other side closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:
            pass  # it has answered and closed
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
    return answer
