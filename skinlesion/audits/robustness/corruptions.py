"""Corruptions of prepared images, each at five severities: what a camera, a file or a patient may do to a picture.

The idea and the five steps are those of Hendrycks, Dietterich, ICLR 2019 (ImageNet-C), applied to dermatoscopic images before by
Maron et al., European Journal of Cancer 155 (2021). The strengths of `blur`, `jpeg` and `noise` are those of ImageNet-C's code at
its 224 pixels; the others are our own, so no figure can be compared with a published one.

Lengths are shares of the side, so that a severity means the same at any size of the prepared squares. Two are exceptions: JPEG
works in blocks of 8 pixels and noise is of each pixel alone, and both weigh more on a small square than on a large one. A blur of
less than half a pixel, as the weakest one below 112 pixels, changes hardly anything: a small square has no detail so fine.
"""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from skinlesion.config.audits import Corruption
from skinlesion.training.augmentation.hair import HairOcclusion
from skinlesion.training.augmentation.transforms import ReflectedAffine

# By severity, 1 to 5. Where a corruption has two directions, a coin decides for each image, the same for all severities.
STRENGTHS: dict[Corruption, tuple[float, ...]] = {
    "brightness": (1.15, 1.3, 1.5, 1.75, 2.0),  # factor on the values, or its inverse
    "contrast": (1.2, 1.4, 1.7, 2.1, 2.6),  # factor on the distance to the image's mean grey, or its inverse
    "hue": (0.02, 0.04, 0.06, 0.08, 0.1),  # share of the colour circle, either way
    "blur": (1 / 224, 2 / 224, 3 / 224, 4 / 224, 6 / 224),  # standard deviation of a Gaussian, share of the side
    "jpeg": (25, 18, 15, 10, 7),  # Pillow's quality
    "noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation of Gaussian noise, share of the range
    "rotation": (9, 18, 27, 36, 45),  # degrees, either way; 45 is the furthest from a quarter turn, which keeps every pixel
    "hair": (4, 8, 16, 32, 64),  # hairs, each 0.4 to 1.2 % of the side thick; training draws 8 at most
}

BLUR_REACH = 4  # standard deviations on each side after which the Gaussian is cut off


class Condition(NamedTuple):
    """Images of one kind: `corruption` at a `severity`, 1 to 5, whose `strength` is in the corruption's own unit.

    As severity 0, with strength NaN, the clean images.
    """

    corruption: Corruption
    severity: int
    strength: float


def corrupt(images: np.ndarray, image_ids: Sequence[str], corruption: Corruption, *, strength: float, seed: int) -> np.ndarray:
    """Corrupt a batch: uint8 (N, size, size, 3), RGB, in and out; the input is left as it is.

    Each image has its own draws, from its id, the corruption and the seed: neither the batch nor the order matters. All strengths
    share them, so that a stronger corruption is more of the same.

    Parameters
    ----------
    image_ids : N ids.
    strength : usually one of `STRENGTHS[corruption]`, in the unit that stands there.
    seed : any whole number >= 0.
    """
    apply = _APPLY[corruption]
    corrupted = np.empty_like(images)
    for place, (image, image_id) in enumerate(zip(images, image_ids, strict=True)):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        corrupted[place] = apply(pixels, strength, draws_of(image_id, corruption, seed)).permute(1, 2, 0).numpy()
    return corrupted


def draws_of(image_id: str, corruption: Corruption, seed: int) -> np.random.Generator:
    """The generator of one image under one corruption; unlike Python's `hash`, the same in every process."""
    digest = hashlib.sha256(f"{corruption}/{image_id}".encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def _sign(draws: np.random.Generator) -> int:
    """A direction: 1 or -1, equally likely."""
    return 1 if draws.random() < 0.5 else -1


# Each takes uint8 (3, size, size), a strength and the image's draws, and gives uint8 (3, size, size).


def _blur(image: torch.Tensor, strength: float, _: np.random.Generator) -> torch.Tensor:
    deviation = strength * image.shape[-1]
    width = 2 * math.ceil(BLUR_REACH * deviation) + 1
    # Along rows, then along columns: torchvision convolves with the whole square otherwise, which on large images takes long.
    along_rows = functional.gaussian_blur(image.float(), [width, 1], [deviation, deviation])
    blurred: torch.Tensor = functional.gaussian_blur(along_rows, [1, width], [deviation, deviation])
    return blurred.round_().to(torch.uint8)


def _jpeg(image: torch.Tensor, strength: float, _: np.random.Generator) -> torch.Tensor:
    buffer = io.BytesIO()
    functional.to_pil_image(image).save(buffer, format="JPEG", quality=int(strength))
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


def _noise(image: torch.Tensor, strength: float, draws: np.random.Generator) -> torch.Tensor:
    noise = torch.from_numpy(draws.standard_normal(image.shape, dtype=np.float32))
    return (image + 255 * strength * noise).round_().clamp_(0, 255).to(torch.uint8)


def _rotation(image: torch.Tensor, strength: float, draws: np.random.Generator) -> torch.Tensor:
    params = {"angle": math.radians(strength) * _sign(draws), "magnification": 1.0}
    return ReflectedAffine(strength).transform(image, params)


_APPLY: dict[Corruption, Callable[[torch.Tensor, float, np.random.Generator], torch.Tensor]] = {
    "brightness": lambda image, strength, draws: functional.adjust_brightness(image, strength ** _sign(draws)),
    "contrast": lambda image, strength, draws: functional.adjust_contrast(image, strength ** _sign(draws)),
    "hue": lambda image, strength, draws: functional.adjust_hue(image, strength * _sign(draws)),
    "blur": _blur,
    "jpeg": _jpeg,
    "noise": _noise,
    "rotation": _rotation,
    "hair": lambda image, strength, draws: HairOcclusion(1.0).transform(image, {"hairs": draws.random((int(strength), 8))}),
}
