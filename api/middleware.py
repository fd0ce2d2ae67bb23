"""What every request passes: an id, a line in the log, counters and headers; then rate limit, origin and host name."""

import ipaddress
import logging
import math
import re
import time

from asgi_correlation_id import CorrelationIdMiddleware
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import FAILED, Problem, body_too_large, respond
from api.service import Service
from api.settings import PREFIX, Settings
from skinlesion.base.errors import brief

logger = logging.getLogger("api.request")

PROBES = ("/health", "/ready")
ROUTES = (*PROBES, "/predict", "/explain", "/model", "/metrics", "/docs", "/openapi.json")
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT")
CLIENT_GONE = 499  # the status that nginx logs; it is sent to nobody
SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}


def wrap(app: ASGIApp, service: Service) -> ASGIApp:
    """The application behind all of this module, outermost the request id of `asgi_correlation_id`."""
    settings = service.settings
    inner: ASGIApp = Guard(answer_head(app), settings)
    if settings.cors_origins:
        cors = CORSMiddleware(
            inner,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "X-Diagnosis", "Retry-After"],
        )
        message = f"This page may not call the API: {PREFIX}CORS_ORIGINS lists the origins that may, by GET, HEAD and POST."
        inner = Refusals(cors, Problem("foreign-origin", message))
    return CorrelationIdMiddleware(Observer(inner, service), validator=lambda given: SANE_ID.fullmatch(given) is not None)


def answer_head(app: ASGIApp) -> ASGIApp:
    """Answer HEAD as GET (RFC 9110), which FastAPI's routes do not; the server leaves the body out, as ASGI asks of it."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope, receive, send)

    return answer


class Observer:
    """Gives every request a line in the log, counters and headers, and answers what failed without saying why."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                if self._service.draining:
                    headers["connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:
            logger.exception("failed")
            if not status:
                await respond(Problem("internal", FAILED))(scope, receive, send_on)
        finally:
            self._note(scope, status or CLIENT_GONE, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and log a request that is over."""
        metrics = self._service.metrics
        route = scope["path"] if scope["path"] in ROUTES else "unmatched"
        metrics.requests.labels(route, status).inc()
        metrics.seconds.labels(route).observe(seconds)
        if route in PROBES and status == 200:
            return  # they come every few seconds, and tell nothing
        method = scope["method"] if scope["method"] in METHODS else "other"  # which may be any text
        facts = {"client": address_of(scope), "method": method, "route": route, "status": status}
        logger.info("request", extra=facts | {"ms": round(1000 * seconds, 1)})


class Refusals:
    """Turns what a Starlette middleware refuses in plain text into a problem; what the API refuses is one already."""

    def __init__(self, app: ASGIApp, problem: Problem) -> None:
        self._app, self._problem = app, problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = False

        async def send_on(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = Headers(raw=message["headers"]).get("content-type", "").startswith("text/plain")
            if not refused:
                await send(message)

        await self._app(scope, receive, send_on)
        if refused:
            await respond(self._problem)(scope, receive, send)


class Guard:
    """Refuses requests that come too often, from pages of others, to another name, or with too many bytes; probes pass."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        # As much as all files together may have. The proxy's limit is lower; this one is for a server without it.
        size = settings.max_files * settings.max_file_bytes + 1_000_000
        limited = Refusals(RequestBodyLimitMiddleware(app, size), body_too_large())
        message = f"This is not a name of the server: call it {settings.names[0]}, or add the name to {PREFIX}HOSTS."
        named = TrustedHostMiddleware(limited, settings.names, www_redirect=False)
        self._named = Refusals(named, Problem("wrong-host", message))
        # Two numbers a client, which are dropped after two minutes; the library's moving window would never drop a client.
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._limit = RateLimitItemPerMinute(settings.rate_limit) if settings.rate_limit else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        try:
            await self._check_rate(client_of(address_of(scope)))
            if scope["method"] == "POST":
                check_origin(Headers(scope=scope), self._settings)
        except Problem as problem:
            await respond(problem)(scope, receive, send)
        else:
            await self._named(scope, receive, send)

    async def _check_rate(self, client: str) -> None:
        """Called before the key is checked, so that nobody can try keys faster than this."""
        if self._limit is None or await self._limiter.hit(self._limit, client):
            return
        stats = await self._limiter.get_window_stats(self._limit, client)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        message = f"One client may send {self._limit.amount} requests a minute: try again in {wait} s."
        raise Problem("too-many-requests", message, headers={"Retry-After": str(wait)})


def check_origin(headers: Headers, settings: Settings) -> None:
    """Refuse a POST from a page of another origin: browsers send forms without asking first, so CORS does not stop them."""
    origin = headers.get("origin")
    if origin is None or origin in settings.cors_origins:
        return
    scheme, _, place = origin.partition("://")
    if scheme not in ("http", "https") or place.lower() != headers.get("host", "").lower():
        message = f"Pages of {brief(origin, 50)} may not call the API: add the origin to {PREFIX}CORS_ORIGINS."
        raise Problem("foreign-origin", message)


def address_of(scope: Scope) -> str:
    """The client's address."""
    return (scope.get("client") or ("",))[0]


def client_of(address: str) -> str:
    """Whose requests are counted together: those of an address, or in IPv6 of its /64, all of which belongs to one customer."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return address
