"""Occlusion sensitivity, a control that needs no gradients and no layer: what the score loses where the image is covered."""

from collections.abc import Callable

import torch
from torch.nn import functional

from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.receptive_field import tiled_centers

# The stride is an eighth of the side, which makes a cell of the map; a window covers two by two cells, a quarter of the side.
CELLS = 8
CELLS_A_WINDOW = 2

IMAGE = "image"


def image_cells(size: int) -> TargetLayer:
    """What stands for the layer: the image of `size` x `size` pixels, tiled by the map's cells, borders on whole pixels."""
    return TargetLayer(IMAGE, "channels_first", CELLS, tiled_centers(CELLS, size=size))


@torch.no_grad()
def occlusion_map(
    score: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, class_index: int, *, batch_size: int
) -> torch.Tensor:
    """Where covering an image makes a class less probable (Zeiler, Fergus, ECCV 2014, section 4.2).

    A square of a quarter of the side slides by an eighth of it, also over the borders, so that each cell is covered as often
    as any other. It is filled with the image's mean colour. The paper shows the probability itself; its logarithm also moves
    where a network is very sure.

    Parameters
    ----------
    score : float32 images (N, 3, size, size) to logits (N, classes).
    image : float32 (1, 3, size, size), normalised.
    class_index : position of the class in the logits.
    batch_size : covered copies a pass; changes speed and memory, not results.

    Returns
    -------
    float32 (CELLS, CELLS): the mean drop of the class's log-probability (nats) over the windows that cover a cell, 0 where
    it rises.
    """
    windows = _windows(image.shape[-1]).to(image.device)
    mean = image.mean(dim=(2, 3), keepdim=True)

    def log_probability(images: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax(score(images), dim=1)[:, class_index]

    covered = torch.cat([log_probability(torch.where(part[:, None], mean, image)) for part in windows.split(batch_size)])
    drops = (log_probability(image) - covered).view(1, 1, CELLS + CELLS_A_WINDOW - 1, -1)
    return functional.avg_pool2d(drops, CELLS_A_WINDOW, stride=1)[0, 0].relu()


def _windows(size: int) -> torch.Tensor:
    """What each window covers, row by row from the upper left: bool (windows, size, size)."""
    borders = torch.round(torch.arange(CELLS + 1) * size / CELLS)
    cells = torch.bucketize(torch.arange(size) + 0.5, borders) - 1  # of each pixel
    first = torch.arange(1 - CELLS_A_WINDOW, CELLS)[:, None]  # cell of each window, the first one beyond the border
    strips = (cells >= first) & (cells < first + CELLS_A_WINDOW)
    return (strips[:, None, :, None] & strips[None, :, None, :]).flatten(0, 1)
