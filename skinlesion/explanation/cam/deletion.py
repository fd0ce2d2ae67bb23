"""Deletion and insertion: does the class's probability fall when what a map ranks first is taken away, and rise when it is shown?

Petsiuk, Das, Saenko, RISE, BMVC 2018, section 4.2, with a map's patches in place of its pixels, because single pixels taken away
here and there are noise that shows a network nothing, whatever the map. Deletion fills with the image's mean colour; insertion,
as there, starts from the blurred image. How fast either goes also depends on the grain of an order: fine cells, even random ones,
take more of an image's evidence away than coarse ones, so that areas of methods with different cells do not compare.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm import tqdm

from skinlesion.explanation.cam.patches import PATCHES, patch_of_pixels

# Probability of each image's class: uint8 images (N, size, size, 3) and their positions in the table, to float64 (N,).
Score = Callable[[torch.Tensor, np.ndarray], np.ndarray]

BLUR = 1 / 8  # standard deviation of the blur that insertion starts from, in sides of the square: a lesion is a stain then


def removal_ranks(heat: np.ndarray, shown: np.ndarray, *, seeds: Sequence[int]) -> np.ndarray:
    """Rank of each patch, from 0 for the one that a map ranks first.

    Equal values (a map's zeros) come in random order, patches that show no image last.

    Parameters
    ----------
    heat : float (N, PATCHES, PATCHES).
    shown : bool (N, PATCHES, PATCHES).
    seeds : of each image's random order.

    Returns
    -------
    int64 (N, PATCHES, PATCHES).
    """
    ranks = np.empty((len(heat), PATCHES * PATCHES), dtype=np.int64)
    for row, (values, mask, seed) in enumerate(zip(heat, shown, seeds, strict=True)):
        lottery = np.random.default_rng(seed).random(values.size)
        order = np.lexsort((lottery, -np.round(values.ravel(), 9), ~mask.ravel()))
        ranks[row, order] = np.arange(values.size)
    return ranks.reshape(-1, PATCHES, PATCHES)


def shares(steps: int) -> np.ndarray:
    """Shares of the shown patches that are taken away or shown, steps + 1 from 0 to 1."""
    return np.linspace(0, 1, steps + 1)


@dataclass(frozen=True)
class Ends:
    """Where curves begin and end: probabilities, float64 (N,), of the images as they are, in their mean colour, and blurred."""

    whole: np.ndarray
    gone: np.ndarray
    blurred: np.ndarray

    def some(self, positions: np.ndarray) -> "Ends":
        """Of those images alone."""
        return Ends(self.whole[positions], self.gone[positions], self.blurred[positions])


def measure_ends(score: Score, images: np.ndarray, rows: np.ndarray, shown: np.ndarray, *, batch_size: int) -> Ends:
    """The ends that the curves of these images have in any order; for the parameters see `curves`."""
    found = np.empty((3, len(rows)))
    for positions, batch in _batches(images, rows, batch_size, title="ends of the curves"):
        mask = _on_pixels(shown[positions], batch.shape[1])
        mean = _mean_color(batch, mask)
        altered = (batch, torch.where(mask, mean, batch), torch.where(mask, _blurred(batch, mask, mean), batch))
        found[:, positions] = [score(each, positions) for each in altered]
    return Ends(*found)


def curves(
    score: Score,
    images: np.ndarray,
    rows: np.ndarray,
    ranks: np.ndarray,
    shown: np.ndarray,
    ends: Ends,
    *,
    steps: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the class after each step of deletion and of insertion.

    Parameters
    ----------
    images : uint8 (M, size, size, 3); may be memory-mapped. rows : N positions in it.
    ranks, shown : see `removal_ranks`.
    ends : of `measure_ends`, which spare four passes a curve.
    steps : in each of which the same share of the shown patches goes.

    Returns
    -------
    Deletion and insertion, float64 (N, steps + 1) each, at `shares(steps)`.
    """
    deletion, insertion = (np.empty((len(rows), steps + 1)) for _ in range(2))
    deletion[:, 0], deletion[:, -1], insertion[:, 0], insertion[:, -1] = ends.whole, ends.gone, ends.blurred, ends.whole
    for positions, batch in _batches(images, rows, batch_size, title="deletion and insertion"):
        inside = _on_pixels(shown[positions], batch.shape[1])
        mean, outside = _mean_color(batch, inside), ~inside
        blurred = _blurred(batch, inside, mean)
        limits = shares(steps)[:, None] * shown[positions].sum(axis=(1, 2))
        for step, limit in list(enumerate(limits))[1:-1]:
            first = _on_pixels(ranks[positions] < np.round(limit)[:, None, None], batch.shape[1])
            deletion[positions, step] = score(torch.where(first, mean, batch), positions)
            insertion[positions, step] = score(torch.where(first | outside, batch, blurred), positions)
    return deletion, insertion


def _batches(images: np.ndarray, rows: np.ndarray, batch_size: int, *, title: str) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Positions among the rows, and their images, a batch at a time, with a progress bar of that title."""
    for start in tqdm(range(0, len(rows), batch_size), desc=title, unit="batch", disable=None):
        positions = np.arange(start, min(start + batch_size, len(rows)))
        yield positions, torch.from_numpy(np.array(images[rows[positions]]))


def area_under(curve: np.ndarray) -> np.ndarray:
    """Area under curves (N, steps + 1) over the share 0 to 1 by the trapezoidal rule, float64 (N,) in [0, 1]."""
    area: np.ndarray = np.trapezoid(curve, dx=1 / (curve.shape[1] - 1), axis=1)
    return area


def _on_pixels(chosen: np.ndarray, size: int) -> torch.Tensor:
    """Patches to pixels: bool (N, size, size, 1)."""
    patches = patch_of_pixels(size)
    return torch.from_numpy(chosen[:, patches][:, :, patches])[..., None]


def _mean_color(batch: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """The mean colour of what each square shows of its image, without the padding: uint8 (N, 1, 1, 3)."""
    total = (batch.float() * shown).sum(dim=(1, 2), keepdim=True)
    return (total / shown.sum(dim=(1, 2), keepdim=True)).round().to(torch.uint8)


def _blurred(batch: torch.Tensor, shown: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Blurred images, uint8 of the same shape; padding counts as the image's mean colour, or it would darken the border."""
    sigma = batch.shape[1] * BLUR
    # Three standard deviations either side, but no more than reflection at the edge allows.
    reach = min(int(3 * sigma), batch.shape[1] - 1)
    smooth = torch.where(shown, batch, mean).permute(0, 3, 1, 2).float()
    for kernel in ([2 * reach + 1, 1], [1, 2 * reach + 1]):  # along one side, then the other: at once, it is half of all the work
        smooth = gaussian_blur(smooth, kernel_size=kernel, sigma=[sigma] * 2)
    return smooth.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8)
