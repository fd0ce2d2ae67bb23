"""Augmentation of training images as a torchvision v2 preset; evaluation sees the prepared square as it is."""

import math
from typing import Any

import torch
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from skinlesion.config.augmentation import Augmentation
from skinlesion.training.augmentation.hair import HairOcclusion

# What an erased rectangle covers of the image, and its color, which also fills what RandAugment moves in from outside:
# about HAM10000's mean, which normalized is near zero.
ERASED_AREA = (0.02, 0.15)
MEAN_COLOR = [195, 140, 146]


def train_transform(augmentation: Augmentation, *, size: int) -> v2.Transform:
    """All of `augmentation` that changes one image: uint8 (3, size, size) in, same shape and type out.

    In this order: random crop, flips, rotation and zoom, color jitter, RandAugment (Cubuk et al. 2020) or TrivialAugment
    (Mueller and Hutter 2021), hair, random erasing (Zhong et al. 2020). Draws from torch's default CPU generator. What is
    switched off (`min_scale` 1, `rotation` 0, ...) costs nothing. MixUp and CutMix work on batches: see `mixing` beside.
    """
    steps: list[v2.Transform] = []
    if augmentation.min_scale < 1:
        # A narrow range of aspects: what is stretched in training otherwise than in evaluation costs accuracy.
        steps.append(v2.RandomResizedCrop(size, scale=(augmentation.min_scale, 1.0), ratio=(0.9, 1 / 0.9), antialias=True))
    if augmentation.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.vertical_flip:
        steps.append(v2.RandomVerticalFlip())
    if augmentation.rotation > 0 or augmentation.zoom > 0:
        steps.append(ReflectedAffine(augmentation.rotation, zoom=augmentation.zoom))
    if augmentation.color_jitter > 0 or augmentation.hue > 0:
        jitter = augmentation.color_jitter
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=augmentation.hue))
    if augmentation.rand_augment > 0:
        magnitude = augmentation.rand_augment
        steps.append(v2.RandAugment(2, magnitude, interpolation=InterpolationMode.BILINEAR, fill=MEAN_COLOR))
    if augmentation.trivial_augment:
        steps.append(v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR, fill=MEAN_COLOR))
    if augmentation.hair > 0:
        steps.append(HairOcclusion(augmentation.hair))
    if augmentation.random_erasing > 0:
        steps.append(v2.RandomErasing(augmentation.random_erasing, scale=ERASED_AREA, value=MEAN_COLOR))
    return v2.Compose([*steps, v2.Identity()])


class ReflectedAffine(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Rotate one square uint8 image (3, size, size) by up to `degrees` either way and magnify it by 1 - zoom to 1 + zoom.

    Bilinear. What lies outside is filled by reflection: black corners would be something that evaluation never shows, and
    batch norm's statistics would count them in. Twice as fast as padding by reflection, `v2.RandomRotation` and cropping.
    """

    def __init__(self, degrees: float, *, zoom: float = 0.0) -> None:
        super().__init__()
        self.degrees, self.zoom = degrees, zoom

    def make_params(self, flat_inputs: list[Any]) -> dict[str, float]:
        angle = math.radians(torch.empty(1).uniform_(-self.degrees, self.degrees).item())
        magnification = torch.empty(1).uniform_(1 - self.zoom, 1 + self.zoom).item() if self.zoom > 0 else 1.0
        return {"angle": angle, "magnification": magnification}

    def transform(self, inpt: torch.Tensor, params: dict[str, float]) -> torch.Tensor:
        cosine, sine = (value / params["magnification"] for value in (math.cos(params["angle"]), math.sin(params["angle"])))
        grid = functional.affine_grid(
            torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]]), [1, *inpt.shape], align_corners=False
        )
        moved = functional.grid_sample(inpt[None].float(), grid, padding_mode="reflection", align_corners=False)
        return moved[0].round_().to(torch.uint8)
