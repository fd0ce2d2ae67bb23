"""The schema of `params.yaml`: one pydantic model a section, no defaults, unknown keys refused, every value checked.

There are no defaults here on purpose: what is not in `params.yaml` cannot influence a run behind DVC's back, and an
edit of this file alone never has to rerun a stage.
"""

from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.events import AliasEvent

from skinlesion.base.errors import PipelineError, brief, suggest
from skinlesion.config import evaluation, schema
from skinlesion.config.audits import ExternalParams, ExtrasParams, LeakParams, NearDuplicatesParams, RobustnessParams
from skinlesion.config.schema import BootstrapParams, MachineParams, Section, Seed, check_path, describe_problem
from skinlesion.config.serving import ExportParams
from skinlesion.config.training import EnsembleParams, SynthesizeParams, TrainParams, find_size_problem

PARAMS_FILE = Path("params.yaml")
MOST_ALIASES = 20  # in a file; doubled as often as they allow, a value unfolds to a thousand of its kind
MOST_PROBLEMS = 40  # that one message lists
# Keys that sections of stages had until they got a section for all: where they are now.
MOVED = {name: f"machine.{name}" for name in MachineParams.model_fields}
MOVED |= {"bootstrap_draws": "bootstrap.draws", "confidence": "bootstrap.confidence"}


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
    def _path_belongs_to_local(self) -> "DownloadParams":
        check_path(self.source, self.path, section="download")
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
    def _fold_exists(self) -> "SplitParams":
        if self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold}, and with {self.folds} folds it can be 0 to {self.folds - 1}")
        return self


class PrepareParams(Section):
    """The square that the network sees."""

    size: int = Field(ge=32, le=1024)
    fit: schema.Fit
    color_constancy: schema.ColorConstancy


class Params(Section):
    """The whole of `params.yaml`."""

    machine: MachineParams
    bootstrap: BootstrapParams
    download: DownloadParams
    split: SplitParams
    prepare: PrepareParams
    synthesize: SynthesizeParams
    ensemble: EnsembleParams
    train: TrainParams
    evaluate: evaluation.EvaluateParams
    threshold_sweep: evaluation.ThresholdSweepParams
    baselines: evaluation.BaselinesParams
    selective: evaluation.SelectiveParams
    subgroups: evaluation.SubgroupsParams
    failures: evaluation.FailuresParams
    gradcam: evaluation.GradcamParams
    neighbors: evaluation.NeighborsParams
    extras: ExtrasParams
    leak: LeakParams
    near_duplicates: NearDuplicatesParams
    robustness: RobustnessParams
    external: ExternalParams
    export: ExportParams

    @model_validator(mode="after")
    def _members_are_valid(self) -> "Params":
        makers = {f"ensemble.overrides.{name}": partial(self.member, name) for name in self.ensemble.members}
        for key, make in (makers | {"leak.overrides": self.leak_recipe}).items():
            try:
                backbone = make().backbone
            except ValidationError as error:
                reasons = "; ".join(_describe(problem, "train") for problem in error.errors())
                raise ValueError(f"{key} makes a refused `train`: {reasons}") from None
            if problem := find_size_problem(backbone, self.prepare.size):
                raise ValueError(f"prepare.size is {self.prepare.size}, and {problem} ({key}): change one of them")
            if "LeGrad" in self.gradcam.methods and key in makers and not backbone.startswith("vit_"):
                raise ValueError(f"gradcam.methods: LeGrad reads the attention of a ViT, and '{backbone}' ({key}) has none")
        return self

    def leak_recipe(self) -> TrainParams:
        """The section `train` of the ensemble's first member, with the overrides of `leak`."""
        first = self.member(self.ensemble.members[0])
        return TrainParams.model_validate(_merged(first.model_dump(), self.leak.overrides))

    def member(self, name: str) -> TrainParams:
        """The section `train` of a member of the ensemble: with its overrides, nested as in the file."""
        return TrainParams.model_validate(_merged(self.train.model_dump(), self.ensemble.overrides[name]))


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with some values replaced; of the section `augmentation` only those that are named."""
    merged = base | changes
    if isinstance(changes.get("augmentation"), dict):
        merged["augmentation"] = base["augmentation"] | changes["augmentation"]
    return merged


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `params.yaml`.

    Read with a YAML 1.2 loader, because DVC writes `-S train.lr=0.00001` as `1e-05`, which YAML 1.1 calls a string.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    PipelineError
        The file is missing, is not YAML, or a value is refused; one line for each refusal with section, key, value and
        what is allowed.
    """
    return check_params(read_params(path), name=str(path))


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read `params.yaml` as it stands, its values not checked; PipelineError where it is missing or is not YAML of sections."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PipelineError(f"{path} not found in {Path.cwd()}: run from the project's root") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8 ({error}): save it in that encoding, which editors call UTF-8") from None
    try:
        aliases = _count_aliases(text)
        document = YAML(typ="safe", pure=True).load(text) if aliases <= MOST_ALIASES else None
    except RecursionError:
        raise PipelineError(f"{path} is not valid YAML: its values are nested too deeply") from None
    except Exception as error:  # besides its own, ruamel lets through what Python says of a value that does not fit its tag
        raise PipelineError(f"{path} is not valid YAML: {str(error).strip() or type(error).__name__}") from None
    if aliases > MOST_ALIASES:
        raise PipelineError(f"{path} has {aliases} aliases (*name), more than {MOST_ALIASES}: write the values out")
    if not isinstance(document, dict):
        raise PipelineError(f"{path} must hold these sections: {', '.join(Params.model_fields)}")
    return document


def _count_aliases(text: str) -> int:
    """Values that are written as `*name`: a few lines of them can unfold to billions of values."""
    if "&" not in text:
        return 0  # without an anchor there are none, and the file need not be read twice
    return sum(isinstance(event, AliasEvent) for event in YAML(typ="safe", pure=True).parse(StringIO(text)))


def check_params(document: dict[str, Any], *, name: str) -> Params:
    """Check the content of a `params.yaml`, which messages call `name`; otherwise as `load_params`."""
    try:
        return Params.model_validate(document)
    except UnicodeEncodeError as error:
        raise PipelineError(f"{name} is refused: {brief(error.object)} holds half a character, which no text does") from None
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()[:MOST_PROBLEMS]]
        if error.error_count() > MOST_PROBLEMS:
            lines.append(f"and {error.error_count() - MOST_PROBLEMS} more")
        raise PipelineError("\n  ".join([f"{name} is refused:", *lines])) from None


def _describe(problem: Any, section: str | None = None) -> str:
    """One line for one pydantic problem: the key (below `section`, if that is where it was found), its value, what is allowed."""
    location = [*([section] if section else []), *(str(part) or "''" for part in problem["loc"])]
    if problem["type"] == "extra_forbidden":
        if moved := MOVED.get(location[-1]):
            return f"{'.'.join(location)}: unknown key; it is {moved} now, one value for all stages"
        known = _known_keys(location[:-1])
        return f"{'.'.join(location)}: unknown key{suggest(location[-1], known)}; known here: {', '.join(known)}"
    described = describe_problem(problem, *([section] if section else [] if location else ["params.yaml"]))
    return f"{described}; every key must be in the file" if problem["type"] == "missing" else described


def _known_keys(location: list[str]) -> list[str]:
    """The keys of the section at `location`."""
    model: type[BaseModel] = Params
    for part in location:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
