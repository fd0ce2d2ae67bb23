"""Augmentation of training images as a torchvision v2 preset; evaluation sees the prepared square as it is."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional
from torchvision.transforms import v2

from skinlesion.params import AugmentationParams


def train_transform(augmentation: AugmentationParams, *, size: int) -> v2.Transform:
    """Random crop, flips, rotation and colour jitter of one uint8 image (3, size, size); same shape and type out.

    Draws from torch's default CPU generator. What is switched off (`min_scale` 1, `rotation` 0, ...) costs nothing.
    """
    steps: list[v2.Transform] = []
    if augmentation.min_scale < 1:
        # A narrow range of aspects: what is stretched in training otherwise than in evaluation costs accuracy.
        steps.append(v2.RandomResizedCrop(size, scale=(augmentation.min_scale, 1.0), ratio=(0.9, 1 / 0.9), antialias=True))
    if augmentation.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.vertical_flip:
        steps.append(v2.RandomVerticalFlip())
    if augmentation.rotation > 0:
        steps.append(ReflectedRotation(augmentation.rotation))
    if augmentation.color_jitter > 0:
        jitter = augmentation.color_jitter
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return v2.Compose([*steps, v2.Identity()])


class ReflectedRotation(v2.Transform):
    """Rotate one square uint8 image (3, size, size) by a random angle of up to `degrees` either way, bilinear.

    The corners are filled by reflection: black ones would be something that evaluation never shows, and batch norm's
    statistics would count them in. Twice as fast as padding by reflection, `v2.RandomRotation` and cropping.
    """

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def make_params(self, flat_inputs: list[Any]) -> dict[str, float]:
        return {"angle": math.radians(torch.empty(1).uniform_(-self.degrees, self.degrees).item())}

    def transform(self, inpt: torch.Tensor, params: dict[str, float]) -> torch.Tensor:
        cosine, sine = math.cos(params["angle"]), math.sin(params["angle"])
        grid = functional.affine_grid(
            torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]]), [1, *inpt.shape], align_corners=False
        )
        rotated = functional.grid_sample(inpt[None].float(), grid, padding_mode="reflection", align_corners=False)
        return rotated[0].round_().to(torch.uint8)
