"""How much an image of each class counts in the loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from skinlesion.diagnoses import CLASSES


def class_weights(counts: np.ndarray, *, scheme: str, beta: float, mean: str, multipliers: Mapping[str, float]) -> torch.Tensor:
    """Weights of the classes in the loss, float32 (7,), in the order of `CLASSES`.

    Parameters
    ----------
    counts : (7,), n_c, the training images of each class; whichever way they are sampled.
    scheme : `none`: 1 for every class. `inverse`: 1 / n_c. `sqrt_inverse`: its square root. `effective`:
        (1 - beta) / (1 - beta^n_c), the inverse of the effective number of images (Cui et al., Class-Balanced Loss Based on
        Effective Number of Samples, CVPR 2019). But for `none`, a class without an image has weight 0.
    beta : 0 to 1, both excluded; read by `effective`.
    mean : over which the weights have the mean 1: `images` (the sum of n_c w_c is the sum of n_c; `inverse` is then
        scikit-learn's `balanced`) or `classes` (those that have an image).
    multipliers : factors on chosen classes. They come last, so that with them the mean is no longer 1.

    Raises
    ------
    ValueError
        `counts` is not seven numbers from 0 on, or all are 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.shape != (len(CLASSES),) or (counts < 0).any() or not counts.any():
        raise ValueError(
            f"counts must hold the training images of {len(CLASSES)} classes, at least one in all: {counts.tolist()}"
        )
    weights = np.ones(len(CLASSES)) if scheme == "none" else _of_frequency(counts, scheme=scheme, beta=beta, mean=mean)
    factors = np.array([multipliers.get(name, 1.0) for name in CLASSES])
    return torch.tensor(weights * factors, dtype=torch.float32)


def _of_frequency(counts: np.ndarray, *, scheme: str, beta: float, mean: str) -> np.ndarray:
    """Normalised weights, float64 (7,)."""
    present = counts > 0
    images = counts[present]
    weights = np.zeros(len(counts))
    weights[present] = {
        "inverse": 1 / images,
        "sqrt_inverse": 1 / np.sqrt(images),
        "effective": (1 - beta) / -np.expm1(images * np.log(beta)),
    }[scheme]
    return weights / np.average(weights, weights={"images": counts, "classes": present}[mean])
