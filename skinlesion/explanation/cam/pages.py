"""Pages of cases, a set for each true diagnosis: `mel_1.png`, `mel_2.png`, ..."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from skinlesion.base.pictures import write_png
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.explanation.cam.cases import SHOWN_CLASSES
from skinlesion.explanation.cam.panels import (
    CASE_HEIGHT,
    CASE_WIDTH,
    DPI,
    HATCH,
    PREDICTED,
    TRUE,
    Case,
    add_color_bar,
    draw_case,
    start_page,
)

CASES_A_PAGE = 8
FOOTER = 0.78  # inches


def name_pages(diagnoses: pd.Series) -> pd.Series:
    """The page of each case, by its true diagnosis, the cases in the order in which they are shown."""
    numbers = diagnoses.groupby(diagnoses).cumcount() // CASES_A_PAGE + 1
    return diagnoses + "_" + numbers.astype("str") + ".png"


def in_page_order(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases class by class, melanoma first, in each class by `position`: as `draw_pages` wants them."""
    return cases.sort_values("position").sort_values("dx", key=lambda dx: dx.map(SHOWN_CLASSES.index), kind="stable")


def draw_pages(cases: Iterable[Case], folder: Path, *, title: str) -> list[Path]:
    """Draw the cases on the pages that they name, PNG files in `folder`, and give the pages' paths in their order.

    The cases of a page must follow one another. They are drawn a page at a time, so an iterator needs no more memory than
    that. The files hold no date and no software version: equal cases give equal bytes.

    Parameters
    ----------
    title : of what the maps are, on every page below its diagnosis; long ones are broken into lines.
    """
    pages = []
    for name, group in groupby(cases, key=lambda case: case.page):
        path = folder / name
        write_png(_draw_page(list(group), path.stem, title), path, dpi=DPI)
        pages.append(path)
    return pages


def _draw_page(cases: Sequence[Case], name: str, title: str) -> Figure:
    """One page: heading and title, the cases in rows, and below them what colours and lines mean."""
    content = len(cases) * CASE_HEIGHT + FOOTER
    dx, number = name.rsplit("_", 1)
    heading = f"{DIAGNOSES[dx]} ({dx}), page {number}"
    figure = start_page(heading[0].upper() + heading[1:], title, content=content)
    height = figure.get_size_inches()[1]
    for row, case in enumerate(cases):
        draw_case(figure, case, top=content - row * CASE_HEIGHT, height=height)
    _draw_legend(figure, height, with_lesions=any(case.lesion is not None for case in cases))
    return figure


def _draw_legend(figure: Figure, height: float, *, with_lesions: bool) -> None:
    """The colour bar, and the keys to bars and outline."""
    middle = 0.36 / height
    text = "evidence for the map's class, each map on a scale of its own:\n0 none, 1 where this map is strongest in this image"
    figure.text(0.012, middle, text, va="center", fontsize=10.5)
    add_color_bar(figure, 0.375 * CASE_WIDTH, 0.33, 0.15 * CASE_WIDTH)
    handles: list[Line2D | Patch] = [
        Patch(facecolor=PREDICTED, label="predicted"),
        Patch(facecolor=TRUE, edgecolor="white", hatch=HATCH, label="true (hatched)"),
    ]
    if with_lesions:
        handles.insert(0, Line2D([], [], color="white", linewidth=1.6, label="outline of the lesion's mask"))
    legend = figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.545, middle), ncols=3, fontsize=10.5)
    legend.get_frame().set(facecolor="0.3", edgecolor="none")
    for label in legend.get_texts():
        label.set_color("white")
