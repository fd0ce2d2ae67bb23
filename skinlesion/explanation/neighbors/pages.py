"""Pages of cases: each test image in a row with the training images nearest to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from skinlesion.base.pictures import write_png

Shares = Literal["truth", "prediction", "neither"]

# Told apart by line and by words, not by colour alone.
LineStyle = Literal["solid"] | tuple[float, tuple[float, float]]
FRAMES: dict[Shares, tuple[str, LineStyle, str]] = {
    "truth": ("#0072B2", "solid", "shares the truth"),
    "prediction": ("#D55E00", (0, (5, 2)), "shares the prediction"),
    "neither": ("0.35", (0, (1, 1.5)), "shares neither"),
}
ROWS_A_PAGE = 8
LEFT, CELL, ROW = 2.9, 2.25, 2.15  # inches: width of the test image's cell and of a neighbour's, height of a row
HEADER, FOOTER, TEXT, GAP = 0.72, 0.5, 0.47, 0.08  # inches; the text stands inside the cell
NARROWEST = 11.5  # inches, so that title and key fit
DPI = 90  # keeps a full page of photographs under 4 MB


@dataclass(frozen=True)
class Neighbor:
    """A training image: uint8 RGB (height, width, 3); at most two lines of about 26 characters; what it has in common."""

    image: np.ndarray
    title: str
    shares: Shares


@dataclass(frozen=True)
class CaseWithNeighbors:
    """A test image: uint8 RGB (height, width, 3); at most two lines of about 34 characters; its neighbours, nearest first."""

    image: np.ndarray
    title: str
    neighbors: Sequence[Neighbor]


def draw_pages(cases: Iterable[CaseWithNeighbors], folder: Path, *, title: str, neighbors: int) -> list[Path]:
    """Draw the cases, in their order, on as many pages as it takes: `neighbors_1.png`, `neighbors_2.png`, ...

    The cases are drawn a page at a time, so an iterator needs no more memory than that. The files hold no date and no software
    version: equal cases give equal bytes. Without a case, one page says so.

    neighbors : of each case, which decides the width.
    """
    arriving = iter(cases)

    def next_rows() -> list[CaseWithNeighbors]:
        return list(islice(arriving, ROWS_A_PAGE))

    pages: list[Path] = []
    for rows in chain([next_rows()], iter(next_rows, [])):
        path = folder / f"neighbors_{len(pages) + 1}.png"
        write_png(_draw_page(rows, title, neighbors), path, dpi=DPI)
        pages.append(path)
    return pages


def _draw_page(cases: Sequence[CaseWithNeighbors], title: str, neighbors: int) -> Figure:
    """One page: a title, a row a case, and below them what the frames mean."""
    width = max(NARROWEST, LEFT + neighbors * CELL)
    height = HEADER + max(1, len(cases)) * ROW + FOOTER
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.14 / height, title, ha="center", va="top", fontsize=13)
    for row, case in enumerate(cases):
        top = height - HEADER - row * ROW
        _draw_cell(figure, case.image, case.title, left=0, width=LEFT, top=top)
        for position, neighbor in enumerate(case.neighbors):
            left = LEFT + position * CELL
            _draw_cell(figure, neighbor.image, neighbor.title, left=left, width=CELL, top=top, shares=neighbor.shares)
    if not cases:
        figure.text(0.5, 0.5, "no case to show", ha="center", va="center", fontsize=12)
    else:
        # Apart from the test images, which have no frame.
        x = (LEFT + 0.02) / width
        figure.add_artist(Line2D([x, x], [FOOTER / height, 1 - (HEADER - 0.05) / height], color="0.75", linewidth=0.8))
    # What the frames mean.
    lines = [Line2D([], [], color=color, linestyle=line, linewidth=2.6, label=label) for color, line, label in FRAMES.values()]
    place = (0.5, 0.22 / height)
    figure.legend(handles=lines, loc="center", bbox_to_anchor=place, ncols=3, fontsize=11, frameon=False, handlelength=3.2)
    return figure


def _draw_cell(
    figure: Figure, image: np.ndarray, title: str, *, left: float, width: float, top: float, shares: Shares | None = None
) -> None:
    """An image below its title, in a frame where it has something to mark; `left`, `width` and `top` of the cell in inches."""
    page_width, page_height = figure.get_size_inches()
    figure.text((left + width / 2) / page_width, (top - 0.04) / page_height, title, ha="center", va="top", fontsize=9.5)
    depth, breadth = ROW - TEXT - GAP, width - 2 * GAP
    bounds = (left + GAP) / page_width, (top - TEXT - depth) / page_height, breadth / page_width, depth / page_height
    axes = figure.add_axes(bounds)
    axes.imshow(image, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(shares is not None)
        if shares is not None:
            color, line, _ = FRAMES[shares]
            spine.set(color=color, linestyle=line, linewidth=2.6)
