"""The schema of `params.yaml`: one pydantic model a section, no defaults, unknown keys refused, every value checked.

There are no defaults here on purpose: what is not in `params.yaml` cannot influence a run behind DVC's back, and an
edit of this file alone never has to rerun a stage.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from skinlesion.diagnoses import CLASSES
from skinlesion.errors import PipelineError
from skinlesion.schema import UNSEEN_BY_DVC, BatchSize, Device, Section, Seed, suggest
from skinlesion.train_params import EnsembleParams, SynthesizeParams, TrainParams

PARAMS_FILE = Path("params.yaml")

Draws = Annotated[int, Field(ge=100, le=1_000_000)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
InnerShare = Annotated[float, Field(gt=0, lt=1)]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]


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
    color_constancy: Literal["none", "shades_of_gray"]


class EvaluateParams(Section):
    """How the classifier is measured."""

    device: Device
    batch_size: BatchSize
    test_time: Literal["none", "flips", "square", "multi_crop"]
    calibration: Literal["temperature", "vector"]
    calibration_bins: int = Field(ge=2, le=100)
    bootstrap_draws: Draws
    confidence: Confidence
    seed: Seed


class ThresholdSweepParams(Section):
    """For which target, and under which constraints, operating points are chosen."""

    target: str
    groups: dict[str, list[str]]
    recall_constraints: list[PositiveShare] = Field(min_length=1)
    specificity_constraints: list[PositiveShare]
    cost_ratios: list[Annotated[float, Field(gt=0)]]
    guaranteed_recalls: list[InnerShare]
    guarantee: InnerShare
    prevalences: list[InnerShare]
    bootstrap_draws: Draws
    confidence: Confidence
    seed: Seed

    @model_validator(mode="after")
    def _target_is_known(self) -> ThresholdSweepParams:
        for name, members in self.groups.items():
            if name in CLASSES:
                raise ValueError(f"groups.{name} has the name of a diagnosis: choose another name")
            if name in UNSEEN_BY_DVC:
                raise ValueError(f"groups.{name}: a name in which DVC does not see changes: choose another name")
            if not members or len(set(members)) != len(members):
                raise ValueError(f"groups.{name} must list different diagnoses, at least one")
            for member in members:
                if member not in CLASSES:
                    raise ValueError(f"groups.{name}: '{member}' is not a diagnosis{suggest(member, CLASSES)}")
            if len(members) == len(CLASSES):
                raise ValueError(f"groups.{name} holds every diagnosis: nothing is left to tell it from")
        targets = [*CLASSES, *self.groups]
        if self.target not in targets:
            raise ValueError(f"target '{self.target}' is neither a diagnosis nor a group{suggest(self.target, targets)}")
        for name in ("recall_constraints", "specificity_constraints", "cost_ratios", "guaranteed_recalls", "prevalences"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} names a value twice")
        return self

    def target_classes(self) -> list[str]:
        """The diagnoses whose probabilities are summed into the target's score."""
        return list(self.groups.get(self.target, [self.target]))


class BaselinesParams(Section):
    """How the classifiers that see little are made and measured."""

    color_bins: int = Field(ge=2, le=16)
    bootstrap_draws: Draws
    confidence: Confidence
    seed: Seed


class SelectiveParams(Section):
    """How much is answered, and with which promise sets of diagnoses are made."""

    coverages: list[PositiveShare] = Field(min_length=1)
    conformal_levels: list[InnerShare] = Field(min_length=1)
    conformal_method: Literal["aps", "raps"]
    raps_penalty: float = Field(ge=0)
    raps_free: int = Field(ge=0, le=len(CLASSES))
    conformal_share: InnerShare
    bootstrap_draws: Draws
    confidence: Confidence
    seed: Seed

    @model_validator(mode="after")
    def _values_differ(self) -> SelectiveParams:
        for name in ("coverages", "conformal_levels"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} names a value twice")
        return self


class SubgroupsParams(Section):
    """Into which groups the test images are sorted, and which groups count as small."""

    age_bands: list[Annotated[float, Field(gt=0, le=120)]] = Field(min_length=1)
    min_lesions: int = Field(ge=1)
    min_melanomas: int = Field(ge=1)
    bootstrap_draws: Draws
    confidence: Confidence
    seed: Seed

    @model_validator(mode="after")
    def _bands_rise(self) -> SubgroupsParams:
        if any(after <= before for before, after in pairwise(self.age_bands)):
            raise ValueError(f"age_bands must rise, and {list(self.age_bands)} does not: each is the age at which a band begins")
        return self


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
    synthesize: SynthesizeParams
    ensemble: EnsembleParams
    train: TrainParams
    evaluate: EvaluateParams
    threshold_sweep: ThresholdSweepParams
    baselines: BaselinesParams
    selective: SelectiveParams
    subgroups: SubgroupsParams
    gradcam: GradcamParams

    @model_validator(mode="after")
    def _members_are_valid(self, info: ValidationInfo) -> Params:
        for name in self.ensemble.members:
            try:
                self.member(name, context=info.context)
            except ValidationError as error:
                reasons = "; ".join(_describe(problem, "train") for problem in error.errors())
                raise ValueError(f"ensemble.overrides.{name} makes a refused `train`: {reasons}") from None
        return self

    def member(self, name: str, *, context: Any = None) -> TrainParams:
        """The section `train` as a member of the ensemble has it: with its overrides, nested as in the file."""
        return TrainParams.model_validate(_merged(self.train.model_dump(), self.ensemble.overrides[name]), context=context)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with some values replaced; of the section `augmentation` only those that are named."""
    merged = base | changes
    if isinstance(changes.get("augmentation"), dict):
        merged["augmentation"] = base["augmentation"] | changes["augmentation"]
    return merged


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
    return check_params(read_params(path), name=str(path), check_backbone=check_backbone)


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read `params.yaml` as it stands, its values not checked; PipelineError where it is missing or no YAML of sections."""
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path} not found in {Path.cwd()}: run from the project's root") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise PipelineError(f"{path} must hold one section a stage: {', '.join(Params.model_fields)}")
    return document


def check_params(document: dict[str, Any], *, name: str, check_backbone: bool = False) -> Params:
    """Check the content of a `params.yaml`, which messages call `name`; otherwise as `load_params`."""
    try:
        return Params.model_validate(document, context={"check_backbone": check_backbone})
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise PipelineError("\n  ".join([f"{name} is refused:", *lines])) from None


def _describe(problem: Any, section: str | None = None) -> str:
    """One line for one pydantic problem: the key (below `section`, if that is where it was found), its value, what is allowed."""
    location = [*([section] if section else []), *(str(part) for part in problem["loc"])]
    key = ".".join(location) or "params.yaml"
    if problem["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return f"{key}: unknown key{suggest(location[-1], known)}; known here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{key}: missing; every key must be in the file"
    message = re.sub(r"^Value error, ", "", problem["msg"])
    message = message[0].lower() + message[1:]
    value = "" if isinstance(problem["input"], dict) else f" = {problem['input']!r}"
    suggestion = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        suggestion = suggest(problem["input"], re.findall(r"'([^']+)'", problem["ctx"]["expected"]))
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
