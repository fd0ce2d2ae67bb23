"""Augmentation of training images as a torchvision v2 preset; evaluation sees the prepared square as it is."""

from __future__ import annotations

import math

from torchvision.transforms import InterpolationMode, v2

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
        steps += _rotation(augmentation.rotation, size=size)
    if augmentation.color_jitter > 0:
        jitter = augmentation.color_jitter
        steps.append(v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return v2.Compose([*steps, v2.Identity()])


def _rotation(degrees: float, *, size: int) -> list[v2.Transform]:
    """Rotation by up to `degrees` either way, the corners filled by reflection.

    Black corners would be something that evaluation never shows: batch norm's statistics would count them in.
    """
    steepest = math.radians(min(degrees, 45.0))
    border = math.ceil(size * (math.cos(steepest) + math.sin(steepest) - 1) / 2) + 1
    turn = v2.RandomRotation(degrees, interpolation=InterpolationMode.BILINEAR)
    return [v2.Pad(border, padding_mode="reflect"), turn, v2.CenterCrop(size)]
