"""A page that shows one image under every corruption, at every severity."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from skinlesion.audits.robustness.corruptions import STRENGTHS, corrupt
from skinlesion.base.files import atomic_file
from skinlesion.base.pictures import write_png
from skinlesion.config.audits import Corruption

CELL, GAP, CAPTION, LEFT, TOP = 1.36, 0.06, 0.22, 1.1, 0.34  # inches: a panel's side, between panels, below one, at the edges
DPI = 100

CAPTIONS: dict[Corruption, str] = {
    "brightness": "{0:g} or 1 / {0:g}",
    "contrast": "{0:g} or 1 / {0:g}",
    "hue": "± {:g} of the circle",
    "blur": "{:.2%} of the side",
    "jpeg": "quality {:g}",
    "noise": "sd {:g} of the range",
    "rotation": "± {:g}°",
    "hair": "{:g} hairs",
}


def draw_corruption_page(
    image: np.ndarray, image_id: str, corruptions: Sequence[Corruption], severities: Sequence[int], path: Path, *, seed: int
) -> None:
    """Draw a row a corruption: the image as it is, then at each severity. Equal input gives equal bytes.

    Parameters
    ----------
    image : uint8 (size, size, 3).
    path : the PNG file to write.
    seed : as in `skinlesion.audits.robustness.corruptions.corrupt`; the image is shown as it is measured.
    """
    width = LEFT + (len(severities) + 1) * (CELL + GAP)
    height = TOP + len(corruptions) * (CELL + CAPTION)
    figure = Figure(figsize=(width, height))
    for column, heading in enumerate(("clean", *(f"severity {severity}" for severity in severities))):
        left = LEFT + column * (CELL + GAP)
        figure.text((left + CELL / 2) / width, 1 - 0.2 / height, heading, ha="center", va="center", fontsize=11, weight="bold")
        for row, corruption in enumerate(corruptions):
            bottom = height - TOP - row * (CELL + CAPTION) - CELL
            axes = figure.add_axes((left / width, bottom / height, CELL / width, CELL / height))
            axes.set_axis_off()
            if column == 0:
                axes.imshow(image, interpolation="antialiased")
                figure.text(0.08 / width, (bottom + CELL / 2) / height, corruption, va="center", fontsize=11, weight="bold")
                continue
            strength = STRENGTHS[corruption][severities[column - 1] - 1]
            axes.imshow(
                corrupt(image[None], [image_id], corruption, strength=strength, seed=seed)[0], interpolation="antialiased"
            )
            caption = CAPTIONS[corruption].format(strength)
            figure.text((left + CELL / 2) / width, (bottom - 0.13) / height, caption, ha="center", va="baseline", fontsize=8)
    with atomic_file(path) as partial:
        write_png(figure, partial, dpi=DPI)
