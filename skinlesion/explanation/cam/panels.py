"""One case of a page: the image, the maps of the predicted and of the true class, and the probabilities of all seven."""

import textwrap
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from contourpy import LineType, contour_generator
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from skinlesion.diagnoses import CLASSES

# Monotone in lightness, so that it reads without colour vision, and no part of it is as grey as the image below.
COLOR_MAP = mpl.colormaps["viridis"]
LINE_LENGTH = 135  # characters of a title that fit in a line
MAP_WEIGHT = 0.5  # of the map's colours; the rest is the image's greys

DPI = 88  # keeps a full page of photographs under 2 MB

# Inches. A case is a row: three panels, then the bars with their labels on the left.
CASE_WIDTH, CASE_HEIGHT = 14.2, 2.6
HEADING_HEIGHT, LINE_HEIGHT = 0.5, 0.22
CAPTION_HEIGHT, TITLE_HEIGHT, PANEL_HEIGHT = 0.32, 0.2, 1.96
MARGIN, PANEL_WIDTH, GAP = 0.15, 2.63, 0.1
BARS_LEFT, BARS_WIDTH, BARS_HEIGHT, AXIS_HEIGHT = 9.1, 3.1, 1.84, 0.32

OTHER, PREDICTED, TRUE = "0.78", "#D55E00", "#0072B2"
HATCH = "////"  # of the true class, so that it is told without colour


@dataclass(frozen=True)
class Case:
    """One case as it is drawn.

    image_id, kind, dx, predicted, position, page : as in `cases.csv`.
    age : in years, NaN where unknown; sex, localization : 'unknown' where they are.
    probabilities : calibrated, in the order of `CLASSES`, shape (7,).
    image : uint8 RGB, shape (height, width, 3).
    predicted_map : float in [0, 1], shape (height, width): of the predicted class, on the original's pixels.
    true_map : the same of the true class; None where the prediction is right, and one map says it all.
    lesion : bool, shape (height, width), or None without a mask.
    """

    image_id: str
    kind: str
    dx: str
    predicted: str
    position: int
    page: str
    age: float
    sex: str
    localization: str
    probabilities: np.ndarray
    image: np.ndarray
    predicted_map: np.ndarray
    true_map: np.ndarray | None
    lesion: np.ndarray | None


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float = MAP_WEIGHT) -> np.ndarray:
    """The map's colours over the image's greys, uint8 RGB: with the colours gone, every hue is the map's.

    image : uint8 RGB. heat : float from 0 to 1 or uint8, of the image's height and width. opacity : of the colours, 0 to 1.
    """
    grey = image @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601 luma
    colors = COLOR_MAP(heat, bytes=True)[..., :3].astype(np.float32)
    blended: np.ndarray = np.round(opacity * colors + (1 - opacity) * grey[..., None])
    return blended.astype(np.uint8)


def describe_patient(case: Case) -> str:
    """Age, sex and site of a case in words."""
    age = "unknown" if np.isnan(case.age) else f"{case.age:g} years"
    return f"age {age}, sex {case.sex}, site {case.localization}"


