"""The schema of `params.yaml`: one pydantic model a section, no defaults, unknown keys refused, every value checked.

There are no defaults here on purpose: what is not in `params.yaml` cannot influence a run behind DVC's back, and an
edit of this file alone never has to rerun a stage.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from skinlesion.diagnoses import CLASSES
from skinlesion.errors import PipelineError

PARAMS_FILE = Path("params.yaml")

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Draws = Annotated[int, Field(ge=100, le=1_000_000)]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]
Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]
BatchSize = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of `params.yaml`: exact types (an integer is a valid float), no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class SampleParams(Section):
    """What the synthetic sample looks like; lengths in pixels."""

    seed: Seed
    lesions: int = Field(ge=21, le=100_000)
    width: int = Field(ge=64, le=1024)
    height: int = Field(ge=64, le=1024)


class DownloadParams(Section):
    """Where the images come from and what they are expected to be."""

    source: Literal["sample", "kaggle", "dataverse", "local"]
    path: str | None
    expect: Literal["ham10000", "any"]
    sample: SampleParams

    @model_validator(mode="after")
    def _path_belongs_to_local(self) -> DownloadParams:
        if self.source == "local" and not self.path:
            raise ValueError("source is 'local', which needs a folder: set download.path")
        if self.source != "local" and self.path is not None:
            raise ValueError(f"path is only read by source 'local', and source is '{self.source}': set download.path to null")
        return self


class SplitParams(Section):
    """How lesions are dealt to training, validation and test."""

    seed: Seed
    folds: int = Field(ge=2, le=20)
    validation_folds: int = Field(ge=2, le=20)
    fold: int = Field(ge=0)
    max_deviation: float = Field(gt=0, le=100)
    links: str | None

    @model_validator(mode="after")
    def _fold_exists(self) -> SplitParams:
        if self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold}, and with {self.folds} folds it can be 0 to {self.folds - 1}")
        return self


class PrepareParams(Section):
    """The square that the network sees."""

    size: int = Field(ge=32, le=1024)
    fit: Literal["squash", "crop", "pad"]


class AugmentationParams(Section):
    """Random changes of a training image."""

    horizontal_flip: bool
    vertical_flip: bool
    rotation: float = Field(ge=0, le=180)
    min_scale: float = Field(gt=0, le=1)
    color_jitter: float = Field(ge=0, le=1)


class TrainParams(Section):
    """The network and how it is trained."""

    seed: Seed
    backbone: str
    weights: str = Field(min_length=1)
    device: Device
    precision: Literal["auto", "32", "bf16", "16"]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup_epochs: float = Field(ge=0)
    class_weights: Literal["none", "inverse", "sqrt_inverse"]
    label_smoothing: float = Field(ge=0, lt=1)
    augmentation: AugmentationParams
    batch_norm_images: int = Field(ge=0)
    select_by: Literal["macro_f1", "balanced_accuracy", "accuracy", "mel_recall", "macro_auc", "loss"]
    patience: int = Field(ge=1)
    loggers: list[Literal["dvclive"]]

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value  # YAML reads 32 as a number

    @field_validator("backbone")
    @classmethod
    def _backbone_is_known(cls, value: str, info: ValidationInfo) -> str:
        # Importing torchvision takes seconds: only the stages that ask for it pay (see load_params).
        if info.context and info.context.get("check_backbone"):
            from skinlesion.backbones import list_backbones

            known = list_backbones()
            if value not in known:
                raise ValueError(f"torchvision has no classification model of that name{_suggest(value, known)}")
        return value

    @model_validator(mode="after")
    def _warmup_fits(self) -> TrainParams:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}, more than the {self.epochs} epochs of training")
        return self


class EvaluateParams(Section):
    """How the classifier is measured."""

    device: Device
    batch_size: BatchSize
    calibration_bins: int = Field(ge=2, le=100)
    bootstrap_draws: Draws
    confidence: Confidence
    seed: Seed


class ThresholdSweepParams(Section):
    """For which target, and under which constraints, operating points are chosen."""

    target: str
    groups: dict[str, list[str]]
    recall_constraints: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)
    bootstrap_draws: Draws
    confidence: Confidence
    seed: Seed

    @model_validator(mode="after")
    def _target_is_known(self) -> ThresholdSweepParams:
        for name, members in self.groups.items():
            if name in CLASSES:
                raise ValueError(f"groups.{name} has the name of a diagnosis: choose another name")
            if not members or len(set(members)) != len(members):
                raise ValueError(f"groups.{name} must list different diagnoses, at least one")
            for member in members:
                if member not in CLASSES:
                    raise ValueError(f"groups.{name}: '{member}' is not a diagnosis{_suggest(member, CLASSES)}")
            if len(members) == len(CLASSES):
                raise ValueError(f"groups.{name} holds every diagnosis: nothing is left to tell it from")
        targets = [*CLASSES, *self.groups]
        if self.target not in targets:
            raise ValueError(f"target '{self.target}' is neither a diagnosis nor a group{_suggest(self.target, targets)}")
        if len(set(self.recall_constraints)) != len(self.recall_constraints):
            raise ValueError("recall_constraints names a value twice")
        return self

    def target_classes(self) -> list[str]:
        """The diagnoses whose probabilities are summed into the target's score."""
        return list(self.groups.get(self.target, [self.target]))


class GradcamParams(Section):
    """Which maps are drawn, of which layer, for which examples."""

    device: Device
    batch_size: BatchSize
    method: Literal["GradCAM", "GradCAMpp", "SmoothGradCAMpp", "XGradCAM", "LayerCAM"]
    layer: str = Field(min_length=1)
    max_errors: int = Field(ge=0)
    correct_per_class: int = Field(ge=0)


class Params(Section):
    """The whole of `params.yaml`."""

    download: DownloadParams
    split: SplitParams
    prepare: PrepareParams
    train: TrainParams
    evaluate: EvaluateParams
    threshold_sweep: ThresholdSweepParams
    gradcam: GradcamParams


def load_params(path: Path = PARAMS_FILE, *, check_backbone: bool = False) -> Params:
    """Read and check `params.yaml`.

    Read with a YAML 1.2 loader, because DVC writes `-S train.lr=0.00001` as `1e-05`, which YAML 1.1 calls a string.

    Parameters
    ----------
    path : the file.
    check_backbone : also ask torchvision whether `train.backbone` exists (imports torchvision, some seconds).

    Raises
    ------
    PipelineError
        The file is missing, is not YAML, or a value is refused; one line for each refusal with section, key, value and
        what is allowed.
    """
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path} not found in {Path.cwd()}: run from the project's root") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise PipelineError(f"{path} must hold one section a stage: {', '.join(Params.model_fields)}")
    try:
        return Params.model_validate(document, context={"check_backbone": check_backbone})
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise PipelineError("\n  ".join([f"{path} is refused:", *lines])) from None


def _describe(problem: Any) -> str:
    """One line for one pydantic problem: the key, its value, what is allowed."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "params.yaml"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return f"{key}: unknown key{_suggest(location[-1], known)}; known here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{key}: missing; every key must be in the file"
    message = re.sub(r"^Value error, ", "", problem["msg"])
    message = message[0].lower() + message[1:]
    value = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
    suggestion = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        suggestion = _suggest(problem["input"], re.findall(r"'([^']+)'", problem["ctx"]["expected"]))
    return f"{key}{value}: {message}{suggestion}"


def _known_keys(location: list[str]) -> list[str]:
    """The keys of the section at `location`."""
    model: type[BaseModel] = Params
    for part in location:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def _suggest(name: str, known: Any) -> str:
    """'; did you mean ...' for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
