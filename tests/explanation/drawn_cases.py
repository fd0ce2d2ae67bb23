"""Cases to be drawn, on plain images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam import panels


def make_case(width: int = 200, height: int = 150, **changes: Any) -> panels.Case:
    """An error on a plain image with a map that grows to the right, one that grows to the left, and a disc as lesion."""
    rows, columns = np.mgrid[:height, :width]
    lesion = (columns - width / 2) ** 2 + (rows - height / 2) ** 2 < (min(width, height) / 4) ** 2
    fields = {
        "image_id": "ISIC_0024306",
        "kind": "missed melanoma",
        "dx": "mel",
        "predicted": "akiec",
        "position": 1,
        "page": "mel_1.png",
        "age": 55.0,
        "sex": "female",
        "localization": "lower extremity",
        "probabilities": np.array([0.97, 0.0, 0.01, 0.0, 0.02, 0.0, 0.0]),
        "image": np.where(lesion[..., None], 90, 200).astype(np.uint8).repeat(3, axis=2),
        "predicted_map": columns / (width - 1),
        "true_map": 1 - columns / (width - 1),
        "lesion": lesion,
    }
    return panels.Case(**fields | changes)


def make_correct(**changes: Any) -> panels.Case:
    """A correct prediction, as sure as can be: the widest labels."""
    certain = np.eye(len(CLASSES))[CLASSES.index("mel")]
    defaults = {"predicted": "mel", "true_map": None, "probabilities": certain, "kind": "typical correct"}
    return make_case(**defaults | changes)


def grey_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file.convert("L"))
