"""What tests write in place of the stages before the one that they test, and how they read what it wrote."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from skinlesion.artifacts.prepared import INDEX_COLUMNS, PREPARED
from skinlesion.artifacts.splits import SplitFacts, write_splits
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, write_table
from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import Fit
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import read_predictions
from tests.conftest import WriteParams

# Of every image, where nothing of it matters.
PATIENT: dict[str, Any] = {"dx_type": "histo", "age": 50.0, "sex": "male", "localization": "back"}

Run = Callable[..., dict[str, Any]]


def write_prepared(ids: Iterable[str], pixels: np.ndarray, *, width: int = 40, height: int = 30, fit: Fit = "squash") -> None:
    """`data/prepared` of RGB squares, clipped to uint8; `width` and `height` are those of the originals."""
    PREPARED.mkdir(parents=True, exist_ok=True)
    np.save(PREPARED / "images.npy", np.clip(pixels, 0, 255).astype(np.uint8))
    index = pd.DataFrame({"image_id": list(ids), "width": width, "height": height})
    write_table(index.assign(fit=fit, color_constancy="none"), PREPARED / "index.csv", INDEX_COLUMNS)


def write_lists(splits: dict[str, pd.DataFrame], fingerprint: str = "f00d") -> None:
    """`data/splits` of the sample."""
    write_splits(splits, SplitFacts(fingerprint, "sample", True))


def with_logits(frame: pd.DataFrame, logits: np.ndarray, probabilities: np.ndarray | None = None) -> pd.DataFrame:
    """A prediction table: the images of a frame with their logits and, unless others are given, the softmax of these."""
    numbers = np.hstack([logits, softmax(logits, axis=1) if probabilities is None else probabilities])
    return frame.join(pd.DataFrame(numbers, columns=[*LOGIT_COLUMNS, *PROBABILITY_COLUMNS], index=frame.index))


def predictions_of(rows: Iterable[tuple[str, str, str, str, float]]) -> pd.DataFrame:
    """A prediction table of image, lesion, truth, prediction and its probability; the rest is shared by the others."""
    rows = list(rows)
    each = np.array([[p if dx == predicted else (1 - p) / 6 for dx in CLASSES] for *_, predicted, p in rows])
    frame = pd.DataFrame([row[:3] for row in rows], columns=["image_id", "lesion_id", "dx"]).assign(**PATIENT)
    return with_logits(frame, np.log(each), each)


def probabilities_of(table: pd.DataFrame) -> np.ndarray:
    """Shape (N, 7), by the columns' names."""
    return table[list(PROBABILITY_COLUMNS)].to_numpy()


def predicted_of(table: pd.DataFrame) -> np.ndarray:
    """The most probable diagnosis of each row."""
    return np.array(CLASSES)[probabilities_of(table).argmax(axis=1)]


def logits_of(table: pd.DataFrame | str) -> np.ndarray:
    """Shape (N, 7), by the columns' names; of a prediction table or of that with this name."""
    return (read_predictions(table) if isinstance(table, str) else table)[list(LOGIT_COLUMNS)].to_numpy()


def read_metrics(name: str, folder: Path = Path()) -> dict[str, Any]:
    """What a stage wrote to `metrics/`."""
    return json.loads((folder / "metrics" / f"{name}.json").read_text(encoding="utf-8"))


def stage_runner(write: WriteParams, main: Callable[[], None], section: str, *, metrics: str | None = None, **small: Any) -> Run:
    """A function that runs a stage with values of its section of params, or of another by full key, `small` ones by default.

    It returns the stage's metrics, which have the name of its section or that of `metrics`.
    """

    def run(**overrides: Any) -> dict[str, Any]:
        write({name if "." in name else f"{section}.{name}": value for name, value in (small | overrides).items()})
        main()
        return read_metrics(metrics or section)

    return run


def bytes_below(*folders: Path | str) -> dict[str, bytes]:
    """Content of every file below some folders, by path."""
    return {str(path): path.read_bytes() for each in folders for path in sorted(Path(each).rglob("*")) if path.is_file()}


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of every file of a folder, by path in it."""
    return {Path(path).relative_to(folder).as_posix(): content for path, content in bytes_below(folder).items()}


def refused(fragment: str) -> pytest.RaisesExc[PipelineError]:
    """Expect a PipelineError whose message contains the fragment literally."""
    return pytest.RaisesExc(PipelineError, check=lambda error: fragment in str(error))
