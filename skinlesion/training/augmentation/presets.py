"""What each preset of `train.augmentation` does to a training image."""

from skinlesion.config.augmentation import Augmentation, AugmentationParams, Preset

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


def resolve(params: AugmentationParams) -> Augmentation:
    """The preset with the values that `params` sets in its place."""
    chosen = {name: value for name, value in params if value is not None and name != "preset"}
    return PRESETS[params.preset].model_copy(update=chosen)
