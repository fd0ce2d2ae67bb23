"""A page that shows what was drawn beside what the network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from skinlesion.base.pictures import write_png
from skinlesion.diagnoses import DIAGNOSES

SAMPLES = 8  # images a row
CELL, LABEL, GAP, MARGIN = 1.1, 1.3, 0.05, 0.15  # inches: an image, the names of the rows, between images, to the right
HEADER, TITLE, FOOTER = 0.75, 0.42, 0.1  # inches: of the page, of a diagnosis, below the last row
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
    block = TITLE + 3 * (CELL + GAP)
    width, height = LABEL + SAMPLES * (CELL + GAP) + MARGIN, HEADER + len(samples) * block + FOOTER
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.13 / height, "Synthetic images", ha="center", va="top", fontsize=15)
    subtitle = "drawn by a conditional VAE trained on the training list"
    figure.text(0.5, 1 - 0.44 / height, subtitle, ha="center", va="top", fontsize=11)
    for position, sample in enumerate(samples):
        _draw_block(figure, sample, top=height - HEADER - position * block)
    write_png(figure, path, dpi=DPI)


def _draw_block(figure: Figure, sample: Samples, *, top: float) -> None:
    """A diagnosis, its upper edge at `top` inches."""
    width, height = figure.get_size_inches()
    plural = "image" if sample.training_number == 1 else "images"
    title = f"{DIAGNOSES[sample.dx]} ({sample.dx}): {sample.number} drawn, {sample.training_number} training {plural}"
    figure.text((LABEL + GAP) / width, (top - TITLE + 0.07) / height, title, va="bottom", fontsize=11)
    rows = {"drawn": sample.drawn, "training": sample.training, "reconstructed": sample.reconstructed}
    for number, (name, images) in enumerate(rows.items()):
        bottom = top - TITLE - (number + 1) * (CELL + GAP) + GAP
        figure.text((LABEL - 0.06) / width, (bottom + CELL / 2) / height, name, ha="right", va="center", fontsize=11)
        images = images[:SAMPLES]
        extent = len(images) * (CELL + GAP) - GAP
        # One picture a row: an axes an image takes matplotlib seconds a page.
        axes = figure.add_axes(((LABEL + GAP) / width, bottom / height, extent / width, CELL / height))
        axes.imshow(_side_by_side(images), interpolation="antialiased", aspect="auto")
        axes.set_axis_off()


def _side_by_side(images: np.ndarray) -> np.ndarray:
    """Images (N, size, size, 3) as one of shape (size, width, 3), white between them."""
    size = images.shape[1]
    white = np.full((size, max(1, round(size * GAP / CELL)), 3), 255, dtype=np.uint8)
    return np.concatenate([part for pixels in images for part in (pixels, white)][:-1], axis=1)
