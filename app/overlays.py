"""Heat maps as pictures: alone, and over the image's greys. The colours are those of the pages of the stage `gradcam`."""

import base64
import io

import numpy as np
from PIL import Image

from skinlesion.explanation.cam import panels

OPACITY = panels.MAP_WEIGHT
# Of the legend, from nothing to most: five colours of the map.
LEGEND = ", ".join(
    "#{:02x}{:02x}{:02x}".format(*panels.COLOR_MAP(share, bytes=True)[:3]) for share in (0.0, 0.25, 0.5, 0.75, 1.0)
)


def overlay(image: Image.Image, heat: np.ndarray, *, opacity: float) -> Image.Image:
    """`skinlesion.explanation.cam.panels.overlay` of Pillow's images."""
    return Image.fromarray(panels.overlay(np.asarray(image), heat, opacity))


def data_uri(image: Image.Image) -> str:
    """A picture as a JPEG within a page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
