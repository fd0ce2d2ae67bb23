"""Heat maps as pictures: alone, and over the image's greys. The colours are those of the pages of the stage `gradcam`."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from skinlesion.explanation.cam.panels import COLOR_MAP, MAP_WEIGHT

OPACITY = MAP_WEIGHT
# Of the legend, from nothing to most: five colours of the map.
LEGEND = ", ".join("#{:02x}{:02x}{:02x}".format(*COLOR_MAP(share, bytes=True)[:3]) for share in (0.0, 0.25, 0.5, 0.75, 1.0))


def colors(heat: np.ndarray) -> Image.Image:
    """A map, uint8 (H, W) from 0 to 255, in colours."""
    return Image.fromarray(COLOR_MAP(heat, bytes=True)[..., :3])


def overlay(image: Image.Image, heat: np.ndarray, *, opacity: float) -> Image.Image:
    """The map's colours over the image's greys: with the colours gone, every hue is the map's.

    image : RGB. heat : uint8 (H, W) of the image's size. opacity : of the map's colours, 0 to 1.
    """
    return Image.blend(image.convert("L").convert("RGB"), colors(heat), opacity)


def data_uri(image: Image.Image) -> str:
    """A picture as a JPEG within a page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
