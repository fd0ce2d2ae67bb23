"""The application: routes, and around them what every request passes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from api.middleware import ROUTES, wrap
from api.problems import FAILED, Problem, body_too_large, respond
from api.routes import check_key, open_router, router
from api.schemas import NOT_FOR_CLINICAL_USE
from api.service import Service
from api.settings import Settings
from skinlesion.base.errors import brief, suggest
from skinlesion.serving.predictor import Predictor

DESCRIPTION = f"""**{NOT_FOR_CLINICAL_USE}**

Send images of skin lesions. The answer has calibrated probabilities of seven diagnoses, the operating point chosen on validation
with its sensitivity and specificity, and when not to trust it. Errors are problems as defined by RFC 9457. The header
`X-Request-ID` of an answer has the request's id; a request may bring its own. Images are held in memory only until the response
is sent.
"""


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
    app.include_router(open_router)
    app.include_router(router, dependencies=[Depends(check_key)] if settings.api_key else [])
    app.exception_handler(Problem)(_answer)
    app.exception_handler(HTTPException)(_answer_http)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(Exception)(_answer_failed)
    return wrap(app, service), service


def _answer(request: Request, problem: Problem) -> Response:
    return respond(problem)


def _answer_http(request: Request, error: HTTPException) -> Response:
    """Starlette's own refusals: an unknown address, another method, or too large a body."""
    if error.status_code == 405:
        # Of an address that has GET, the routes name HEAD at times, and in any order; it is answered everywhere.
        allowed = "GET, HEAD" if "GET" in (error.headers or {}).get("Allow", "") else "POST"
        detail = f"{request.url.path} accepts {allowed}; /docs lists all addresses."
        return respond(Problem("method-not-allowed", detail, headers={"Allow": allowed}))
    if error.status_code == 404:
        near = suggest(request.url.path, ROUTES)
        return respond(Problem("not-found", f"There is nothing at this address{near}; /docs lists all addresses."))
    if error.status_code == 413:
        return respond(body_too_large())
    return respond(Problem("malformed", str(error.detail)))


def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    """A query parameter that is not valid, or not known."""
    first = error.errors()[0]
    name = brief(first["loc"][-1], 50)
    if first["type"] == "extra_forbidden":
        return respond(Problem("invalid", f"There is no parameter {name} here; /docs lists all."))
    return respond(Problem("invalid", f"The parameter {name}: {first['msg']}."))


def _answer_failed(request: Request, error: Exception) -> Response:
    """An error of ours. Starlette raises it again, and `api.middleware.Observer` logs it."""
    return respond(Problem("internal", FAILED))
