"""The sections of `params.yaml` of the audits in extras/dvc.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from skinlesion.config.schema import Distinct, Section, Seed, check_path

# Here and not where they are used, so that reading params needs nothing but this module.
Corruption = Literal["brightness", "contrast", "hue", "blur", "jpeg", "noise", "rotation", "hair"]
NearCopies = Literal["refuse", "report"]


class LeakParams(Section):
    """Which trainings show what siblings of the test images in the training list do."""

    seeds: Distinct[Seed] = Field(min_length=1)
    overrides: dict[str, Any]
    seed: Seed


class NearDuplicatesParams(Section):
    """How images that show one lesion under two ids are looked for."""

    neighbors: int = Field(ge=1, le=200)
    mirrored: bool
    min_inliers: int = Field(ge=3)
    min_correlation: float = Field(ge=-1, le=1)
    seed: Seed


class RobustnessParams(Section):
    """How the test images are corrupted."""

    corruptions: Distinct[Corruption] = Field(min_length=1)
    severities: Distinct[Annotated[int, Field(ge=1, le=5)]] = Field(min_length=1)
    seed: Seed


class ExternalParams(Section):
    """Of which other images the classifier is measured."""

    source: Literal["sample", "isic2018", "local"]
    path: str | None
    sample_seed: Seed
    sample_lesions: int = Field(ge=21, le=100_000)
    near_copies: NearCopies

    @model_validator(mode="after")
    def _path_belongs_to_local(self) -> "ExternalParams":
        check_path(self.source, self.path, section="external")
        return self
