"""The API in a process of its own, for those who ask it over HTTP: the benchmark and the tests."""

import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from skinlesion.base.errors import PipelineError

PROJECT = Path(__file__).resolve().parents[1]
START_SECONDS = 120


@dataclass
class Server:
    """An API that runs, and what was measured of it, a value a round."""

    process: psutil.Popen
    port: int
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def memory(self) -> float:
        """Resident memory, MB."""
        return float(self.process.memory_info().rss / 1e6)

    def cpu(self) -> float:
        """Processor seconds so far."""
        return float(sum(self.process.cpu_times()[:2]))


@contextmanager
def serve(root: Path, log: Path, **settings: Any) -> Iterator[Server]:
    """Serve a workspace at a free port until the block ends; it is ready when the block begins.

    log : for its standard output; its standard error goes to a file beside it. settings : SKINLESION_NAME as `name`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKINLESION_")}
    wanted = {"root": root.resolve(), "port": 0} | settings
    environment |= {f"SKINLESION_{name.upper()}": str(value) for name, value in wanted.items()}
    with log.open("wb") as out, log.with_suffix(".stderr").open("wb") as errors:
        process = psutil.Popen([sys.executable, "-m", "api"], cwd=PROJECT, env=environment, stdout=out, stderr=errors)
    try:
        yield Server(process, wait_until_ready(process, log))
    finally:
        if process.is_running():
            process.kill()
        process.wait()


def wait_until_ready(process: psutil.Popen, log: Path) -> int:
    """The port, once requests are answered.

    Raises
    ------
    PipelineError
        The API ended, or was not ready in time; with the end of its standard error.
    """
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        if found := re.search(r"at http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8")):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/ready", timeout=10):
                    return int(found[1])
            except urllib.error.URLError:
                pass  # not yet
        time.sleep(0.1)
    stderr = log.with_suffix(".stderr").read_text(encoding="utf-8").strip()
    raise PipelineError(f"the API did not start: {stderr[-1000:]}")
