"""The addresses of the API. What they share is in `api.guarding` (limits, key, time) and `api.middleware`; what they do, in the
predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ValidationError

from api.answers import describe_point, describe_prediction
from api.documentation import draw_page
from api.multipart import Form, SentFile, read_form
from api.pictures import draw_map, shrink
from api.problems import MEDIA_TYPE, Problem, of_refusals, of_upload
from api.schemas import (
    METHODS_HERE,
    NOT_FOR_CLINICAL_USE,
    ExplainQuery,
    FileProblem,
    HealthAnswer,
    ImageOut,
    LimitsOut,
    ModelAnswer,
    PredictAnswer,
    PredictFields,
    ProblemOut,
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

Fields = TypeVar("Fields", bound=BaseModel)

PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter()


async def refuse_parameters(request: Request) -> None:
    """Of a route without query parameters: one that is there would be ignored, and its sender not know."""
    for name in request.query_params:
        raise Problem(
            "invalid", f"There is no query parameter {brief(name, 50)} here: what is chosen is sent as fields of the form."
        )


PLAIN = [Depends(refuse_parameters)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of problems that a route answers with."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemOut"}}
    return {status: {"model": ProblemOut, "description": "Problem", "content": {MEDIA_TYPE: schema}} for status in statuses}


ANY = problems(421, 422, 429, 500, 503, 504)
BODY = problems(400, 401, 403, 408, 413, 415) | ANY


@router.post(
    "/predict",
    dependencies=PLAIN,
    response_model=PredictAnswer,
    responses=BODY,
    openapi_extra={"requestBody": form_schema(PredictFields, file_field="files", many=True)},
)
async def predict(request: Request) -> Response:
    """Predict one image or several.

    A file that is refused has its problem in the place of its prediction, and the others are answered; where all are refused, so
    is the request.
    """
    service = service_of(request)
    form = await _read(request, file_field="files", model=PredictFields)
    fields = parse_fields(PredictFields, form)
    point, patient = find_point(service, fields.operating_point), known_patient(service, fields)
    seen = await service.see(form.files)
    count_refusals(service, seen)
    images = await _predict_seen(service, form.files, seen, patient=patient, point=point, top_k=fields.top_k)
    answer = PredictAnswer(
        not_for_clinical_use=NOT_FOR_CLINICAL_USE,
        request_id=request.state.request_id,
        model=service.predictor.member,
        fingerprint=service.predictor.config.fingerprint,
        operating_point=None if point is None else describe_point(point),
        images=images,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


async def _predict_seen(
    service: Service,
    files: Sequence[SentFile],
    seen: Sequence[Seen | UploadError],
    *,
    patient: Patient,
    point: OperatingPoint | None,
    top_k: int,
) -> list[ImageOut]:
    """What is said of each file; a problem where nothing can be said of any."""
    whole = [one for one in seen if isinstance(one, Seen)]
    refused = [of_upload(one) for one in seen if not isinstance(one, Seen)]
    if not whole:
        entries = [_refused(index, file, problem) for index, (file, problem) in enumerate(zip(files, refused, strict=True))]
        raise of_refusals(refused, [entry.model_dump() for entry in entries])
    rows = iter(await service.batcher.logits([one.square for one in whole], patient))
    images = []
    for index, (file, one) in enumerate(zip(files, seen, strict=True)):
        if isinstance(one, Seen):
            prediction = service.predictor.conclude(next(rows), one.square, one.quality, point)
            said = describe_prediction(prediction, notes=one.notes, top_k=top_k)
            images.append(ImageOut(index=index, name=file.name, prediction=said, problem=None))
        else:
            images.append(_refused(index, file, of_upload(one)))
    return images


def _refused(index: int, file: SentFile, problem: Problem) -> ImageOut:
    return ImageOut(index=index, name=file.name, prediction=None, problem=FileProblem(**problem.document()))


@router.post(
    "/explain",
    response_class=Response,
    responses={200: {"content": PNG, "description": "The map, with at most 1024 pixels a side, and a line below it"}} | BODY,
    openapi_extra={"requestBody": form_schema(PatientFields, file_field="file", many=False)},
)
async def explain(request: Request, query: Annotated[ExplainQuery, Query()]) -> Response:
    """Draw where in an image the networks found what speaks for a diagnosis; the header `X-Diagnosis` names it.

    Methods that change the image again and again are left to the pipeline's stage `gradcam`.
    """
    service = service_of(request)
    check_method(service, query.method)
    if query.diagnosis is not None:
        refuse_invalid(check_diagnosis, query.diagnosis)
    form = await _read(request, file_field="file", model=PatientFields, files=1)
    patient = known_patient(service, parse_fields(PatientFields, form))

    def shrunken(file: SentFile) -> tuple[Any, Any]:
        """The image, shrunken for its map, and its square, which is of the whole image."""
        image, _ = service.decode(file)
        return shrink(image), service.predictor.square(image)

    try:
        image, square = await service.run_decoder(shrunken, form.files[0])
    except UploadError as error:
        service.metrics.refused.labels(error.reason).inc()
        raise of_upload(error) from None
    diagnosis = query.diagnosis
    if diagnosis is None:
        row = (await service.batcher.logits([square], patient))[0]
        diagnosis = service.predictor.conclude(row, square, (), None).top(1)[0][0]

    def draw() -> bytes:
        with service.metrics.map_seconds.time():
            heat = service.predictor.explainer.explain(image, square, patient, diagnosis=diagnosis, method=query.method)
            return draw_map(image, heat, kind=query.kind, opacity=query.opacity, comment=NOT_FOR_CLINICAL_USE)

    return Response(await service.draw(draw), media_type="image/png", headers={"X-Diagnosis": diagnosis})


@router.get("/model", dependencies=PLAIN, response_model=ModelAnswer, responses=problems(401) | ANY)
async def model(request: Request) -> ModelAnswer:
    """What the model is, what it can be asked, and how far it was measured."""
    service = service_of(request)
    predictor, limits = service.predictor, service.limits
    return ModelAnswer(
        not_for_clinical_use=NOT_FOR_CLINICAL_USE,
        card=service.card,
        classes=DIAGNOSES,
        operating_points=[describe_point(point) for point in predictor.points.values()],
        default_operating_point=predictor.default_point,
        takes_metadata=predictor.needs_metadata,
        methods=list(service.methods),
        limits=LimitsOut(
            files=limits.files,
            file_bytes=limits.file_bytes,
            body_bytes=limits.body_bytes,
            pixels=MAX_PIXELS,
            shortest_side=MIN_SIDE,
        ),
    )


@router.get("/health", dependencies=PLAIN, response_model=HealthAnswer, responses=problems(422, 500))
async def health() -> HealthAnswer:
    """Whether the process is alive. A probe that fails here says: start it anew."""
    return HealthAnswer(status="alive")


@router.get("/ready", dependencies=PLAIN, response_model=HealthAnswer, responses=problems(422, 500, 503))
async def ready(request: Request) -> HealthAnswer:
    """Whether requests are taken: the model has made a first pass, images are decoded, and the server is not stopping."""
    service = service_of(request)
    if not service.ready:
        why = "stopping" if service.draining else "stuck on images that take too long" if service.stuck else "starting"
        raise Problem("not-ready", f"The server is {why}.", headers={"Retry-After": "1"})
    return HealthAnswer(status="ready")


@router.get(
    "/metrics",
    dependencies=PLAIN,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Counters"}} | problems(401) | ANY,
)
async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    return Response(generate_latest(service_of(request).metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The documentation as one page that loads nothing."""
    return HTMLResponse(draw_page(request.app.openapi()))


