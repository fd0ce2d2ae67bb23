"""What every section of `params.yaml` is made of: exact types, no unknown keys, no defaults; and the sections of many stages."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from skinlesion.base.errors import brief, suggest
from skinlesion.diagnoses import CLASSES

Value = TypeVar("Value")

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
InnerShare = Annotated[float, Field(gt=0, lt=1)]

Fit = Literal["squash", "crop", "pad"]
ColorConstancy = Literal["none", "shades_of_gray"]
TestTime = Literal["none", "flips", "square", "multi_crop"]
CalibrationMethod = Literal["temperature", "vector"]
ConformalMethod = Literal["aps", "raps"]

# Below a tracked section, DVC's run cache takes keys of these names for a file's, and does not see that their value has changed
# (https://github.com/iterative/dvc/issues/10296).
UNSEEN_BY_DVC: tuple[str, ...] = ("size", "nfiles")


class Section(BaseModel):
    """A section of `params.yaml`: exact types (an integer is a valid float), no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class MachineParams(Section):
    """What the stages compute on. It decides speed and memory, and of results the rounding alone: no stage reruns for it."""

    device: Device
    devices: Annotated[int, Field(ge=1)] | Literal["auto"]
    num_nodes: int = Field(ge=1)
    channels_last: bool
    batch_size: int = Field(ge=1)


class BootstrapParams(Section):
    """How intervals are made: resamples of the lesions, the confidence of the interval, and the seed of the draws."""

    draws: int = Field(ge=100, le=1_000_000)
    confidence: float = Field(gt=0.5, lt=1)
    seed: Seed


def _differ(values: list[Value]) -> list[Value]:
    if len(set(values)) != len(values):
        raise ValueError("names a value twice")
    return values


Distinct = Annotated[list[Value], AfterValidator(_differ)]


def check_diagnoses(names: Iterable[str], key: str) -> None:
    """Refuse what is not a diagnosis among the names below a key."""
    for name in names:
        if name not in CLASSES:
            raise ValueError(f"{key}: '{name}' is not a diagnosis{suggest(name, CLASSES)}")


def check_path(source: str, path: str | None, *, section: str) -> None:
    """Insist that a path is given with the source `local`, and with it alone."""
    if source == "local" and not path:
        raise ValueError(f"source is 'local', which needs a folder: set {section}.path")
    if source != "local" and path is not None:
        raise ValueError(f"path is only read by source 'local', and source is '{source}': set {section}.path to null")


def describe_problem(problem: Any, *above: str) -> str:
    """One line for one of pydantic's `ValidationError.errors()`: the key (below `above`), its value, and what is allowed."""
    key = ".".join([*above, *(str(part) or "''" for part in problem["loc"])])
    if problem["type"] == "missing":
        return f"{key}: missing"
    message = re.sub(r"^Value error, ", "", problem["msg"])
    message = message[0].lower() + message[1:].partition(" or instance of ")[0]  # which names a class of ours
    value = "" if isinstance(problem["input"], dict) else f" = {brief(problem['input'])}"
    suggestion = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        suggestion = suggest(problem["input"], re.findall(r"'([^']+)'", problem["ctx"]["expected"]))
    return f"{key}{value}: {message}{suggestion}".removeprefix(": ")
