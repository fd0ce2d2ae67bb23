"""What a request passes before it is answered: rate limit, name, origin, key, what is in work, and the time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.authentication import check_key
from api.limits import client_of
from api.middleware import OPEN, PROBES, WITH_IMAGES
from api.problems import Problem, respond
from api.service import Service
from api.settings import PREFIX, Settings
from skinlesion.base.errors import brief

SHORTLY = {"Retry-After": "1"}


@dataclass
class Intake:
    """The body of one request with images while it comes, and then its place among those in work.

    Only a whole body has a place, so that whoever sends slowly holds none; of bytes that have come, a client has a share.
    """

    receive_from: Receive
    service: Service
    client: str
    size: int = 0
    in_work: bool = False

    def check_room(self) -> None:
        """Raise the problem of a request for which there is no place."""
        if self.service.in_work >= self.service.settings.max_requests:
            raise Problem("busy", "Too many requests are in work: try again in a moment.", headers=SHORTLY)

    async def receive(self) -> Message:
        message = await self.receive_from()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            if not self.service.bodies.take(self.client, size):
                raise Problem("busy", "Too many bytes of requests are on their way: try again in a moment.", headers=SHORTLY)
            self.size += size
            if not message.get("more_body", False) and not self.in_work:
                self.check_room()
                self.service.in_work += 1
                self.in_work = True
        return message

    def leave(self) -> None:
        """Give back what the request held."""
        self.service.bodies.give_back(self.client, self.size)
        self.service.in_work -= self.in_work


def guard(app: ASGIApp, service: Service) -> ASGIApp:
    """The application behind its limits; what does not pass is answered by its problem."""
    settings = service.settings

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await app(scope, receive, send)
            return
        begun = False

        async def send_on(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            check_request(scope, service)
            async with asyncio.timeout(settings.request_seconds):
                if scope["path"] in WITH_IMAGES and scope["method"] == "POST":
                    await _take_in(app, service, scope, receive, send_on)
                else:
                    await app(scope, receive, send_on)
        except TimeoutError:
            said = f"There was no answer after {settings.request_seconds:g} seconds: send fewer or smaller files."
            problem = Problem("time-limit", said)
        except Problem as error:
            problem = error
        else:
            return
        if not begun:  # or the client reads too slowly: the server closes what is not whole
            await respond(problem, scope["state"]["request_id"])(scope, receive, send)

    return guarded


async def _take_in(app: ASGIApp, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    intake = Intake(receive, service, client_of(host_of(scope)))
    intake.check_room()  # before anything is read
    try:
        await app(scope, intake.receive, send)
    finally:
        intake.leave()


def host_of(scope: Scope) -> str:
    """The client's address."""
    return (scope.get("client") or ("",))[0]


def check_request(scope: Scope, service: Service) -> None:
    """Raise the problem of a request that its head alone forbids."""
    settings, headers = service.settings, Headers(scope=scope)
    # Before the key, so that nobody tries keys faster than that.
    wait = service.rate_limit.take(client_of(host_of(scope)))
    if wait:
        said = f"At most {settings.rate_limit} requests a minute are taken from one client: try again in {wait} s."
        raise Problem("too-many-requests", said, headers={"Retry-After": str(wait)})
    check_name(headers, settings)
    if scope["method"] == "POST":
        check_origin(headers, settings)
    if settings.api_key is not None and scope["path"] not in OPEN:
        check_key(headers.get("authorization"), settings.api_key.get_secret_value())


def check_name(headers: Mapping[str, str], settings: Settings) -> None:
    """Refuse a request to a name that is not the server's.

    A page whose own name was made to lead to this address (DNS rebinding) would count as a page of this server.
    """
    name = re.sub(r":\d*$", "", headers.get("host", "")).lower()
    if name and settings.names and name not in settings.names:
        said = f"{brief(name, 50)} is no name of this server: call it {settings.names[0]}, or set {PREFIX}HOSTS."
        raise Problem("wrong-host", said)


def check_origin(headers: Mapping[str, str], settings: Settings) -> None:
    """Refuse what a page of somebody else sends: of a form, a browser asks nobody before."""
    origin = headers.get("origin")
    if origin is None or origin in settings.origins:
        return
    scheme, _, place = origin.partition("://")
    if scheme not in ("http", "https") or place.lower() != headers.get("host", "").lower():
        raise Problem("foreign-origin", f"Pages of {brief(origin, 50)} may not call this: name it in {PREFIX}CORS_ORIGINS.")


class Cors(CORSMiddleware):
    """Starlette's answers to pages of other origins; a preflight that it refuses is answered by a problem."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "X-Diagnosis", "Retry-After"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "origin" in headers and "access-control-request-method" in headers:
                answer = self.preflight_response(headers)
                if answer.status_code != 200:
                    said = f"{bytes(answer.body).decode()}: {PREFIX}CORS_ORIGINS names who may call this, by GET and POST."
                    answer = respond(Problem("foreign-origin", said), scope["state"]["request_id"])
                await answer(scope, receive, send)
                return
        await super().__call__(scope, receive, send)
