"""The sections of `params.yaml` of the stages that measure and explain: from `evaluate` to `neighbors`."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from skinlesion.base.errors import suggest
from skinlesion.config.schema import (
    UNSEEN_BY_DVC,
    CalibrationMethod,
    ConformalMethod,
    Distinct,
    InnerShare,
    PositiveShare,
    Section,
    Seed,
    TestTime,
    check_diagnoses,
)
from skinlesion.diagnoses import CLASSES

# Here and not in skinlesion.explanation.cam.methods, so that reading params needs nothing but this module.
CamMethod = Literal[
    "CAM",
    "GradCAM",
    "GradCAMpp",
    "SmoothGradCAMpp",
    "XGradCAM",
    "LayerCAM",
    "FinerCAM",
    "RefineCAM",
    "LeGrad",
    "ScoreCAM",
    "SSCAM",
    "ISCAM",
    "Occlusion",
]


class EvaluateParams(Section):
    """How the classifier is measured."""

    test_time: TestTime
    calibration: CalibrationMethod
    calibration_bins: int = Field(ge=2, le=100)


class ThresholdSweepParams(Section):
    """For which target, and under which constraints, operating points are chosen."""

    target: str
    groups: dict[str, list[str]]
    recall_constraints: Distinct[PositiveShare] = Field(min_length=1)
    specificity_constraints: Distinct[PositiveShare]
    cost_ratios: Distinct[Annotated[float, Field(gt=0)]]
    guaranteed_recalls: Distinct[InnerShare]
    guarantee: InnerShare
    prevalences: Distinct[InnerShare]

    @model_validator(mode="after")
    def _target_is_known(self) -> "ThresholdSweepParams":
        for name, members in self.groups.items():
            if name in CLASSES:
                raise ValueError(f"groups.{name} has the name of a diagnosis: choose another name")
            if name in UNSEEN_BY_DVC:
                raise ValueError(f"groups.{name}: a name in which DVC does not see changes: choose another name")
            if not members or len(set(members)) != len(members):
                raise ValueError(f"groups.{name} must list different diagnoses, at least one")
            check_diagnoses(members, f"groups.{name}")
            if len(members) == len(CLASSES):
                raise ValueError(f"groups.{name} holds every diagnosis: nothing is left to tell it from")
        targets = [*CLASSES, *self.groups]
        if self.target not in targets:
            raise ValueError(f"target '{self.target}' is neither a diagnosis nor a group{suggest(self.target, targets)}")
        return self

    def target_classes(self) -> list[str]:
        """The diagnoses whose probabilities are summed into the target's score."""
        return list(self.groups.get(self.target, [self.target]))


class BaselinesParams(Section):
    """How the classifiers that see little are made and measured."""

    color_bins: int = Field(ge=2, le=16)
    seed: Seed


class SelectiveParams(Section):
    """How much is answered, and with which promise sets of diagnoses are made."""

    coverages: Distinct[PositiveShare] = Field(min_length=1)
    conformal_levels: Distinct[InnerShare] = Field(min_length=1)
    conformal_method: ConformalMethod
    raps_penalty: float = Field(ge=0)
    raps_free: int = Field(ge=0, le=len(CLASSES))
    conformal_share: InnerShare
    seed: Seed


class SubgroupsParams(Section):
    """Into which groups the test images are sorted, and which groups count as small."""

    age_bands: list[Annotated[float, Field(gt=0, le=120)]] = Field(min_length=1)
    min_lesions: int = Field(ge=1)
    min_melanomas: int = Field(ge=1)

    @model_validator(mode="after")
    def _bands_rise(self) -> "SubgroupsParams":
        if any(after <= before for before, after in pairwise(self.age_bands)):
            raise ValueError(f"age_bands must rise, and {list(self.age_bands)} does not: each is the age at which a band begins")
        return self


class FailuresParams(Section):
    """Which errors are listed besides the missed melanomas."""

    min_confidence: PositiveShare


class GradcamParams(Section):
    """Which maps are made, of which layer, for which cases, and on how many images they are measured."""

    split: Literal["val", "test"]
    methods: Distinct[CamMethod] = Field(min_length=1)
    layer: str = Field(min_length=1)
    samples: int | None = Field(ge=1)
    confident_errors: int = Field(ge=0)
    unsure_correct: int = Field(ge=0)
    typical_correct: int = Field(ge=0)
    faithfulness_images: int | None = Field(ge=2)
    perturbation_images: int = Field(ge=2)
    deletion_steps: int = Field(ge=2, le=256)


class NeighborsParams(Section):
    """How many nearest training cases are found, and for how many errors they are shown."""

    k: int = Field(ge=1, le=20)
    cases: int = Field(ge=0)