def service_of(request: Request) -> Service:
    """The state of the application."""
    return request.app.state.service


async def _read(request: Request, *, file_field: str, model: type[BaseModel], files: int | None = None) -> Form:
    """The form of a request with one file at least, and `files` at most."""
    limits = service_of(request).limits
    if files is not None:
        limits = limits._replace(files=files)
    headers = dict(request.scope["headers"])
    form = await read_form(request.receive, headers, limits, file_field=file_field, fields=list(model.model_fields))
    if not form.files:
        raise Problem(
            "invalid", f"There is no file: send one under the name '{file_field}', as `curl -F {file_field}=@image.jpg` does."
        )
    return form


def parse_fields(model: type[Fields], form: Form) -> Fields:
    """The fields of a form; what is none is refused with its name."""
    try:
        return model(**form.fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Problem("invalid", f"The field '{first['loc'][0]}': {first['msg']}; leave it out where it is not known.") from None


def refuse_invalid(check: Any, *values: Any) -> Any:
    """Call a function whose PipelineError says that a value of the request is not valid."""
    try:
        return check(*values)
    except PipelineError as error:
        raise Problem("invalid", str(error)) from None


def find_point(service: Service, name: str | None) -> OperatingPoint | None:
    """The operating point that is asked for."""
    return refuse_invalid(service.predictor.find_point, name)


def known_patient(service: Service, fields: PatientFields) -> Patient:
    """What is known of the patient; refused where the model would not look at it."""
    patient = refuse_invalid(Patient, fields.age, fields.sex, fields.localization)
    if patient != Patient() and not service.predictor.needs_metadata:
        raise Problem("invalid", "This model sees the image alone: leave out age, sex and localization.")
    return patient


def check_method(service: Service, method: str) -> None:
    """Refuse a method that the API has not, or that cannot be used on this model."""
    if method not in METHODS_HERE:
        raise Problem(
            "invalid",
            f"There is no method '{method[:50]}' here{suggest(method, METHODS_HERE)}; known: {', '.join(METHODS_HERE)}.",
        )
    if service.methods and method not in service.methods:
        raise Problem("invalid", f"{method} cannot be used on this network; {', '.join(service.methods)} can.")


def count_refusals(service: Service, seen: Sequence[Seen | UploadError]) -> None:
    """Count refused files for `/metrics`."""
    for one in seen:
        if isinstance(one, UploadError):
            service.metrics.refused.labels(one.reason).inc()
