"""Servers that tests start on this machine: a free port, and the wait until one answers."""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import httpx

PATIENCE = 60.0  # seconds


def free_port() -> int:
    """A port of 127.0.0.1 at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def high_water(pid: int) -> int:
    """The most memory that a process has held so far, bytes; 0 for one that has ended and was not waited for."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0


def wait_until_answered(
    url: str, process: subprocess.Popen[Any], log: Callable[[], str], *, statuses: Container[int] = (200,)
) -> None:
    """Wait until a server answers at an address with one of `statuses`.

    Raises
    ------
    AssertionError
        It ended, or did not answer in `PATIENCE` seconds; with its log.
    """
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        try:
            if httpx.get(url, timeout=5).status_code in statuses:
                return
        except httpx.TransportError:
            pass  # not yet
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"{url} does not answer:\n{log()}")
