"""The section `train.augmentation`: a preset, and values of it that are set otherwise."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from skinlesion.schema import Section, Share

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


NONE = Augmentation(
    horizontal_flip=False,
    vertical_flip=False,
    rotation=0.0,
    min_scale=1.0,
    zoom=0.0,
    color_jitter=0.0,
    hue=0.0,
    rand_augment=0,
    trivial_augment=False,
    hair=0.0,
    random_erasing=0.0,
    mixup=0.0,
    cutmix=0.0,
    mix_share=0.5,
)
FLIPPED = {"horizontal_flip": True, "vertical_flip": True}
PRESETS: dict[Preset, Augmentation] = {
    "none": NONE,
    "light": NONE.model_copy(update={**FLIPPED, "rotation": 20.0, "min_scale": 0.8, "color_jitter": 0.1}),
    "medium": NONE.model_copy(update={**FLIPPED, "rotation": 180.0, "min_scale": 0.6, "color_jitter": 0.15, "mixup": 0.2}),
    "strong": NONE.model_copy(
        update={
            **FLIPPED,
            "rotation": 180.0,
            "min_scale": 0.4,
            "zoom": 0.1,
            "color_jitter": 0.2,
            "hue": 0.03,
            "hair": 0.2,
            "random_erasing": 0.25,
            "mixup": 0.2,
            "cutmix": 1.0,
        }
    ),
}


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

    def resolve(self) -> Augmentation:
        """The preset with the values that are set here."""
        chosen = {name: value for name, value in self if value is not None and name != "preset"}
        return PRESETS[self.preset].model_copy(update=chosen)

    @model_validator(mode="after")
    def _one_policy(self) -> AugmentationParams:
        values = self.resolve()
        if values.rand_augment and values.trivial_augment:
            raise ValueError("rand_augment and trivial_augment are two policies for the same thing: switch one off")
        if (values.mixup or values.cutmix) and values.mix_share == 0:
            raise ValueError("mix_share is 0, so that nothing is mixed: raise it, or set mixup and cutmix to 0")
        return self
