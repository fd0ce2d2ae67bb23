"""The addresses of the API. What they share is in `api.middleware` and `api.service`; what they do is the predictor's work."""

import hmac
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Annotated, Any, TypeVar

import numpy as np
from asgi_correlation_id import correlation_id
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from PIL import Image
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.datastructures import UploadFile

from api.documentation import draw_page
from api.forms import read_form
from api.pictures import LONG_SIDE, draw_map
from api.problems import MEDIA_TYPE, Problem, of_refusals
from api.schemas import (
    METHODS_HERE,
    NOT_FOR_CLINICAL_USE,
    ExplainQuery,
    FileProblem,
    HealthAnswer,
    ImageOut,
    LimitsOut,
    ModelAnswer,
    PointOut,
    PredictAnswer,
    PredictFields,
    ProblemOut,
    describe_prediction,
    form_schema,
)
from api.schemas import Patient as PatientFields
from api.service import Seen, Service
from skinlesion.artifacts.patients import Patient
from skinlesion.artifacts.raw import MAX_PIXELS
from skinlesion.base.errors import PipelineError, brief, suggest
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.serving.explainer import check_diagnosis
from skinlesion.serving.operating_point import OperatingPoint
from skinlesion.serving.upload_checks import MIN_SIDE, UploadError

Checked = TypeVar("Checked")

PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}

bearer = HTTPBearer(scheme_name="key", description="the API key", auto_error=False)


