"""What the tests share of the tables and files that stages after training read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from skinlesion.artifacts.prepared import INDEX_COLUMNS, PREPARED
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, write_table

# A calibration that changes nothing, and what operating points of melanoma say besides their points.
UNCHANGED: dict[str, Any] = {
    "method": "temperature",
    "scale": [1.0] * 7,
    "bias": [0.0] * 7,
    "temperature": 1.0,
    "fitted_on": "val",
    "test_time": "none",
}
OF_MELANOMA: dict[str, Any] = {
    "target": "mel",
    "classes": ["mel"],
    "chosen_on": "val",
    "score": "sum of calibrated probabilities",
    "rule": "flag when score >= threshold",
}


def with_predictions(frame: pd.DataFrame, logits: np.ndarray, *, scale: float = 1.0) -> pd.DataFrame:
    """A list with logits, (images, 7), and the softmax of `scale` times them: a prediction table."""
    numbers = np.hstack([logits, softmax(scale * logits, axis=1)])
    return frame.join(pd.DataFrame(numbers, frame.index, [*LOGIT_COLUMNS, *PROBABILITY_COLUMNS]))


def write_prepared(image_ids: Iterable[str], images: np.ndarray) -> None:
    """Write `data/prepared` of images, (N, size, size, 3) of any type, cut to 0 to 255."""
    PREPARED.mkdir(parents=True, exist_ok=True)
    np.save(PREPARED / "images.npy", np.clip(images, 0, 255).astype(np.uint8))
    index = pd.DataFrame({"image_id": list(image_ids), "width": 40, "height": 30, "fit": "squash", "color_constancy": "none"})
    write_table(index, PREPARED / "index.csv", INDEX_COLUMNS)
