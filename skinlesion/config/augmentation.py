"""The section `train.augmentation`: a preset, and values of it that are set otherwise."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from skinlesion.config.schema import Section, Share

Preset = Literal["none", "light", "medium", "strong"]


class Augmentation(Section):
    """Random changes of a training image, every value given. What is 0 (or 1 for `min_scale`) is switched off."""

    horizontal_flip: bool
    vertical_flip: bool
    rotation: float = Field(ge=0, le=180)
    min_scale: float = Field(gt=0, le=1)
    zoom: float = Field(ge=0, lt=1)
    color_jitter: Share
    hue: float = Field(ge=0, le=0.5)
    rand_augment: int = Field(ge=0, le=30)
    trivial_augment: bool
    hair: Share
    random_erasing: Share
    mixup: float = Field(ge=0)
    cutmix: float = Field(ge=0)
    mix_share: Share


class AugmentationParams(Section):
    """A preset; what is not null replaces the preset's value."""

    preset: Preset
    horizontal_flip: bool | None
    vertical_flip: bool | None
    rotation: Annotated[float, Field(ge=0, le=180)] | None
    min_scale: Annotated[float, Field(gt=0, le=1)] | None
    zoom: Annotated[float, Field(ge=0, lt=1)] | None
    color_jitter: Share | None
    hue: Annotated[float, Field(ge=0, le=0.5)] | None
    rand_augment: Annotated[int, Field(ge=0, le=30)] | None
    trivial_augment: bool | None
    hair: Share | None
    random_erasing: Share | None
    mixup: Annotated[float, Field(ge=0)] | None
    cutmix: Annotated[float, Field(ge=0)] | None
    mix_share: Share | None

    @model_validator(mode="after")
    def _one_policy(self) -> "AugmentationParams":
        # No preset has one of the two, so that what is set here is all there is.
        if self.rand_augment and self.trivial_augment:
            raise ValueError("rand_augment and trivial_augment are two policies for the same thing: switch one off")
        if self.mix_share == 0:
            raise ValueError("mix_share is 0, so that nothing is mixed: raise it, or set mixup and cutmix to 0")
        return self
