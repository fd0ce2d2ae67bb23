"""How an image fits the square and a map finds its way back, against cases computed by hand."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from skinlesion.config.schema import Fit
from skinlesion.data.geometry import covered_box, fit_image, map_to_original


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


def test_map_back_identity() -> None:
    values = np.random.default_rng(0).random((48, 48))
    for fit in get_args(Fit):
        np.testing.assert_allclose(map_to_original(values, 48, 48, size=48, fit=fit), values)
    wide = np.random.default_rng(0).random((30, 40))
    np.testing.assert_allclose(map_to_original(wide, 40, 30, size=64, fit="squash"), wide)


def test_map_back_is_bilinear_between_cell_centres() -> None:
    # Cells [0, 1] have their centres at 1 and 3 of 4 pixels; pixel centres are 0.5, 1.5, 2.5, 3.5.
    placed = map_to_original(np.array([[0.0, 1.0]]), 4, 1, size=64, fit="squash")
    np.testing.assert_allclose(placed, [[0, 0.25, 0.75, 1]])


def test_a_constant_map_is_constant_inside_and_zero_outside() -> None:
    ones = np.ones((7, 7), dtype=np.float32)
    np.testing.assert_allclose(map_to_original(ones, 200, 150, size=64, fit="squash"), 1)
    np.testing.assert_allclose(map_to_original(ones, 200, 150, size=64, fit="pad"), 1)
    cropped = map_to_original(ones, 200, 150, size=64, fit="crop")
    assert (cropped.shape, cropped.dtype) == ((150, 200), np.float64)
    np.testing.assert_allclose(cropped[:, 25:175], 1)
    assert not cropped[:, :25].any()
    assert not cropped[:, 175:].any()


def test_map_back_leaves_the_padding_behind() -> None:
    # 4 x 2 in a square of 4: rows 1 and 2 hold the image, rows 0 and 3 are bars.
    values = np.array([[9.0] * 4, [1, 2, 3, 4], [5, 6, 7, 8], [9] * 4])
    np.testing.assert_allclose(map_to_original(values, 4, 2, size=4, fit="pad"), values[1:3])
    np.testing.assert_allclose(map_to_original(values.T, 2, 4, size=4, fit="pad"), values.T[:, 1:3])
