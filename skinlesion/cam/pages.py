"""Pages of examples: each original beside the map of its predicted class, in the original's geometry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Monotone in lightness, so that it reads without colour vision, and no part of it is as grey as the image below.
COLOR_MAP = mpl.colormaps["viridis"]
MAP_WEIGHT = 0.5  # of the map's colours; the rest is the image's greys

COLUMNS = 4  # examples a row, two panels each
ROWS_A_PAGE = 7
WIDTH, HEADER, FOOTER = 16.0, 0.6, 0.68  # inches
CELL_HEIGHT, TITLE_HEIGHT = 1.96, 0.43  # inches; the title stands inside the cell
DPI = 90  # keeps a full page of photographs under 2 MB


@dataclass(frozen=True)
class Example:
    """One example of a page.

    image : uint8 RGB, shape (height, width, 3).
    heat : float in [0, 1], shape (height, width): the map on the original's pixels.
    lesion : bool, shape (height, width), or None without a mask.
    title : at most two lines of about 40 characters.
    """

    image: np.ndarray
    heat: np.ndarray
    lesion: np.ndarray | None
    title: str


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The map's colours over the image's greys, uint8 RGB: with the colours gone, every hue is the map's."""
    grey = (image @ np.array([0.299, 0.587, 0.114])) / 255  # ITU-R BT.601 luma
    blended = MAP_WEIGHT * COLOR_MAP(heat)[..., :3] + (1 - MAP_WEIGHT) * grey[..., None]
    return np.round(blended * 255).astype(np.uint8)


def draw_pages(examples: Iterable[Example], folder: Path, *, title: str) -> list[Path]:
    """Draw the examples, in their order, on as many pages as it takes: `examples.png`, `examples_2.png`, ...

    The examples are drawn a page at a time, so an iterator needs no more memory than that. The files hold no date and no
    software version: equal examples give equal bytes. Without an example, one page says so.
    """
    pages: list[Path] = []
    for chunk in _chunks(examples, COLUMNS * ROWS_A_PAGE):
        path = folder / ("examples.png" if not pages else f"examples_{len(pages) + 1}.png")
        _draw_page(chunk, title).savefig(path, dpi=DPI, metadata={"Software": None})
        pages.append(path)
    return pages


def _chunks(examples: Iterable[Example], length: int) -> Iterator[list[Example]]:
    """Lists of `length` examples, the last one shorter; one empty list if there are none."""
    iterator = iter(examples)
    chunk = list(islice(iterator, length))
    while True:
        yield chunk
        chunk = list(islice(iterator, length))
        if not chunk:
            return


def _draw_page(examples: Sequence[Example], title: str) -> Figure:
    """One page: a title, the examples in rows, and below them what colours and lines mean."""
    rows = max(1, -(-len(examples) // COLUMNS))
    height = HEADER + rows * CELL_HEIGHT + FOOTER
    figure = Figure(figsize=(WIDTH, height))
    figure.text(0.5, 1 - 0.16 / height, title, ha="center", va="top", fontsize=15)
    for position, example in enumerate(examples):
        row, column = divmod(position, COLUMNS)
        top = height - HEADER - row * CELL_HEIGHT
        _draw_example(figure, example, left=column * WIDTH / COLUMNS, top=top, height=height)
    if not examples:
        figure.text(0.5, 0.5, "no example to show", ha="center", va="center", fontsize=12)
    _draw_legend(figure, height, with_lesions=any(example.lesion is not None for example in examples))
    return figure


def _draw_example(figure: Figure, example: Example, *, left: float, top: float, height: float) -> None:
    """An example's title and its two panels; `left` and `top` of its cell in inches, `height` of the figure."""
    cell = WIDTH / COLUMNS
    figure.text((left + cell / 2) / WIDTH, (top - 0.03) / height, example.title, ha="center", va="top", fontsize=10.5)
    panel, depth, gap = cell / 2 - 0.09, CELL_HEIGHT - TITLE_HEIGHT - 0.04, 0.06
    for side, pixels in enumerate((example.image, overlay(example.image, example.heat))):
        start = left + gap + side * (panel + gap)
        axes = figure.add_axes((start / WIDTH, (top - TITLE_HEIGHT - depth) / height, panel / WIDTH, depth / height))
        axes.imshow(pixels, interpolation="antialiased")
        axes.set_anchor("E" if side == 0 else "W")
        axes.set_axis_off()
        if side == 1 and example.lesion is not None:
            _draw_outline(axes, example.lesion)


def _draw_outline(axes: Axes, lesion: np.ndarray) -> None:
    """The lesion's border: white on black, so that it shows on any ground."""
    if lesion.all() or not lesion.any():
        return
    for color, width in (("black", 2.4), ("white", 1.1)):
        axes.contour(lesion.astype(float), levels=[0.5], colors=color, linewidths=width)


def _draw_legend(figure: Figure, height: float, *, with_lesions: bool) -> None:
    """The colour bar, and the key to the outline."""
    bar = figure.add_axes((0.29, 0.33 / height, 0.22, 0.13 / height))
    figure.colorbar(ScalarMappable(cmap=COLOR_MAP), cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.tick_params(labelsize=10)
    figure.text(
        0.28,
        0.395 / height,
        "evidence for the predicted class\n(0 none, 1 strongest in this image)",
        ha="right",
        va="center",
        fontsize=11,
    )
    if with_lesions:
        line = Line2D([], [], color="white", linewidth=1.6, label="outline of the lesion's mask")
        legend = figure.legend(handles=[line], loc="center left", bbox_to_anchor=(0.53, 0.395 / height), fontsize=11)
        legend.get_frame().set(facecolor="0.45", edgecolor="none")
        legend.get_texts()[0].set_color("white")
