"""The application: routes, and around them what every request passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from api.guarding import Cors, guard
from api.middleware import OPEN, ROUTES, observe
from api.problems import FAILED, Problem, respond
from api.routes import router
from api.schemas import NOT_FOR_CLINICAL_USE
from api.service import Service
from api.settings import Settings
from skinlesion.base.errors import brief, suggest
from skinlesion.serving.predictor import Predictor

DESCRIPTION = f"""**{NOT_FOR_CLINICAL_USE}**

Images of skin lesions in, calibrated probabilities of seven diagnoses out, with the operating point chosen on validation, its
sensitivity and specificity, and when not to trust the answer. Errors are problems as RFC 9457 has them. An answer has the
request's id in `X-Request-ID`, which a request may bring. Images are kept in memory until they are answered, and nowhere else.
"""
KINDS_OF_KEY = {"key": {"type": "http", "scheme": "bearer", "description": "the API key"}}


def create_app(settings: Settings, predictor: Predictor) -> tuple[ASGIApp, Service]:
    """The application, and its state."""
    service = Service(settings, predictor)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="skin-lesion",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(router)
    handlers = {Problem: _answer, HTTPException: _answer_http, RequestValidationError: _answer_invalid, Exception: _answer_failed}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.openapi = lambda: _document(app, with_key=settings.api_key is not None)
    inner: ASGIApp = guard(app, service)
    if settings.origins:
        inner = Cors(inner, settings.origins)
    return observe(inner, service), service


def _answer(request: Request, problem: Problem) -> Response:
    return respond(problem, request.state.request_id)


def _answer_http(request: Request, error: HTTPException) -> Response:
    """Starlette's own refusals: no such address, or another method."""
    if error.status_code == 405:
        said = f"{request.url.path} takes {(error.headers or {}).get('Allow', 'another method')}; /docs has all addresses."
        return _answer(request, Problem("method-not-allowed", said, headers=dict(error.headers or {})))
    if error.status_code == 404:
        near = suggest(request.url.path, ROUTES)
        return _answer(request, Problem("not-found", f"There is nothing here{near}; /docs has all addresses."))
    return _answer(request, Problem("malformed", str(error.detail)))


def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    """A query parameter that is not valid, or that nobody reads."""
    first = error.errors()[0]
    name = first["loc"][-1]
    if first["type"] == "extra_forbidden":
        return _answer(request, Problem("invalid", f"There is no parameter {brief(name, 50)} here; /docs has all."))
    return _answer(request, Problem("invalid", f"The parameter {brief(name, 50)}: {first['msg']}."))


def _answer_failed(request: Request, error: Exception) -> Response:
    """An error of ours, of which only the log tells more; it is raised again and logged by `api.middleware.observe`."""
    return _answer(request, Problem("internal", FAILED))


def _document(app: FastAPI, *, with_key: bool) -> dict[str, Any]:
    """The OpenAPI document; with the key where there is one."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        if with_key:
            document["components"]["securitySchemes"] = KINDS_OF_KEY
            for path, operations in document["paths"].items():
                for operation in operations.values() if path not in OPEN else ():
                    operation["security"] = [{"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
