"""What each preset of `train.augmentation` does to a training image."""

from skinlesion.config.augmentation import Augmentation, AugmentationParams, Preset

OFF: dict[str, bool | int | float] = dict.fromkeys(("horizontal_flip", "vertical_flip", "trivial_augment"), False)
OFF |= dict.fromkeys(("rotation", "zoom", "color_jitter", "hue", "hair", "random_erasing", "mixup", "cutmix"), 0.0)
NONE = Augmentation.model_validate(OFF | {"min_scale": 1.0, "rand_augment": 0, "mix_share": 0.5})
FLIPPED = {"horizontal_flip": True, "vertical_flip": True}
STRONG = {"rotation": 180.0, "min_scale": 0.4, "zoom": 0.1, "color_jitter": 0.2, "hue": 0.03, "hair": 0.2, "random_erasing": 0.25}
PRESETS: dict[Preset, Augmentation] = {
    "none": NONE,
    "light": NONE.model_copy(update={**FLIPPED, "rotation": 20.0, "min_scale": 0.8, "color_jitter": 0.1}),
    "medium": NONE.model_copy(update={**FLIPPED, "rotation": 180.0, "min_scale": 0.6, "color_jitter": 0.15, "mixup": 0.2}),
    "strong": NONE.model_copy(update={**FLIPPED, **STRONG, "mixup": 0.2, "cutmix": 1.0}),
}


def resolve(params: AugmentationParams) -> Augmentation:
    """The preset with the values that `params` sets in its place."""
    chosen = {name: value for name, value in params if value is not None and name != "preset"}
    return PRESETS[params.preset].model_copy(update=chosen)
