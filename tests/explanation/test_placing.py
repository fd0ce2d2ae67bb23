"""Maps come to lie on the pixels of the original: against scipy, by hand, and in a round trip."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from skinlesion.config.schema import Fit
from skinlesion.data.geometry import fit_image
from skinlesion.explanation.cam.placing import crop_to_square, map_to_original
from skinlesion.explanation.cam.receptive_field import tiled_centers


@pytest.mark.parametrize("centers", [(0.5, 32.0), (3.0, 9.0), tiled_centers(5, size=64)])
def test_placing_is_bilinear_as_scipy_has_it(centers: tuple[float, float]) -> None:
    values, (first, step) = np.random.default_rng(1).random((5, 5)), centers
    row, column = ((np.arange(count) + 0.5) * 64 / count for count in (150, 201))
    grid = np.meshgrid((row - first) / step, (column - first) / step, indexing="ij")
    expected = map_coordinates(values, grid, order=1, mode="nearest")
    np.testing.assert_allclose(map_to_original(values, 201, 150, size=64, fit="squash", centers=centers), expected, atol=1e-12)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("width", "height"), [(200, 150), (150, 200), (160, 160), (601, 450)])
def test_a_map_comes_back_to_where_the_evidence_was(fit: Fit, width: int, height: int) -> None:
    """A bright spot in the original, seen in the square, is placed where it was to a fraction of a pixel."""
    rows, columns = np.mgrid[:height, :width]
    for share_x, share_y in [(0.5, 0.5), (0.35, 0.6), (0.62, 0.38)]:
        x, y = round(width * share_x), round(height * share_y)
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (width / 25) ** 2))
        original = Image.fromarray(np.round(255 * spot).astype(np.uint8))
        square = np.asarray(fit_image(original, size=64, fit=fit), dtype=np.float32) / 255
        placed = map_to_original(square, width, height, size=64, fit=fit, centers=(0.5, 1.0))
        assert placed.shape == (height, width)
        centre = [(placed * grid).sum() / placed.sum() for grid in (columns, rows)]
        np.testing.assert_allclose(centre, [x, y], atol=0.3)
        peak_y, peak_x = np.unravel_index(placed.argmax(), placed.shape)
        reach = max(width, height) / 64 / 2 + 1
        assert abs(peak_x - x) <= reach
        assert abs(peak_y - y) <= reach


def test_map_back_identity() -> None:
    values = np.random.default_rng(0).random((48, 48))
    for fit in get_args(Fit):
        np.testing.assert_allclose(map_to_original(values, 48, 48, size=48, fit=fit, centers=(0.5, 1.0)), values)


def test_a_constant_map_is_constant_inside_and_zero_outside() -> None:
    ones = np.ones((7, 7), dtype=np.float32)
    np.testing.assert_allclose(map_to_original(ones, 200, 150, size=64, fit="squash", centers=tiled_centers(7, size=64)), 1)
    np.testing.assert_allclose(map_to_original(ones, 200, 150, size=64, fit="pad", centers=tiled_centers(7, size=64)), 1)
    cropped = map_to_original(ones, 200, 150, size=64, fit="crop", centers=tiled_centers(7, size=64))
    assert (cropped.shape, cropped.dtype) == ((150, 200), np.float64)
    np.testing.assert_allclose(cropped[:, 25:175], 1)
    assert not cropped[:, :25].any()
    assert not cropped[:, 175:].any()


def test_map_back_leaves_the_padding_behind() -> None:
    # 4 x 2 in a square of 4: rows 1 and 2 hold the image, rows 0 and 3 are bars.
    values = np.array([[9.0] * 4, [1, 2, 3, 4], [5, 6, 7, 8], [9] * 4])
    np.testing.assert_allclose(map_to_original(values, 4, 2, size=4, fit="pad", centers=(0.5, 1.0)), values[1:3])
    np.testing.assert_allclose(map_to_original(values.T, 2, 4, size=4, fit="pad", centers=(0.5, 1.0)), values.T[:, 1:3])


@pytest.mark.parametrize(
    ("fit", "rows", "columns"),
    [("squash", slice(0, 150), slice(0, 200)), ("crop", slice(0, 150), slice(25, 175)), ("pad", slice(0, 150), slice(0, 200))],
)
def test_crop_to_square(fit: Fit, rows: slice, columns: slice) -> None:
    values = np.random.default_rng(0).random((150, 200))
    np.testing.assert_array_equal(crop_to_square(values, size=64, fit=fit), values[rows, columns])
    np.testing.assert_array_equal(crop_to_square(values.T, size=64, fit=fit), values.T[columns, rows])
