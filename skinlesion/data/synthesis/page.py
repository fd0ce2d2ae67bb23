"""A page that shows what was drawn beside what the network was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from skinlesion.base.pictures import write_png
from skinlesion.diagnoses import DIAGNOSES

SAMPLES = 8  # images a row
WIDTH, HEADER, BLOCK = 8.5, 0.8, 4.0  # inches: of the page, above the diagnoses, of a diagnosis with its three rows
GAP = 0.05  # between two images, of an image's width
DPI = 90


@dataclass(frozen=True)
class Samples:
    """What is shown of a diagnosis; images uint8 (any number, size, size, 3), of which `SAMPLES` at most are shown.

    drawn : images that the network drew.
    training : images that it was trained on.
    reconstructed : what it makes of `training`.
    number, training_number : how many images were drawn, and trained on, in all.
    """

    dx: str
    drawn: np.ndarray
    training: np.ndarray
    reconstructed: np.ndarray
    number: int
    training_number: int


def draw_page(samples: Sequence[Samples], path: Path) -> None:
    """Draw three rows a diagnosis: drawn images, training images, reconstructions of these. Equal samples give equal bytes."""
    figure = Figure(figsize=(WIDTH, HEADER + len(samples) * BLOCK), layout="constrained")
    figure.suptitle("Synthetic images\ndrawn by a conditional VAE trained on the training list", fontsize=13)
    for part, sample in zip(figure.subfigures(len(samples), squeeze=False)[:, 0], samples, strict=True):
        plural = "image" if sample.training_number == 1 else "images"
        name = f"{DIAGNOSES[sample.dx]} ({sample.dx})"
        part.suptitle(f"{name}: {sample.number} drawn, {sample.training_number} training {plural}", fontsize=11)
        rows = {"drawn": sample.drawn, "training": sample.training, "reconstructed": sample.reconstructed}
        # One picture a row: an axes an image takes matplotlib seconds a page.
        for axes, (kind, images) in zip(part.subplots(3), rows.items(), strict=True):
            axes.imshow(_side_by_side(images[:SAMPLES]), interpolation="antialiased")
            axes.set_title(kind, loc="left", fontsize=11)
            axes.set_anchor("W")
            axes.set_axis_off()
    write_png(figure, path, dpi=DPI)


def _side_by_side(images: np.ndarray) -> np.ndarray:
    """Images (N, size, size, 3) as one of shape (size, width, 3), white between them."""
    size = images.shape[1]
    white = np.full((size, max(1, round(size * GAP)), 3), 255, dtype=np.uint8)
    return np.concatenate([part for pixels in images for part in (pixels, white)][:-1], axis=1)
