"""What every request has: an id, a line in the log, counters and headers; `api.guarding` is inside of it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import FAILED, Problem, respond
from api.service import Service

logger = logging.getLogger("api.request")

WITH_IMAGES = ("/predict", "/explain")
PROBES = ("/health", "/ready")
OPEN = (*PROBES, "/docs", "/openapi.json")  # without the key
ROUTES = (*WITH_IMAGES, *OPEN, "/model", "/metrics")
CLIENT_GONE = 499  # as nginx logs it; nobody gets it

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
DISCARD_SECONDS, DISCARD_BYTES = 1.0, 4_000_000
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


@dataclass
class Exchange:
    """One request and its answer, as far as they have come."""

    receive_from: Receive
    send_to: Send
    request_id: str
    service: Service
    has_body: bool
    body_begun: bool = False
    body_read: bool = False
    gone: bool = False
    expects_continue: bool = False
    status: int = 0

    async def receive(self) -> Message:
        message = await self.receive_from()
        self.body_begun = True
        if message["type"] == "http.disconnect":
            self.gone = True
        elif not message.get("more_body", False):
            self.body_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            close = await self._finish_body() or self.service.draining
            headers = [*message["headers"], *SECURITY_HEADERS, (b"x-request-id", self.request_id.encode())]
            message = message | {"headers": [*headers, (b"connection", b"close")] if close else headers}
            self.status = message["status"]
        await self.send_to(message)

    async def _finish_body(self) -> bool:
        """Where an answer comes before the whole body: read on a little, and say whether the connection is to be closed.

        Closed while bytes are under way, it is reset, and the client would not see the answer; kept open, an endless body would
        be read for ever.
        """
        if not self.has_body or self.body_read or self.gone:
            return False
        if self.expects_continue and not self.body_begun:
            return True  # it has sent nothing yet, and will not
        discarded = 0
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while discarded < DISCARD_BYTES and not self.body_read and not self.gone:
                    discarded += len((await self.receive()).get("body", b""))
        except TimeoutError:
            pass  # the answer is sent all the same
        return not self.body_read


def observe(app: ASGIApp, service: Service) -> ASGIApp:
    """The application with an id, a line in the log, counters and headers for every request; of an error nothing leaks."""

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = Exchange(
            receive,
            send,
            request_id,
            service,
            has_body=b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0",
            expects_continue=headers.get(b"expect", b"").lower() == b"100-continue",
        )
        try:
            await app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = CLIENT_GONE
        except Exception:
            logger.exception("failed", extra={"facts": {"id": request_id}})
            if not exchange.status:
                await respond(Problem("internal", FAILED), request_id)(scope, exchange.receive, exchange.send)
        finally:
            _note(scope, exchange, service, time.perf_counter() - started)

    return observed


def _note(scope: Scope, exchange: Exchange, service: Service, seconds: float) -> None:
    """Count and log a request that is over."""
    route = scope["path"] if scope["path"] in ROUTES else "unmatched"
    status = exchange.status or CLIENT_GONE
    service.metrics.requests.labels(route, status).inc()
    service.metrics.seconds.labels(route).observe(seconds)
    if route in PROBES and status == 200:
        return  # every few seconds, and of no interest
    facts = {"id": exchange.request_id, "client": (scope.get("client") or ("",))[0], "method": _method(scope["method"])}
    logger.info("request", extra={"facts": facts | {"route": route, "status": status, "ms": round(1000 * seconds, 1)}})


def _method(method: str) -> str:
    """A method for the log; what is none may be anything."""
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT") else "other"
