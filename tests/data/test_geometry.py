"""How an image fits the square and a map finds its way back, against cases computed by hand."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from skinlesion.config.schema import Fit
from skinlesion.data.geometry import covered_box, fit_image


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """An image of noise, so that no two pixels agree by accident."""
    values = np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize(("width", "height"), [(200, 150), (150, 200), (64, 64), (1000, 1), (3, 5)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_any_image_fits_the_square_and_keeps_its_mode(fit: Fit, width: int, height: int, mode: str) -> None:
    square = fit_image(picture(width, height, mode), size=32, fit=fit)
    assert (square.size, square.mode) == ((32, 32), mode)


@pytest.mark.parametrize(
    ("fit", "width", "height", "expected"),
    [
        ("squash", 200, 150, (0, 0, 200, 150)),
        ("crop", 200, 150, (25, 0, 175, 150)),
        ("crop", 150, 200, (0, 25, 150, 175)),
        # 200 x 150 becomes 64 x 48 with 8 black rows above and below; a row of the square is 150 / 48 = 3.125 pixels.
        ("pad", 200, 150, (0, -25, 200, 175)),
        ("pad", 150, 200, (-25, 0, 175, 200)),
        ("pad", 100, 100, (0, 0, 100, 100)),
    ],
)
def test_covered_box(fit: Fit, width: int, height: int, expected: tuple[float, ...]) -> None:
    assert covered_box(width, height, size=64, fit=fit) == pytest.approx(expected)


def test_pixels_where_nothing_is_resampled() -> None:
    wide = picture(64, 32)
    pixels = np.asarray(wide)
    np.testing.assert_array_equal(fit_image(wide, size=32, fit="crop"), pixels[:, 16:48])
    padded = np.asarray(fit_image(wide, size=64, fit="pad"))
    np.testing.assert_array_equal(padded[16:48], pixels)
    assert not padded[:16].any()
    assert not padded[48:].any()
    square = picture(32, 32)
    for fit in get_args(Fit):
        np.testing.assert_array_equal(fit_image(square, size=32, fit=fit), square)


def test_reduction_is_antialiased() -> None:
    checkerboard = Image.fromarray((np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8))
    reduced = np.asarray(fit_image(checkerboard, size=32, fit="squash")).astype(float)
    assert np.abs(reduced - 127.5).max() < 3  # without antialiasing the grid would come out black, white or as moiré
