"""What the pages of cases are found by: a picture for `dvc plots show`, and a page in HTML that links to them."""

import base64
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from skinlesion.base.files import atomic_file
from skinlesion.base.pictures import write_png
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.explanation.cam.cases import KINDS, SHOWN_CLASSES
from skinlesion.explanation.cam.panels import CASE_WIDTH, DPI, MARGIN, Case, add_axes, add_color_bar, outline, overlay, start_page

HEADING = "Where the network looked, case by case"
NO_CASES = (
    "No case to show: no melanoma of the split was missed, and gradcam.confident_errors, gradcam.unsure_correct and "
    "gradcam.typical_correct choose no other."
)
SYNTHETIC = "Synthetic sample: figures say nothing about real skin"

THUMBNAILS = 5  # of a class
THUMBNAIL_BOX = (200, 150)  # pixels: width and height at most
JPEG_QUALITY = 85

# Inches, of the picture.
TEXT_WIDTH, ROW_HEIGHT, CAPTION_HEIGHT, FOOTER = 3.75, 2.05, 0.4, 0.62


@dataclass(frozen=True)
class Thumbnail:
    """A case in small.

    pixels : uint8 RGB, at most 150 x 200: the map of the predicted class over the image, with the lesion's outline.
    caption : two lines: number and image; kind, what an error was predicted to be, and the prediction's probability.
    """

    image_id: str
    dx: str
    page: str
    pixels: np.ndarray
    caption: tuple[str, str]


@dataclass(frozen=True)
class ClassRow:
    """What the index says of the cases of one true diagnosis: how many of each kind, and on which pages they are."""

    dx: str
    name: str
    counts: Mapping[str, int]
    pages: tuple[str, ...]
    thumbnails: tuple[Thumbnail, ...]


def first_of_each_class(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that stand for their class in the index: of each true diagnosis the first `THUMBNAILS`."""
    return cases.sort_values("position").groupby("dx", sort=False).head(THUMBNAILS)


def make_thumbnail(case: Case) -> Thumbnail:
    """A case in small."""
    height, width = case.predicted_map.shape
    picture = Image.fromarray(overlay(case.image, case.predicted_map))
    picture.thumbnail(THUMBNAIL_BOX, Image.Resampling.BOX)
    scale = np.array(picture.size) / (width, height)
    draw = ImageDraw.Draw(picture)
    for color, line_width in (("black", 4), ("white", 2)):  # shows on any ground
        for points in outline(case.lesion):
            draw.line([tuple(point) for point in (points + 0.5) * scale - 0.5], fill=color, width=line_width)
    predicted = f"{case.predicted} " if case.predicted != case.dx else ""
    caption = (f"{case.position}. {case.image_id}", f"{case.kind}: {predicted}{case.probabilities.max():.2f}")
    return Thumbnail(case.image_id, case.dx, case.page, np.asarray(picture), caption)


def class_rows(cases: pd.DataFrame, thumbnails: Iterable[Thumbnail]) -> list[ClassRow]:
    """The rows of the index, melanoma first, also of diagnoses without a case.

    Parameters
    ----------
    cases : a row a case: `dx`, `kind`, `page`, `position`.
    thumbnails : of the first cases of each class, in their order.
    """
    small = list(thumbnails)
    rows = []
    for dx in SHOWN_CLASSES:
        of_class = cases[cases["dx"] == dx].sort_values("position")
        counts = {kind: int((of_class["kind"] == kind).sum()) for kind in KINDS}
        shown = tuple(thumbnail for thumbnail in small if thumbnail.dx == dx)
        rows.append(ClassRow(dx, DIAGNOSES[dx], counts, tuple(of_class["page"].unique()), shown))
    return rows


def draw_index(rows: Sequence[ClassRow], path: Path, *, title: str) -> None:
    """Write the picture: a row a diagnosis with counts, names of pages and thumbnails; equal input, equal bytes."""
    has_cases = any(row.pages for row in rows)
    content = len(rows) * ROW_HEIGHT + FOOTER if has_cases else 1.0
    figure = start_page(HEADING, title, content=content)
    height = figure.get_size_inches()[1]
    if has_cases:
        for number, row in enumerate(rows):
            _draw_row(figure, row, top=content - number * ROW_HEIGHT)
        _draw_legend(figure, height)
    else:
        figure.text(0.5, 0.5 / height, "\n".join(textwrap.wrap(NO_CASES, 100)), ha="center", va="center", fontsize=12)
    write_png(figure, path, dpi=DPI)


def _draw_row(figure: Figure, row: ClassRow, *, top: float) -> None:
    """A diagnosis: on the left what there is, on the right its first cases; `top` in inches."""
    height = figure.get_size_inches()[1]
    name = textwrap.wrap(f"{row.name} ({row.dx})", 32)
    figure.text(MARGIN / CASE_WIDTH, top / height, "\n".join(name), va="top", fontsize=13, fontweight="bold")
    lines = [f"{kind}: {count:,}" for kind, count in row.counts.items() if count] or ["no case"]
    if row.pages:
        lines.append(row.pages[0] if len(row.pages) == 1 else f"{row.pages[0]} to {row.pages[-1]}")
    figure.text(MARGIN / CASE_WIDTH, (top - 0.06 - len(name) * 0.23) / height, "\n".join(lines), va="top", fontsize=11.5)
    cell = (CASE_WIDTH - TEXT_WIDTH) / THUMBNAILS
    panel = ROW_HEIGHT - CAPTION_HEIGHT - 0.15
    for column, thumbnail in enumerate(row.thumbnails):
        left = TEXT_WIDTH + column * cell
        axes = add_axes(figure, left, top - panel, cell - 0.1, panel)
        axes.imshow(thumbnail.pixels, interpolation="antialiased")
        axes.set_axis_off()
        axes.set_anchor("N")
        center = (left + (cell - 0.1) / 2) / CASE_WIDTH
        figure.text(center, (top - panel - 0.03) / height, "\n".join(thumbnail.caption), ha="center", va="top", fontsize=9.5)


def _draw_legend(figure: Figure, height: float) -> None:
    """What the thumbnails' colours and lines are."""
    text = (
        "map of the predicted class over the image's greys, outlined the lesion's mask where there is one;\n"
        "each map on a scale of its own: 0 no evidence, 1 where it is strongest in this image"
    )
    figure.text(MARGIN / CASE_WIDTH, 0.34 / height, text, va="center", fontsize=10.5)
    add_color_bar(figure, 9.2, 0.3, 2.4)


def write_index(rows: Sequence[ClassRow], cases: pd.DataFrame, path: Path, *, title: str, synthetic: bool) -> None:
    """Write the page: the rows with links to the pages, and the table of cases; it needs neither network nor script.

    Parameters
    ----------
    cases : a row a case in their order: what `cases.csv` holds, `age` (years, NaN where unknown), `sex` and `localization`.
    path : beside the pages, which are linked by name.
    """
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["as_jpeg"] = _as_jpeg
    text = environment.get_template("index_page.html").render(
        heading=HEADING,
        title=title,
        banner=SYNTHETIC if synthetic else None,
        no_cases=NO_CASES,
        rows=rows,
        cases=list(cases.itertuples()),
        names=DIAGNOSES,
    )
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _as_jpeg(pixels: np.ndarray) -> str:
    """A picture as a `data:` address, so that the page is one file."""
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, format="JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(memory.getvalue()).decode('ascii')}"
