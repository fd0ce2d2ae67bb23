"""Color constancy: the color of the light, estimated from an image and divided out of it."""

import math

import numpy as np

NORM = 6  # of Minkowski: between the mean (1, gray world) and the maximum (infinity, white patch)


def shades_of_gray(image: np.ndarray) -> np.ndarray:
    """Take the color of the light out of a uint8 RGB image (H, W, 3) by shades of gray; same shape and type out.

    The light's color is the Minkowski 6-norm of each channel (Finlayson and Trezzi, Shades of gray and color constancy,
    2004), scaled to unit length; each channel is divided by sqrt(3) times its own, so that gray light changes nothing (Barata
    et al., Improving dermoscopy image classification using color constancy, 2015). What then exceeds 255 is clipped. On the
    stored values, the display's gamma not undone. Black pixels have no say; a channel that is black everywhere stays so.
    """
    # 256 values a channel are all there is: counting and looking up costs less than powers of every pixel.
    counts = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])
    values = np.arange(256, dtype=np.float64)
    norms = ((counts * values**NORM).sum(axis=1) / counts.sum(axis=1)) ** (1 / NORM)
    light = math.sqrt(3) * norms / max(float(np.linalg.norm(norms)), np.finfo(float).tiny)
    gains = np.divide(1, light, out=np.ones(3), where=light > 0)
    table = np.minimum(np.rint(gains[:, None] * values), 255).astype(np.uint8)
    return np.stack([table[channel][image[..., channel]] for channel in range(3)], axis=-1)
