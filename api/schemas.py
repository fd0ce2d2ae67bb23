"""Requests and answers as JSON; FastAPI builds the documentation from these classes."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from skinlesion.artifacts.patients import SEXES, SITES
from skinlesion.artifacts.tables import AGE_LIMIT
from skinlesion.diagnoses import CLASSES, DIAGNOSES
from skinlesion.explanation.cam.methods import METHODS, PERTURBATION_METHODS
from skinlesion.serving.prediction import Prediction

NOT_FOR_CLINICAL_USE = (
    "Not for clinical use: research software, not a medical device. It must not be used to diagnose or to decide on treatment."
)
# Methods that run the network hundreds of times would keep everybody else waiting for minutes; the stage `gradcam` has them.
METHODS_HERE = tuple(method for method in METHODS if method not in PERTURBATION_METHODS)

Code = Annotated[str, Field(description="code of a diagnosis", examples=["mel"], json_schema_extra={"enum": list(CLASSES)})]
Probability = Annotated[float, Field(ge=0, le=1)]


class Answer(BaseModel):
    """The base of all answers: their members are always present, null if there is nothing to say."""

    model_config = ConfigDict(
        frozen=True, from_attributes=True, json_schema_serialization_defaults_required=True, protected_namespaces=()
    )


class RateOut(Answer):
    """A share, and the ends of its interval if it was measured with one."""

    value: Probability
    low: Probability | None
    high: Probability | None


class PointOut(Answer):
    """A threshold that was chosen on validation, and its measured performance."""

    name: str = Field(examples=["recall_0.90"])
    target: str = Field(description="diagnosis or group to find", examples=["mel"])
    classes: list[Code] = Field(description="diagnoses of the target, whose probabilities are summed")
    threshold: float = Field(description="an image is flagged when the sum is at least that")
    sensitivity: RateOut | None
    specificity: RateOut | None
    measured_on: Literal["test", "val"] = Field(
        description="images on which both were measured; those of `val` chose the threshold, which flatters"
    )
    confidence: float | None = Field(description="of the intervals", examples=[0.95])
    sentence: str = Field(description="what the point means, for people")


class DiagnosisOut(Answer):
    """A diagnosis and its probability."""

    diagnosis: Code
    name: str = Field(examples=["melanoma"])
    probability: Probability


class SetOut(Answer):
    """Diagnoses that hold the true one with the probability that is promised, for images as those of validation."""

    coverage: Probability = Field(examples=[0.9])
    diagnoses: list[Code] | None = Field(description="the most probable first; null where validation had too few lesions")


class PredictionOut(Answer):
    """The prediction for one image."""

    probabilities: list[DiagnosisOut] = Field(
        description="of all seven diagnoses, always in the same order; calibrated unless `warnings` says otherwise"
    )
    top: list[DiagnosisOut] = Field(description="the `top_k` most probable")
    score: float | None = Field(description="probability of the operating point's target; null without a point")
    flagged: bool | None = Field(description="whether the score reaches the operating point's threshold; null without a point")
    conformal_sets: list[SetOut] = Field(description="empty where there is no conformal calibration")
    warnings: list[str] = Field(description="when not to trust the answer")
    notes: list[str] = Field(description="what was done to the image that its sender might not expect")


class FileProblem(Answer):
    """The problem for which a file was refused (RFC 9457)."""

    type: str = Field(description="leads to the documentation of its kind", examples=["/docs#too-large"])
    title: str
    status: int = Field(examples=[413])
    detail: str = Field(description="what is wrong with this request, and the way out")


class ImageOut(Answer):
    """The entry of one file: a prediction, or the problem for which it was refused."""

    index: int = Field(description="place of the file in the request, from 0")
    name: str = Field(description="name of the file as it was sent, cut to 200 characters")
    prediction: PredictionOut | None
    problem: FileProblem | None


class ProblemOut(FileProblem):
    """A problem (RFC 9457) of a request."""

    model_config = ConfigDict(extra="allow", json_schema_serialization_defaults_required=False)

    request_id: str = Field(description="of the request, as in the log")
    images: list[ImageOut] | None = Field(None, description="the entry of each file, if all were refused")


class PredictAnswer(Answer):
    """The answer of `/predict`."""

    not_for_clinical_use: str = Field(examples=[NOT_FOR_CLINICAL_USE])
    request_id: str
    model: str = Field(description="`ensemble`, or the member that is used", examples=["ensemble"])
    fingerprint: str = Field(description="of the data and the split that the model was trained on")
    operating_point: PointOut | None = Field(description="that was applied")
    images: list[ImageOut] = Field(description="one a file, in the order sent")


class LimitsOut(Answer):
    """The limits of a request."""

    files: int
    file_bytes: int
    pixels: int
    shortest_side: int


class ModelAnswer(Answer):
    """The answer of `/model`."""

    not_for_clinical_use: str = Field(examples=[NOT_FOR_CLINICAL_USE])
    card: dict[str, Any] = Field(
        description="members, data and its fingerprint, preparation, versions; `test`: figures on the test images with intervals"
    )
    classes: dict[str, str] = Field(description="codes of the diagnoses and their names", examples=[DIAGNOSES])
    operating_points: list[PointOut]
    default_operating_point: str | None
    takes_metadata: bool = Field(description="whether age, sex and localization are used; if not, they are refused")
    methods: list[str] = Field(description="methods of `/explain` that work on this model")
    limits: LimitsOut


class HealthAnswer(Answer):
    """The answer of `/health` and `/ready`."""

    status: Literal["alive", "ready"]


class Patient(BaseModel):
    """What is known about the patient; only for a model that uses it (`/model`: `takes_metadata`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    age: float | None = Field(None, ge=0, le=AGE_LIMIT, description="years")
    sex: str | None = Field(None, json_schema_extra={"enum": list(SEXES)})
    localization: str | None = Field(None, description="site of the lesion", json_schema_extra={"enum": list(SITES)})


class PredictFields(Patient):
    """The fields of `/predict` beside the files; they apply to all files."""

    operating_point: str | None = Field(
        None, description="name of an operating point of `/model`; by default its default", examples=["recall_0.90"]
    )
    top_k: int = Field(3, ge=1, le=len(CLASSES), description="how many diagnoses `top` has")


class ExplainQuery(BaseModel):
    """The parameters of `/explain`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    diagnosis: str | None = Field(
        None, description="diagnosis to explain; by default the most probable", json_schema_extra={"enum": list(CLASSES)}
    )
    method: str = Field("GradCAM", description="one of `/model`'s `methods`", json_schema_extra={"enum": list(METHODS_HERE)})
    opacity: float = Field(0.5, ge=0, le=1, description="of the map's colours over the image's greys")
    kind: Literal["overlay", "map"] = Field("overlay", description="the map over the image, or the map alone")


def describe_prediction(prediction: Prediction, *, notes: Sequence[str], top_k: int) -> PredictionOut:
    """A prediction as JSON."""
    return PredictionOut(
        probabilities=_name_all(prediction.probabilities.items()),
        top=_name_all(prediction.top(top_k)),
        score=prediction.score,
        flagged=prediction.flagged,
        conformal_sets=[
            SetOut(coverage=float(level), diagnoses=None if within is None else list(within))
            for level, within in prediction.sets.items()
        ],
        warnings=list(prediction.warnings),
        notes=list(notes),
    )


def _name_all(probabilities: Iterable[tuple[str, float]]) -> list[DiagnosisOut]:
    return [DiagnosisOut(diagnosis=dx, name=DIAGNOSES[dx], probability=p) for dx, p in probabilities]


def form_schema(fields: type[BaseModel], *, file_field: str, many: bool) -> dict[str, Any]:
    """The request body of a route, for the documentation: fields of a model, and one file or several."""
    schema = fields.model_json_schema()
    one = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": one, "minItems": 1} if many else one
    properties = {file_field: files | {"description": "JPEG, PNG, or DICOM where the server has pydicom"}}
    properties |= {name: _without_null(value) for name, value in schema["properties"].items()}
    form = {"type": "object", "required": [file_field], "properties": properties, "additionalProperties": False}
    return {"required": True, "content": {"multipart/form-data": {"schema": form}}}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A field's schema without null, which a form cannot hold: unknown fields are left out."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
    rest = {
        key: value
        for key, value in schema.items()
        if key not in ("anyOf", "default", "title") or (key == "default" and value is not None)
    }
    return (kinds[0] if kinds else {}) | rest
