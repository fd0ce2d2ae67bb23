"""Clients that send the same requests again and again, each over a connection that it keeps: what a server is loaded with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

BOUNDARY = b"benchmark"


@dataclass
class Load:
    """What clients saw: seconds of every answered request, answers that were none, and what they cost themselves.

    seconds : from the first client's start to the last one's end. client_cpu : processor seconds of the clients.
    """

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0
    client_cpu: float = 0

    def quantile(self, share: float) -> float:
        """Seconds that this share of the answers took at most."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")


def make_request(image: bytes, *, path: str = "/predict") -> bytes:
    """A POST of one image, as bytes."""
    head = b'--%s\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' % BOUNDARY
    body = head + image + b"\r\n--%s--\r\n" % BOUNDARY
    return (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n\r\n"
        % (path.encode(), BOUNDARY, len(body))
    ) + body


def load_server(port: int, requests: Sequence[bytes], *, clients: int, seconds: float) -> Load:
    """Send requests from `clients` clients for a time, each the next when it has the answer to the last.

    By bare streams, not by an HTTP library, whose parsing would take the cores from the server.
    """
    load = Load()
    cpu, started = time.process_time(), time.perf_counter()
    asyncio.run(_run(load, port, requests, clients=clients, until=started + seconds))
    load.seconds, load.client_cpu = time.perf_counter() - started, time.process_time() - cpu
    return load


async def _run(load: Load, port: int, requests: Sequence[bytes], *, clients: int, until: float) -> None:
    await asyncio.gather(*(_client(load, port, requests, first, until) for first in range(clients)))


async def _client(load: Load, port: int, requests: Sequence[bytes], position: int, until: float) -> None:
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while (started := time.perf_counter()) < until:
        try:
            reader, writer = connection = connection or await asyncio.open_connection("127.0.0.1", port)
            writer.write(requests[position % len(requests)])
            status = await _read_answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            status, connection = 0, None
        position += 1
        if status == 200:
            load.latencies.append(time.perf_counter() - started)
        else:
            load.errors += 1
            await asyncio.sleep(0.01)
    if connection is not None:
        connection[1].close()


async def _read_answer(reader: asyncio.StreamReader) -> int:
    """Read an answer to its end and give its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head[9:12])
