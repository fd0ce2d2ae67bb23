"""Drawn images for a first try, one a diagnosis, as the embedded sample draws them; made in memory."""

import io
from functools import cache

import numpy as np

from skinlesion.data.sample.view import draw_views
from skinlesion.diagnoses import CLASSES, DIAGNOSES

SEED = 36  # with which no lesion is a blend of two diagnoses
WIDTH, HEIGHT = 400, 300  # pixels


@cache
def draw_example(dx: str) -> bytes:
    """The drawn image of a diagnosis, a PNG; always the same."""
    seeds = np.random.SeedSequence([SEED, CLASSES.index(dx)])
    [(picture, _)] = draw_views(dx, seeds, views=1, width=WIDTH, height=HEIGHT)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def name_example(dx: str) -> str:
    """How it is called in place of a file's name."""
    return f"Drawn example: {DIAGNOSES[dx]}"
