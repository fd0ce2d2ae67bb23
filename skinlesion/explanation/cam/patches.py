"""Maps on the patches of the network's square: one grid for every layer and member, on which maps are ranked and compared."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from skinlesion.config.schema import Fit
from skinlesion.data.geometry import covered_box
from skinlesion.explanation.cam.members import MemberMaps
from skinlesion.explanation.cam.placing import cell_shares
from skinlesion.explanation.cam.receptive_field import Centers

PATCHES = 16  # a side, finer than most networks' last feature map


def patch_of_pixels(size: int) -> np.ndarray:
    """The patch, 0 to PATCHES - 1, in which each of `size` rows (or columns) of pixels lies, int64 (size,)."""
    return np.arange(size) * PATCHES // size


def patch_means(members: Sequence[MemberMaps], *, size: int, mirrored: bool = False) -> np.ndarray:
    """The members' mean map of each image, averaged over the pixels of each patch.

    Every member's map is placed by its own cells, bilinearly and constant beyond the outermost, as on the originals.

    Parameters
    ----------
    members : their maps of the same N images, each scaled to a strongest cell of 1.
    size : side of the network's square in pixels.
    mirrored : whether the maps are of images mirrored left to right; they are mirrored back, pixel by pixel.

    Returns
    -------
    float64 array of shape (N, PATCHES, PATCHES).
    """
    placed: list[np.ndarray] = []
    for member in members:
        side, centers = member.layer.side, member.layer.centers
        rows = _averaging(side, centers, size=size, mirrored=False)
        columns = _averaging(side, centers, size=size, mirrored=mirrored)
        placed.append(rows @ member.maps.astype(np.float64) @ columns.T)
    mean: np.ndarray = np.mean(placed, axis=0)
    return mean


def _averaging(side: int, centers: Centers, *, size: int, mirrored: bool) -> np.ndarray:
    """Weights of the cells along one side in each patch, float64 (PATCHES, side), rows summing to 1."""
    weights = cell_shares(np.arange(size) + 0.5, side, centers)
    if mirrored:
        weights = weights[::-1]
    patches = patch_of_pixels(size)
    return np.stack([weights[patches == patch].mean(axis=0) for patch in range(PATCHES)])


def shown_patches(width: int, height: int, *, size: int, fit: Fit) -> np.ndarray:
    """Which patches show the image at least in part, and not the padding around it: bool (PATCHES, PATCHES)."""
    left, top, right, bottom = covered_box(width, height, size=size, fit=fit)
    # In pixels of the square: where the original's edges lie.
    x = np.array([-left, width - left]) / (right - left) * size
    y = np.array([-top, height - top]) / (bottom - top) * size
    edges = np.searchsorted(patch_of_pixels(size), np.arange(PATCHES + 1))
    inside_x = (edges[1:] > x[0] + 1e-6) & (edges[:-1] < x[1] - 1e-6)
    inside_y = (edges[1:] > y[0] + 1e-6) & (edges[:-1] < y[1] - 1e-6)
    shown: np.ndarray = inside_y[:, None] & inside_x[None, :]
    return shown


def center_prior() -> np.ndarray:
    """A map that knows the centre and nothing of the image: minus each patch's distance from it, float64 (PATCHES, PATCHES)."""
    offsets = np.arange(PATCHES) - (PATCHES - 1) / 2
    distances: np.ndarray = np.hypot(offsets[:, None], offsets[None, :])
    return -distances


def rank_correlation(one: np.ndarray, other: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Spearman's correlation of two maps of each image over the patches that show it, ties at their mean rank.

    Parameters
    ----------
    one, other : float (N, PATCHES, PATCHES).
    shown : bool (N, PATCHES, PATCHES).

    Returns
    -------
    float64 (N,) in [-1, 1]; NaN where a map is constant, and so ranks nothing.
    """
    correlations = np.empty(len(one))
    for position, (first, second, mask) in enumerate(zip(one, other, shown, strict=True)):
        ranks = [pd.Series(np.round(values[mask], 9)).rank() for values in (first, second)]
        correlations[position] = ranks[0].corr(ranks[1])
    return correlations
