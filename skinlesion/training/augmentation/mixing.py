"""MixUp and CutMix: a batch mixed with itself, images and targets alike."""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from skinlesion.config.augmentation import Augmentation


class Mixture(NamedTuple):
    """A mixed batch. images : as given, (N, 3, H, W). targets : float32 (N, classes). share : of an image's own in it, 0 to 1."""

    images: torch.Tensor
    targets: torch.Tensor
    share: float


def mix_batch(
    images: torch.Tensor, labels: torch.Tensor, *, augmentation: Augmentation, generator: torch.Generator, num_classes: int
) -> Mixture:
    """Mix each image of a batch with the one before it, and its target in the same share.

    A share `mix_share` of the batches is mixed, by MixUp (Zhang et al. 2018: all pixels, share lambda) or by CutMix (Yun et al.
    2019: a rectangle of the other image, lambda its true rest of the area), a coin deciding where both alphas are above 0;
    lambda is drawn from Beta(alpha, alpha), once for the batch. A batch of one image stays as it is.

    images : float (N, 3, H, W), whose memory order is kept. labels : int64 (N,). generator : on the CPU; all draws are its.
    """
    targets = functional.one_hot(labels, num_classes).float()
    chance, coin = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    if len(images) < 2 or chance >= augmentation.mix_share or not (augmentation.mixup or augmentation.cutmix):
        return Mixture(images, targets, 1.0)
    if augmentation.cutmix and (coin < 0.5 or not augmentation.mixup):
        mixed, share = _cut_mix(images, _draw_share(augmentation.cutmix, generator), generator)
    else:
        share = _draw_share(augmentation.mixup, generator)
        mixed = torch.lerp(images.roll(1, 0), images, share)
    return Mixture(mixed, torch.lerp(targets.roll(1, 0), targets, share), share)


def _draw_share(alpha: float, generator: torch.Generator) -> float:
    """A draw from Beta(alpha, alpha). By NumPy: torch's distributions take no generator."""
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _cut_mix(images: torch.Tensor, share: float, generator: torch.Generator) -> tuple[torch.Tensor, float]:
    """A rectangle of the previous image in each one, around a random center and cut at the border; and the share that is left."""
    height, width = images.shape[-2:]
    across, down = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    half = 0.5 * (1 - share) ** 0.5
    left, right = (round(min(1.0, max(0.0, across + side)) * width) for side in (-half, half))
    top, bottom = (round(min(1.0, max(0.0, down + side)) * height) for side in (-half, half))
    mixed = images.clone(memory_format=torch.preserve_format)
    mixed[:, :, top:bottom, left:right] = images.roll(1, 0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
