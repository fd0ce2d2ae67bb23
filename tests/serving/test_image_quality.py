"""Warnings of quality: each on the fault that it names, none on a good picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from skinlesion.serving.image_quality import laplacian_variance, quality_warnings, skin_share
from tests.serving.predictor_cases import lesion_image

GOOD = lesion_image(width=300, height=225)


def changed(scale: float, shift: float) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(GOOD, dtype=np.float64) * scale + shift, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (GOOD.filter(ImageFilter.GaussianBlur(3)), "blurred"),
        (changed(0.2, 0), "under-exposed"),
        (changed(1.5, 40), "over-exposed"),
        (Image.fromarray(np.asarray(GOOD)[..., ::-1].copy()), "colour of skin"),
        (GOOD.convert("L").convert("RGB"), "colour of skin"),
        (GOOD.resize((100, 63)), "small: 100 x 63 pixels"),
    ],
)
def test_each_fault_has_its_warning(image: Image.Image, word: str) -> None:
    assert quality_warnings(GOOD, size=64) == []
    assert word in " ".join(quality_warnings(image, size=64))


def test_dark_corners_are_no_fault() -> None:
    pixels = np.asarray(GOOD).copy()
    y, x = np.mgrid[-1:1:225j, -1:1:300j]
    pixels[np.hypot(x, y) > 1.0] = 0
    assert quality_warnings(Image.fromarray(pixels), size=64) == []
    blurred = np.asarray(GOOD.filter(ImageFilter.GaussianBlur(3))).copy()
    blurred[np.hypot(x, y) > 1.0] = 0  # nor is their edge any sharpness
    assert "blurred" in " ".join(quality_warnings(Image.fromarray(blurred), size=64))


def test_hand_computed_measures() -> None:
    grey = np.zeros((5, 5), dtype=np.float32)
    grey[2, 2] = 1  # the Laplacian of a point: -4 there, 1 at its four neighbours, of nine values
    assert laplacian_variance(grey) == pytest.approx((16 + 4) / 9)
    assert skin_share(np.array([[[225, 180, 160], [110, 75, 60]], [[90, 140, 60], [128, 128, 128]]], dtype=np.float32)) == 0.5


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (50, 50)])
def test_any_shape_is_measured(size: tuple[int, int]) -> None:
    assert isinstance(quality_warnings(GOOD.resize(size), size=64), list)


def test_few_images_of_ham10000_are_warned_of(ham10000: Path) -> None:
    """At the size of this copy about one in a thousand is beyond each limit; a blur is noticed in nearly all."""
    paths = sorted(ham10000.glob("HAM10000_images_part_*/*.jpg"))[::100]
    images = [Image.open(path).convert("RGB") for path in paths]
    assert len(images) > 90
    assert sum(bool(quality_warnings(image, size=64)) for image in images) <= 2
    blurred = [quality_warnings(image.filter(ImageFilter.GaussianBlur(1.5)), size=64) for image in images]
    assert np.mean([any("blurred" in warning for warning in warnings) for warnings in blurred]) > 0.9
