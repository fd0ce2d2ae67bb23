"""The pointing game: does a map's peak lie on the lesion, and would the image's centre?

Zhang et al., Top-down Neural Attention by Excitation Backprop, IJCV 2018, section 4.2, here without their tolerance of 15 pixels.
Lesions are photographed in the middle, so that a map must be held against a guess that always says "the centre".
"""

import math

import numpy as np


def points_at(placed: np.ndarray, lesion: np.ndarray) -> float:
    """Whether the strongest pixel of a map lies on the lesion.

    Parameters
    ----------
    placed : float map >= 0 on an image's pixels, shape (h, w). lesion : bool, the same shape.

    Returns
    -------
    1 or 0; where several pixels are the strongest, the share of them on the lesion; NaN where the map is zero everywhere or the
    lesion has no pixel.
    """
    if not placed.any() or not lesion.any():
        return math.nan
    return float(lesion[placed >= placed.max() * (1 - 1e-9)].mean())


def center_hits(lesion: np.ndarray) -> float:
    """The same of the centre of the image: of one pixel, or of the two or four that share it. NaN for an empty lesion."""
    if not lesion.any():
        return math.nan
    height, width = lesion.shape
    rows, columns = (slice((side - 1) // 2, side // 2 + 1) for side in (height, width))
    return float(lesion[rows, columns].mean())
