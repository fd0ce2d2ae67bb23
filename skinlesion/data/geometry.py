"""How an image of any shape fits the network's square, and how a map over that square finds its way back.

`fit` is one of: `squash`, the whole image, its aspect lost; `crop`, the largest centred square; `pad`, the whole image in
its aspect, black bars around it.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from skinlesion.config.schema import Fit


def _pasted_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Where `pad` puts the image in the square: left, top, width, height in pixels of the square."""
    scale = size / max(width, height)
    inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
    return (size - inner_width) // 2, (size - inner_height) // 2, inner_width, inner_height


def covered_box(width: int, height: int, *, size: int, fit: Fit) -> tuple[float, float, float, float]:
    """The rectangle of the original that the whole square shows: left, top, right, bottom in original pixels.

    With `pad` it reaches beyond the original on two sides.
    """
    if fit == "squash":
        return 0.0, 0.0, float(width), float(height)
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
    left, top, inner_width, inner_height = _pasted_box(width, height, size)
    per_column, per_row = width / inner_width, height / inner_height
    return -left * per_column, -top * per_row, (size - left) * per_column, (size - top) * per_row


def fit_image(image: Image.Image, *, size: int, fit: Fit) -> Image.Image:
    """Resize an image into the square of `size` x `size` pixels, antialiased (Pillow's bilinear filter), mode kept."""
    if fit == "pad":
        left, top, inner_width, inner_height = _pasted_box(*image.size, size)
        square = Image.new(image.mode, (size, size))
        square.paste(image.resize((inner_width, inner_height), Image.Resampling.BILINEAR), (left, top))
        return square
    box = covered_box(*image.size, size=size, fit=fit)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def map_to_original(
    values: np.ndarray, width: int, height: int, *, size: int, fit: Fit, centers: tuple[float, float] | None = None
) -> np.ndarray:
    """Place a map over the square onto the original's pixels.

    Parameters
    ----------
    values : float array of shape (h, w), any resolution.
    width, height : of the original in pixels.
    size, fit : how the original was prepared.
    centers : centre of the map's first cell, and distance from one cell's centre to the next, in pixels of the square, the
        same along both sides (`skinlesion.explanation.cam.receptive_field`); None if the cells tile the square.

    Returns
    -------
    float64 array of shape (height, width): bilinear between the cells' centres, constant beyond the outermost, 0 where
    the square does not reach.
    """
    left, top, right, bottom = covered_box(width, height, size=size, fit=fit)
    x = (np.arange(width) + 0.5 - left) / (right - left)
    y = (np.arange(height) + 0.5 - top) / (bottom - top)
    rows, columns = values.shape
    if centers is None:
        row, column = y * rows - 0.5, x * columns - 0.5
    else:
        first, step = centers
        row, column = (y * size - first) / step, (x * size - first) / step
    placed = _shares(row, rows) @ np.asarray(values, dtype=np.float64) @ _shares(column, columns).T
    placed[(y < 0) | (y > 1), :] = 0
    placed[:, (x < 0) | (x > 1)] = 0
    return placed


def _shares(places: np.ndarray, cells: int) -> np.ndarray:
    """How much each of `cells` cells counts at each place, given in cells (0 is the first one's centre): (places, cells)."""
    return np.maximum(1 - np.abs(np.clip(places, 0, cells - 1)[:, None] - np.arange(cells)), 0)