def draw_case(figure: Figure, case: Case, *, top: float, height: float) -> None:
    """Draw a case into the row of a page that begins `top` inches above the bottom of a figure of `height` inches."""
    above = (top - 0.04) / height
    name = f"{case.position}. {case.image_id}: {case.kind}"
    figure.text(MARGIN / CASE_WIDTH, above, name, va="top", fontsize=11.5, fontweight="bold")
    figure.text(1 - MARGIN / CASE_WIDTH, above, describe_patient(case), ha="right", va="top", fontsize=11)
    panels_top = top - CAPTION_HEIGHT - TITLE_HEIGHT
    panels = [("image", case.image)]
    for title, heat in (
        (f"map for the prediction, {case.predicted}", case.predicted_map),
        (f"map for the truth, {case.dx}", case.true_map),
    ):
        if heat is not None:
            panels.append((title if heat.any() else f"{title}: all zero", overlay(case.image, heat)))
    border = outline(case.lesion)
    for column in range(3):
        left = MARGIN + column * (PANEL_WIDTH + GAP)
        axes = add_axes(figure, left, panels_top - PANEL_HEIGHT, PANEL_WIDTH, PANEL_HEIGHT)
        axes.set_axis_off()
        if column == len(panels):
            text = f"prediction = truth, {case.dx}:\nthe map on the left\nis the map for both"
            axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=10)
            break
        title, pixels = panels[column]
        # A text of the figure: a title of the axes takes as long to place as all the rest to draw.
        center, above_panel = (left + PANEL_WIDTH / 2) / CASE_WIDTH, (panels_top + 0.04) / height
        figure.text(center, above_panel, title, ha="center", va="bottom", fontsize=10)
        axes.imshow(pixels, interpolation="antialiased")
        axes.set_anchor("N")
        for color, width in (("black", 2.4), ("white", 1.1)):  # shows on any ground
            axes.add_collection(LineCollection(border, colors=color, linewidths=width), autolim=False)
    bars = add_axes(figure, BARS_LEFT, panels_top - PANEL_HEIGHT + AXIS_HEIGHT, BARS_WIDTH, BARS_HEIGHT)
    _draw_bars(bars, case)


def start_page(heading: str, title: str, *, content: float) -> Figure:
    """A page with its heading and, below it, the title broken into lines; `content` is the height in inches below these."""
    lines = textwrap.wrap(title, LINE_LENGTH)
    height = HEADING_HEIGHT + len(lines) * LINE_HEIGHT + 0.1 + content
    figure = Figure(figsize=(CASE_WIDTH, height))
    figure.text(0.5, 1 - 0.14 / height, heading, ha="center", va="top", fontsize=17, fontweight="bold")
    figure.text(0.5, 1 - HEADING_HEIGHT / height, "\n".join(lines), ha="center", va="top", fontsize=12)
    return figure


def add_color_bar(figure: Figure, left: float, bottom: float, width: float) -> None:
    """The scale of every map; its place in inches."""
    bar = add_axes(figure, left, bottom, width, 0.14)
    figure.colorbar(ScalarMappable(cmap=COLOR_MAP), cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.tick_params(labelsize=9)


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes whose place is given in inches."""
    across, along = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / along, width / across, height / along))


def outline(lesion: np.ndarray | None) -> list[np.ndarray]:
    """The lesion's border: lines of points (x, y) in pixels; none without a mask or a border."""
    if lesion is None or lesion.all() or not lesion.any():
        return []
    contours = contour_generator(z=lesion.astype(np.float32), line_type=LineType.Separate)
    return [np.asarray(line) for line in contours.lines(0.5)]


def _draw_bars(axes: Axes, case: Case) -> None:
    """The probabilities in the classes' order, from above; prediction and truth are told by words, hatching and colour."""
    for row, (dx, probability) in enumerate(zip(CLASSES, case.probabilities, strict=True)):
        is_predicted, is_true = dx == case.predicted, dx == case.dx
        color = PREDICTED if is_predicted else TRUE if is_true else OTHER
        axes.barh(row, probability, color=color, hatch=HATCH if is_true else None, edgecolor="white" if is_true else color)
        roles = [role for role, plays in (("predicted", is_predicted), ("true", is_true)) if plays]
        label = f"{probability:.2f}{' ' if roles else ''}{' and '.join(roles)}"
        axes.text(probability + 0.015, row, label, va="center", fontsize=9, fontweight="bold" if roles else "normal")
    axes.set_yticks(range(len(CLASSES)), CLASSES, fontsize=9)
    axes.set_ylim(len(CLASSES) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=9)
    axes.set_xlabel("calibrated probability", fontsize=9, labelpad=1)
    axes.set_ylabel("diagnosis", fontsize=9, labelpad=2)
    axes.tick_params(length=2, pad=2)
    axes.spines[["top", "right"]].set_visible(False)
