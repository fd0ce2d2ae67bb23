"""The chosen cases as files: their pages, the index of these in two forms, and the table."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import PROBABILITY_COLUMNS, write_table
from skinlesion.data.originals import read_image, read_mask
from skinlesion.explanation.cam.index import class_rows, draw_index, first_of_each_class, make_thumbnail, write_index
from skinlesion.explanation.cam.pages import draw_pages, in_page_order, name_pages
from skinlesion.explanation.cam.panels import Case

Placed = Callable[[Any], np.ndarray]  # a row of the table to the image's map on its original, float (height, width) in [0, 1]

CASE_COLUMNS = ("position", "image_id", "lesion_id", "dx", "predicted", "probability", "probability_true", "kind", "page")
DESCRIPTION = ("position", "image_id", "dx", "predicted", "kind", "page", "age", "sex", "localization")  # of a `Case`


def write_gallery(
    cases: pd.DataFrame, folder: Path, *, placed: Placed, placed_truth: Placed, title: str, synthetic: bool
) -> None:
    """Write pages (`mel_1.png`, ...), `index.png`, `index.html` and `cases.csv`.

    Cases are read and drawn a page at a time: memory does not grow with their number.

    Parameters
    ----------
    cases : of `cases.choose_cases`, with `age` (years, NaN where unknown), `sex` and `localization`, the
        calibrated probability of each class, and `width` and `height` of the original in pixels.
    folder : that exists.
    placed : gives the map of the predicted class. placed_truth : that of the true class; asked for errors only.
    title : what the maps are of. synthetic : the images are drawn ones, and the index says so.

    Raises
    ------
    PipelineError
        An image or a mask is not readable, or not of the size that was prepared.
    """
    cases = cases.assign(page=name_pages(cases["dx"]))
    draw_pages(_load_cases(in_page_order(cases), placed, placed_truth), folder, title=title)
    first = _load_cases(first_of_each_class(cases), placed, placed_truth)
    rows = class_rows(cases, (make_thumbnail(case) for case in first))
    draw_index(rows, folder / "index.png", title=title)
    write_index(rows, cases, folder / "index.html", title=title, synthetic=synthetic)
    write_table(cases, folder / "cases.csv", CASE_COLUMNS)


def _load_cases(cases: pd.DataFrame, placed: Placed, placed_truth: Placed) -> Iterator[Case]:
    """Each case with its original, and with its maps on the original's pixels."""
    for row in cases.itertuples():
        pixels = {"width": row.width, "height": row.height}
        yield Case(
            **{name: getattr(row, name) for name in DESCRIPTION},
            probabilities=np.array([getattr(row, name) for name in PROBABILITY_COLUMNS]),
            image=read_image(row.image_id, **pixels),
            predicted_map=placed(row),
            true_map=placed_truth(row) if row.outcome == "wrong" else None,
            lesion=read_mask(row.image_id, **pixels),
        )
