"""Where the cells of a map come to lie: on the pixels of the network's square, of an original, or on the cells of another map."""

import math

import numpy as np

from skinlesion.config.schema import Fit
from skinlesion.data.geometry import covered_box
from skinlesion.explanation.cam.receptive_field import Centers


def cell_shares(places: np.ndarray, cells: int, centers: Centers) -> np.ndarray:
    """How much each of a row of cells counts at each place: bilinear between their centres, constant beyond the outermost.

    Parameters
    ----------
    places : float (places,), in pixels of the square, whose first pixel is centred on 0.5.
    centers : centre of the first cell, and distance from one cell's centre to the next, in pixels of the square.

    Returns
    -------
    float64 array of shape (places, cells), rows summing to 1. Of a map of (side, side) cells, shares of the rows' places times
    the map times the transposed shares of the columns' places are its values there.
    """
    first, step = centers
    position = np.clip((places - first) / step, 0, cells - 1)
    shares: np.ndarray = np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0)
    return shares


def map_to_original(values: np.ndarray, width: int, height: int, *, size: int, fit: Fit, centers: Centers) -> np.ndarray:
    """Place a map over the square onto the original's pixels.

    Parameters
    ----------
    values : float array of shape (side, side).
    width, height : of the original in pixels.
    size, fit : how the original was prepared.
    centers : where the map's cells lie along both sides, see `cell_shares`.

    Returns
    -------
    float64 array of shape (height, width): bilinear, see `cell_shares`, and 0 where the square does not reach.
    """
    left, top, right, bottom = covered_box(width, height, size=size, fit=fit)
    x = (np.arange(width) + 0.5 - left) / (right - left) * size
    y = (np.arange(height) + 0.5 - top) / (bottom - top) * size
    rows, columns = cell_shares(y, values.shape[0], centers), cell_shares(x, values.shape[1], centers)
    placed: np.ndarray = rows @ np.asarray(values, dtype=np.float64) @ columns.T
    placed[(y < 0) | (y > size), :] = 0
    placed[:, (x < 0) | (x > size)] = 0
    return placed


def crop_to_square(values: np.ndarray, *, size: int, fit: Fit) -> np.ndarray:
    """The part of an array over an original, shape (height, width), that the network's square shows."""
    height, width = values.shape
    left, top, right, bottom = covered_box(width, height, size=size, fit=fit)
    rows = slice(max(0, math.ceil(top - 0.5)), math.floor(bottom - 0.5) + 1)
    columns = slice(max(0, math.ceil(left - 0.5)), math.floor(right - 0.5) + 1)
    return values[rows, columns]
