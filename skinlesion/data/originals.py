"""The originals behind the prepared images, and their lesion masks."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from skinlesion.artifacts.raw import RAW, image_path, mask_path
from skinlesion.base.decoding import decode_picture
from skinlesion.base.errors import PipelineError, reason_of

# What Pillow raises for a file that is no image of its kind, is broken, or claims more pixels than memory holds.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError, struct.error),
    *(zlib.error, Image.DecompressionBombError),
)


def read_image(image_id: str, *, width: int, height: int, raw: Path = RAW) -> np.ndarray:
    """An original in the size that `prepare` saw, uint8 RGB of shape (height, width, 3).

    Raises
    ------
    PipelineError
        The image is not readable, or its size is another one by now.
    """
    path = image_path(image_id, raw)

    def pixels(file: Image.Image) -> np.ndarray:
        if file.size != (width, height):
            raise PipelineError(f"{path} has changed its size since `prepare`: run `prepare` again")
        return np.asarray(file.convert("RGB"))

    try:
        return decode_picture(path.read_bytes(), ["JPEG"], pixels)
    except UNREADABLE as error:
        raise PipelineError(f"image {path} is not readable ({reason_of(error)}): run `download` again") from None


def read_mask(image_id: str, *, width: int, height: int, raw: Path = RAW) -> np.ndarray | None:
    """The lesion's mask on the original's pixels, bool of shape (height, width); None if the source has none for it.

    Raises
    ------
    PipelineError
        The mask is not readable, or is not of the image's size.
    """
    path = mask_path(image_id, raw)
    if not path.exists():
        return None

    def inside(image: Image.Image) -> np.ndarray:
        if image.size != (width, height):
            raise PipelineError(
                f"mask {path} is {image.width} x {image.height} pixels and its image {width} x {height}: "
                "masks must have their image's size; correct or delete it"
            )
        return np.asarray(image.convert("L")) > 127

    try:
        return decode_picture(path.read_bytes(), ["PNG"], inside)
    except UNREADABLE as error:
        raise PipelineError(
            f"mask {path} is not readable ({reason_of(error)}): run `download` again, or delete the mask"
        ) from None
