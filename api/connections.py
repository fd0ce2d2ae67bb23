"""uvicorn's connection with what it lacks: limits of connections, and of the time that a client takes to write and to read."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import uuid
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.limits import Shares, client_of
from api.problems import MEDIA_TYPE, Problem
from api.service import Service
from api.settings import Settings


class Ending:
    """A transport that, once it is closed, ends after a time: asyncio's own waits for ever until its client has read the rest.

    Everything else is the transport's. on_unread : is called where bytes were thrown away.
    """

    def __init__(self, transport: asyncio.Transport, *, seconds: float, on_unread: Any) -> None:
        self._transport, self._seconds, self._on_unread = transport, seconds, on_unread
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close it, once what was written has been sent or the time is over."""
        self.limit()
        self._transport.close()

    def limit(self) -> None:
        """Give the client so long from now."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)

    def lift(self) -> None:
        """Take the limit back, which one that closes keeps."""
        if self._timer is not None and not self._transport.is_closing():
            self.forget()

    def forget(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._on_unread()
        self._transport.abort()


def protocol_class(service: Service) -> type[H11Protocol]:
    """The class of an application's connections."""
    settings, closed = service.settings, service.metrics.closed
    shares = Shares(settings.max_connections, most=settings.max_client_connections)

    class Connection(H11Protocol):
        transport: Any
        head_timer: asyncio.TimerHandle | None = None
        whose: str | None = None  # the client whose share it has

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            ending = Ending(transport, seconds=settings.request_seconds, on_unread=closed.labels("unread").inc)
            super().connection_made(ending)  # type: ignore[arg-type]
            self._enter()

        def _enter(self) -> None:
            host = self.client[0] if self.client else ""
            # Everybody's connections come from a proxy's address.
            client = f"connection {id(self)}" if is_trusted(host, settings) else client_of(host)
            if shares.take(client, 1):
                self.whose = client
                self._await_head()
                return
            closed.labels("too-many" if shares.taken == settings.max_connections else "too-many-of-client").inc()
            self.transport.abort()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                self._stop_timer()
            elif self.head_timer is None and (before is None or before.response_complete):
                self._await_head()

        def on_response_complete(self) -> None:
            before = self.cycle
            super().on_response_complete()
            if self.cycle is not before:  # the next request had come already
                self._stop_timer()

        def pause_writing(self) -> None:
            self.transport.limit()
            super().pause_writing()

        def resume_writing(self) -> None:
            self.transport.lift()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)  # which closes what is closed
            self.transport.forget()
            if self.whose is not None:
                shares.give_back(self.whose, 1)
                self.whose = None

        def _await_head(self) -> None:
            self.head_timer = self.loop.call_later(settings.head_seconds, self._give_up_on_head)

        def _give_up_on_head(self) -> None:
            closed.labels("slow-head").inc()
            self.transport.abort()

        def _stop_timer(self) -> None:
            if self.head_timer is not None:
                self.head_timer.cancel()
                self.head_timer = None

        def _unsupported_upgrade_warning(self) -> None:
            """Say nothing: it is answered as if it had asked for no other protocol, and uvicorn would have more installed."""

        def send_400_response(self, msg: str) -> None:
            closed.labels("malformed").inc()
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                self.transport.close()  # an answer has begun, into which nothing can be put
                return
            request_id = uuid.uuid4().hex
            document = Problem("malformed", "This is no HTTP request.").document() | {"request_id": request_id}
            body = json.dumps(document).encode()
            headers = [("content-type", MEDIA_TYPE), ("connection", "close"), ("content-length", str(len(body)))]
            headers += [("x-request-id", request_id), ("x-content-type-options", "nosniff")]
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self.transport.close()

    return Connection


def is_trusted(host: str, settings: Settings) -> bool:
    """Whether an address is that of a proxy which is named."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in settings.proxies)