async def check_key(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
    """Refuse a request without the API key (RFC 6750); the time that takes tells nothing about the key."""
    key = service_of(request).settings.api_key
    right = b"" if key is None else key.get_secret_value().encode()
    sent = b"" if given is None else given.credentials.encode()
    # Digests, so that not even the key's length shows.
    if hmac.compare_digest(sha256(sent).digest(), sha256(right).digest()):
        return
    why = "The API key of the request is wrong" if "authorization" in request.headers else "The request has no API key"
    raise Problem(
        "unauthorized",
        f"{why}: send the header `Authorization: Bearer KEY`.",
        headers={"WWW-Authenticate": 'Bearer realm="skinlesion"'},
    )


async def refuse_parameters(request: Request) -> None:
    """Refuse query parameters on a route that reads none, so that they are not silently ignored."""
    for name in request.query_params:
        raise Problem("invalid", f"There is no query parameter {brief(name, 50)} here: send choices as fields of the form.")


PLAIN = [Depends(refuse_parameters)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of problems that a route answers with."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    return {status: {"model": ProblemOut, "description": "Problem", "content": {MEDIA_TYPE: schema}} for status in statuses}


BODY = problems(400, 403, 413, 415)
open_router = APIRouter(dependencies=PLAIN, responses=problems(422, 500))  # without the key
router = APIRouter(responses=problems(401, 421, 422, 429, 500, 503, 504))


@router.post(
    "/predict",
    dependencies=PLAIN,
    responses=BODY,
    openapi_extra={"requestBody": form_schema(PredictFields, file_field="files", many=True)},
)
async def predict(request: Request) -> PredictAnswer:
    """Predict one image or several.

    A file that is refused has its problem in place of its prediction, and the others are answered. If all are refused, so is the
    request.
    """
    service = service_of(request)
    predictor = service.predictor
    async with service.admit():
        files, fields = await read_form(request, PredictFields, file_field="files", max_files=service.settings.max_files)
        point, patient = refuse_invalid(predictor.find_point, fields.operating_point), known_patient(service, fields)
        seen = await service.see(files)
        images = await _predict_seen(service, files, seen, patient=patient, point=point, top_k=fields.top_k)
    return PredictAnswer(
        not_for_clinical_use=NOT_FOR_CLINICAL_USE,
        request_id=correlation_id.get() or "",
        model=predictor.member,
        fingerprint=predictor.config.fingerprint,
        operating_point=None if point is None else PointOut.model_validate(point),
        images=images,
    )


async def _predict_seen(
    service: Service,
    files: Sequence[UploadFile],
    seen: Sequence[Seen | UploadError],
    *,
    patient: Patient,
    point: OperatingPoint | None,
    top_k: int,
) -> list[ImageOut]:
    """The entry of each file in the answer; a problem if none could be used."""
    whole = [one for one in seen if isinstance(one, Seen)]
    rows = iter(await service.batcher.logits([one.square for one in whole], patient) if whole else ())
    images, refused = [], []
    for index, (file, one) in enumerate(zip(files, seen, strict=True)):
        image = ImageOut(index=index, name=file.filename or "", prediction=None, problem=None)
        if isinstance(one, Seen):
            prediction = service.predictor.conclude(next(rows), one.square, one.quality, point)
            described = describe_prediction(prediction, notes=one.notes, top_k=top_k)
            images.append(image.model_copy(update={"prediction": described}))
        else:
            refused.append(Problem(one.reason, str(one)))
            images.append(image.model_copy(update={"problem": FileProblem(**refused[-1].document())}))
    if not whole:
        raise of_refusals(refused, [image.model_dump() for image in images])
    return images


@router.post(
    "/explain",
    response_class=Response,
    responses={200: {"content": PNG, "description": "The map, at most 1024 pixels a side, with a line below it"}, **BODY},
    openapi_extra={"requestBody": form_schema(PatientFields, file_field="file", many=False)},
)
async def explain(request: Request, query: Annotated[ExplainQuery, Query()]) -> Response:
    """Draw where in an image the networks found evidence for a diagnosis; the header `X-Diagnosis` names it.

    Methods that run the network on hundreds of changed images are left to the pipeline's stage `gradcam`.
    """
    service = service_of(request)
    check_method(service, query.method)
    if query.diagnosis is not None:
        refuse_invalid(check_diagnosis, query.diagnosis)
    async with service.admit():
        picture, diagnosis = await _explain(request, query, service)
    return Response(picture, media_type="image/png", headers={"X-Diagnosis": diagnosis})


async def _explain(request: Request, query: ExplainQuery, service: Service) -> tuple[bytes, str]:
    """The map as PNG, and its diagnosis."""
    files, fields = await read_form(request, PatientFields, file_field="file", max_files=1)
    patient, predictor = known_patient(service, fields), service.predictor

    def shrunken(file: UploadFile) -> tuple[Image.Image, np.ndarray]:
        """The image, shrunken for its map, and the square of the whole image."""
        image, _ = service.decode(file)
        square = predictor.square(image)
        image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BILINEAR)
        return image, square

    try:
        image, square = await service.run_decoder(shrunken, files[0])
    except UploadError as error:
        raise Problem(error.reason, str(error)) from None
    diagnosis = query.diagnosis
    if diagnosis is None:
        row = (await service.batcher.logits([square], patient))[0]
        diagnosis = predictor.conclude(row, square, (), None).top(1)[0][0]

    def draw() -> bytes:
        with service.metrics.map_seconds.time():
            heat = predictor.explainer.explain(image, square, patient, diagnosis=diagnosis, method=query.method)
            return draw_map(image, heat, kind=query.kind, opacity=query.opacity, comment=NOT_FOR_CLINICAL_USE)

    return await service.draw(draw), diagnosis


@router.get("/model", dependencies=PLAIN)
async def model(request: Request) -> ModelAnswer:
    """What the model is, what it can be asked, and how it was measured."""
    service = service_of(request)
    predictor, settings = service.predictor, service.settings
    return ModelAnswer(
        not_for_clinical_use=NOT_FOR_CLINICAL_USE,
        card=service.card,
        classes=DIAGNOSES,
        operating_points=[PointOut.model_validate(point) for point in predictor.points.values()],
        default_operating_point=predictor.default_point,
        takes_metadata=predictor.needs_metadata,
        methods=list(service.methods),
        limits=LimitsOut(files=settings.max_files, file_bytes=settings.max_file_bytes, pixels=MAX_PIXELS, shortest_side=MIN_SIDE),
    )


@open_router.get("/health")
async def health() -> HealthAnswer:
    """Whether the process is alive. If this fails, restart it."""
    return HealthAnswer(status="alive")


@open_router.get("/ready", responses=problems(503))
async def ready(request: Request) -> HealthAnswer:
    """Whether requests are accepted: the model has run once, images are decoded, and the server is not stopping."""
    service = service_of(request)
    if not service.ready:
        why = "stopping" if service.draining else "stuck on images that take too long" if service.stuck else "starting"
        raise Problem("not-ready", f"The server is {why}.", headers={"Retry-After": "1"})
    return HealthAnswer(status="ready")


@router.get(
    "/metrics",
    dependencies=PLAIN,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Counters"}},
)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(generate_latest(service_of(request).metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@open_router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The documentation as one page that loads nothing."""
    return HTMLResponse(draw_page(request.app.openapi()))


def service_of(request: Request) -> Service:
    """The state of the application."""
    return request.app.state.service


def refuse_invalid(check: Callable[..., Checked], *values: Any) -> Checked:
    """Call a function whose PipelineError says that a value of the request is not valid."""
    try:
        return check(*values)
    except PipelineError as error:
        raise Problem("invalid", str(error)) from None


def known_patient(service: Service, fields: PatientFields) -> Patient:
    """What is known about the patient; refused if the model would not use it."""
    patient = refuse_invalid(Patient, fields.age, fields.sex, fields.localization)
    if patient != Patient() and not service.predictor.needs_metadata:
        raise Problem("invalid", "This model uses the image alone: leave out age, sex and localization.")
    return patient


def check_method(service: Service, method: str) -> None:
    """Refuse a method that the API does not have, or that does not work on this model."""
    if method not in METHODS_HERE:
        raise Problem(
            "invalid",
            f"There is no method '{method[:50]}' here{suggest(method, METHODS_HERE)}; known: {', '.join(METHODS_HERE)}.",
        )
    if service.methods and method not in service.methods:
        raise Problem("invalid", f"{method} does not work on this network; use one of {', '.join(service.methods)}.")
