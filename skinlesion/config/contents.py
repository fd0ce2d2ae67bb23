"""What the JSON files hold that one stage writes and another reads: a model each, and one way to refuse a file.

Like `skinlesion.base.files` and `skinlesion.config.params`, it decides how a stage fails and not what it computes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from skinlesion.base.errors import PipelineError, brief, suggest
from skinlesion.config.schema import CalibrationMethod, ConformalMethod, Distinct, TestTime, describe_problem
from skinlesion.diagnoses import CLASSES

MOST_PROBLEMS = 5  # that one message lists

Checked = TypeVar("Checked")


class Named(dict[str, Any]):
    """The content of a JSON file, which says where a key is missing that somebody asks for by `[]`.

    place : the file, and within it the keys that lead here.
    """

    def __init__(self, content: dict[str, Any], place: str) -> None:
        super().__init__({key: _named(value, f"{place}, {key}") for key, value in content.items()})
        self.place = place

    def __missing__(self, key: str) -> Any:
        raise PipelineError(f"{self.place} lacks '{key}': run the stage that writes it again, or `dvc repro`")


def _named(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return Named(value, place)
    return [_named(each, place) for each in value] if isinstance(value, list) else value


def check_content(kind: Callable[..., Checked], content: dict[str, Any], path: Path, *, stage: str) -> Checked:
    """The content of a JSON file as a model.

    Parameters
    ----------
    kind : a pydantic model or dataclass. path : of the file, for the message. stage : that writes the file.

    Raises
    ------
    PipelineError
        A key is missing, unknown where others are forbidden, or has a value that it cannot have; the message names file, keys,
        values and stage.
    """
    try:
        return kind(**content)
    except UnicodeEncodeError as error:
        problems = [f"{brief(error.object)} holds half a character, which no text does"]
    except ValidationError as error:
        problems = [describe_problem(problem) for problem in error.errors()]
        if len(problems) > MOST_PROBLEMS:
            problems[MOST_PROBLEMS:] = [f"and {len(problems) - MOST_PROBLEMS} more"]
    raise PipelineError(f"{path}: {'; '.join(problems)}: run `{stage}` again")


class Content(BaseModel):
    """The content of a file: exact types (a whole number is a valid float), finite numbers; further keys are left alone."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


def _is_diagnosis(name: str) -> str:
    if name not in CLASSES:
        raise ValueError(f"unknown diagnosis{suggest(name, CLASSES)}")
    return name


Text = Annotated[str, Field(min_length=1)]
Diagnoses = Annotated[Distinct[Annotated[str, AfterValidator(_is_diagnosis)]], Field(min_length=1)]
OneAClass = Annotated[list[float], Field(min_length=len(CLASSES), max_length=len(CLASSES))]


class Provenance(Content):
    """What is shown of where images came from; the file holds more (`artifacts.raw.read_provenance`)."""

    source: str
    synthetic: bool
    licence: str
    counts: dict[str, Any]


class Calibration(Content):
    """How logits become probabilities: softmax(logits * scale + bias).

    method : `temperature` (every scale is 1 / temperature, every bias 0) or `vector`. scale, bias : in the order of `CLASSES`.
    test_time : the views over which the logits were averaged that it was fitted to (`inference.views`).
    classifier_sha256 : of the classifier that gave them (`inference.identity`); None where its weights were not kept.
    """

    method: CalibrationMethod
    scale: OneAClass
    bias: OneAClass
    test_time: TestTime
    classifier_sha256: str | None = None

    @model_validator(mode="after")
    def _temperature_is_positive(self) -> "Calibration":
        if self.method == "temperature" and self.scale[0] <= 0:
            raise ValueError(f"scale of a temperature must be above 0, not {self.scale[0]}")
        return self


class Conformal(Content):
    """How a set of diagnoses is formed.

    method, penalty, free : of `conformal.class_scores`.
    levels : by promised coverage, as `0.9`, the quantile of the scores; None where validation has too few lesions to promise it.
    calibration : what the quantiles hold for, fitted on the other half of validation, so not that of the prediction tables.
    """

    method: ConformalMethod
    penalty: float = Field(ge=0)
    free: int = Field(ge=0)
    levels: dict[str, float | None] = Field(min_length=1)
    calibration: Calibration


class Point(Content):
    """An operating point: an image is flagged at a score >= `threshold`.

    val : rates that it achieves on validation, by name; None where one is undefined.
    """

    threshold: float = Field(ge=0, le=1 + 1e-9)  # summed probabilities may end a rounding error above 1
    val: dict[str, float | None] = {}


class OperatingPoints(Content):
    """The operating points of a target, by name.

    target : a diagnosis or the name of a group. classes : its diagnoses, over whose probabilities the score is summed.
    classifier_sha256 : see `Calibration`.
    """

    target: Text
    classes: Diagnoses
    score: Text
    rule: Text
    chosen_on: Text
    classifier_sha256: str | None = None
    points: dict[str, Point] = Field(min_length=1)


class _Member(Content):
    # The name of a folder, which must not lead elsewhere.
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*-[0-9]+$")


class _Ensemble(Content):
    members: Distinct[_Member] = Field(min_length=1)


def check_member_names(content: dict[str, Any], path: Path) -> list[str]:
    """The names of an ensemble's members, in the order of `models/classifier/ensemble.json`.

    Raises
    ------
    PipelineError
        There is none, one is there twice, or one is not `MEMBER-SEED` (each is a folder's, and must not lead elsewhere).
    """
    return [member.name for member in check_content(_Ensemble, content, path, stage="assemble").members]
