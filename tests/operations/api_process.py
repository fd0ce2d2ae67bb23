"""The API as a process of its own, as `make api` starts it, and raw requests to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import ROOT

START_SECONDS = 90  # importing torch on a busy machine


@dataclass
class Running:
    """A process that serves at a port of 127.0.0.1, and its log."""

    process: subprocess.Popen[bytes]
    log_file: Path
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> list[dict[str, Any]]:
        """Every line of the log, each of which must be JSON."""
        return [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines()]

    def memory(self) -> int:
        """Resident memory now, bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return 1024 * int(re.search(r"VmRSS:\s+(\d+)", text)[1])

    def peak_memory(self) -> int:
        """Most resident memory so far, bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", text)[1])

    def stop(self, timeout: float = 30) -> int:
        """Ask it to stop, and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


@contextmanager
def api_process(root: Path, folder: Path, **settings: Any) -> Iterator[Running]:
    """Serve a workspace until the block ends; ready when it begins. `folder` gets log and standard error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKINLESION_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "SKINLESION_ROOT": str(root), "SKINLESION_PORT": "0"}
    environment |= {f"SKINLESION_{name.upper()}": str(value) for name, value in settings.items()}
    log_file = folder / "log.jsonl"
    with log_file.open("wb") as log, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen([sys.executable, "-m", "api"], cwd=ROOT, env=environment, stdout=log, stderr=errors)
    running = Running(process, log_file)
    try:
        _wait_until_ready(running, folder / "stderr")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _wait_until_ready(running: Running, errors: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and running.process.poll() is None:
        text = running.log_file.read_text(encoding="utf-8")
        if found := re.search(r"at http://127\.0\.0\.1:(\d+)", text):
            running.port = int(found[1])
            if httpx.get(f"{running.url}/ready").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"the API did not become ready: {errors.read_text(encoding='utf-8')}")


def send_raw(port: int, pieces: Iterable[bytes], *, pause: float = 0, timeout: float = 20) -> bytes:
    """Send bytes as they are, as long as they are taken, and give all that comes back until the other side closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        except OSError:
            pass  # it has answered and closed
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
    return answer
