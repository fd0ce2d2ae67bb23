"""The originals behind the prepared images, and their lesion masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from skinlesion.artifacts import RAW, image_path, mask_path
from skinlesion.errors import PipelineError


def read_image(image_id: str, *, width: int, height: int, raw: Path = RAW) -> np.ndarray:
    """An original in the size that `prepare` saw, uint8 RGB of shape (height, width, 3).

    Raises
    ------
    PipelineError
        The image is not readable, or its size is another one by now.
    """
    path = image_path(image_id, raw)
    try:
        with Image.open(path) as file:
            image = np.asarray(file.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise PipelineError(f"image {path} is not readable ({error}): run `download` again") from None
    if image.shape[:2] != (height, width):
        raise PipelineError(f"{path} has changed its size since `prepare`: run `prepare` again")
    return image


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
    try:
        with Image.open(path) as image:
            mask = np.asarray(image.convert("L")) > 127
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise PipelineError(f"mask {path} is not readable ({error}): run `download` again, or delete the mask") from None
    if mask.shape != (height, width):
        raise PipelineError(
            f"mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels and its image {width} x {height}: "
            "masks must have their image's size; correct or delete it"
        )
    return mask
