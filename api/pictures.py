"""Heat maps as PNG."""

import io
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from skinlesion.explanation.cam.panels import COLOR_MAP, overlay

LINE = "Not for clinical use"
LINE_HEIGHT = 20  # pixels of the strip that it has below a map
LONG_SIDE = 1024  # pixels of a picture at most; a map has some dozen cells a side, and nothing more to show


def draw_map(image: Image.Image, heat: np.ndarray, *, kind: Literal["overlay", "map"], opacity: float, comment: str) -> bytes:
    """A map in colours, alone or over the image's greys as on the pages of the stage `gradcam`, as PNG.

    A strip of `LINE_HEIGHT` pixels below it has the text `LINE`; a map that is narrower than the text gets a white margin.

    heat : float (height, width) from 0 to 1, on the pixels of the image. opacity : of the colours, 0 to 1.
    comment : text that is written into the file.
    """
    colors = overlay(np.asarray(image), heat, opacity) if kind == "overlay" else COLOR_MAP(heat, bytes=True)[..., :3]
    text = PngInfo()
    text.add_text("Comment", comment)
    file = io.BytesIO()
    _with_line(Image.fromarray(colors)).save(file, format="PNG", pnginfo=text, compress_level=1)
    return file.getvalue()


def _with_line(picture: Image.Image) -> Image.Image:
    """The picture, unchanged, with `LINE` below it, so that every copy has it."""
    font = ImageFont.load_default(14)
    width = max(picture.width, round(font.getlength(LINE)) + 6)
    whole = Image.new("RGB", (width, picture.height + LINE_HEIGHT), "white")
    whole.paste(picture, (0, 0))
    ImageDraw.Draw(whole).text((3, picture.height + LINE_HEIGHT / 2), LINE, fill="black", font=font, anchor="lm")
    return whole
