"""Test-time augmentation: the views of a batch over which probabilities are averaged."""

from collections.abc import Callable

import torch
from torchvision.transforms.v2 import functional

from skinlesion.config.schema import TestTime

View = Callable[[torch.Tensor], torch.Tensor]

CROP_SHARE = 0.8  # of the side, of the crops of multi_crop


def _identity(images: torch.Tensor) -> torch.Tensor:
    return images


def _turned(quarters: int, *, mirrored: bool) -> View:
    """A mirror image, or not, turned by so many quarters of a circle against the clock."""
    return lambda images: torch.rot90(images.flip(-1) if mirrored else images, quarters, dims=(-2, -1))


def _cropped(down: float, right: float) -> View:
    """A square of `CROP_SHARE` of the side, resized back; `down` and `right` from 0 (top, left) to 1 (bottom, right)."""

    def crop(images: torch.Tensor) -> torch.Tensor:
        size = images.shape[-1]
        side = round(CROP_SHARE * size)
        top, left = (round(place * (size - side)) for place in (down, right))
        resized: torch.Tensor = functional.resized_crop(images, top, left, side, side, [size, size], antialias=True)  # bilinear
        return resized

    return crop


# The eight symmetries of the square (the dihedral group of order 8); the flips are four of them.
_SYMMETRIES = tuple(_turned(quarters, mirrored=mirrored) for mirrored in (False, True) for quarters in range(4))

# In each the image as it is comes first.
VIEWS: dict[TestTime, tuple[View, ...]] = {
    "none": (_identity,),
    "flips": (_identity, lambda images: images.flip(-1), lambda images: images.flip(-2), lambda images: images.flip(-1, -2)),
    "square": (_identity, *_SYMMETRIES[1:]),
    "multi_crop": (_identity, *(_cropped(*place) for place in ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)))),
}


def views_of(images: torch.Tensor, test_time: TestTime) -> list[torch.Tensor]:
    """The views of a batch of square images, the batch itself first.

    `flips`: as it is, mirrored left to right, top to bottom, and both (4 views). `square`: the 8 symmetries of the square.
    `multi_crop`: the whole image, and its centre and four corners of 80 % of the side, resized back bilinearly (6 views; the
    crops of Krizhevsky, Sutskever, Hinton, NIPS 2012, section 4.1, without their mirror images). Nothing is drawn at random.

    images : float (N, C, size, size). Resizing is a weighted mean, so it does not matter whether they are normalised.
    """
    return [view(images).contiguous(memory_format=torch.channels_last) for view in VIEWS[test_time]]
