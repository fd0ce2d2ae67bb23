"""The contract between the stages: where each artifact lies, one function to write it and one to read it, both checking.

Paths are relative to the project's root, which is every stage's working directory; `dvc.yaml` names the same ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from skinlesion.base.errors import PipelineError, name_some
from skinlesion.base.files import atomic_folder, open_images, read_json, write_json
from skinlesion.config.contents import (
    check_calibration,
    check_conformal,
    check_index,
    check_operating_points,
    check_provenance,
    check_split_facts,
)
from skinlesion.diagnoses import CLASSES
from skinlesion.tables import read_table, write_table

RAW = Path("data/raw")
SPLITS = Path("data/splits")
PREPARED = Path("data/prepared")
PREDICTIONS = Path("data/predictions")
MEMBERS = Path("models/members")
CLASSIFIER = Path("models/classifier")
CALIBRATION = Path("models/calibration.json")
OPERATING_POINTS = Path("models/operating_points.json")
CONFORMAL = Path("models/conformal.json")
CLASSIFIER_SHA256 = "classifier_sha256"  # the key in these files that says to which classifier they belong
METRICS = Path("metrics")
PLOTS = Path("plots")

MASK_SUFFIX = "_segmentation"
MAX_PIXELS = 25_000_000  # of one image; a larger one is a decompression bomb, or not from a dermatoscope

SPLIT_NAMES: tuple[str, ...] = ("train", "val", "test")
METADATA_COLUMNS: tuple[str, ...] = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
# What a prediction table repeats of the metadata, so that it can be judged on its own.
DESCRIPTIVE_COLUMNS: tuple[str, ...] = ("image_id", "lesion_id", "dx", "age", "sex", "localization", "dx_type")
LOGIT_COLUMNS: tuple[str, ...] = tuple(f"logit_{dx}" for dx in CLASSES)
PROBABILITY_COLUMNS: tuple[str, ...] = tuple(f"probability_{dx}" for dx in CLASSES)
INDEX_COLUMNS: tuple[str, ...] = ("image_id", "width", "height", "fit", "color_constancy")

Fit = Literal["squash", "crop", "pad"]
ColorConstancy = Literal["none", "shades_of_gray"]


def image_path(image_id: str, raw: Path = RAW) -> Path:
    """Where `download` puts an image: RGB JPEG."""
    return raw / "images" / f"{image_id}.jpg"


def mask_path(image_id: str, raw: Path = RAW) -> Path:
    """Where `download` puts a lesion mask, if the source has it: PNG of the image's size, above 127 inside the lesion."""
    return raw / "segmentations" / f"{image_id}{MASK_SUFFIX}.png"


# What no table can hold: control characters, and the lone surrogates of a file name that is no UTF-8.
_NO_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def list_images(raw: Path = RAW) -> list[str]:
    """The ids of the images that `download` brought, sorted; hidden files are none.

    Raises
    ------
    PipelineError
        The folder is missing or holds no image, or a file in it is no `.jpg`.
    """
    folder = raw / "images"
    if not folder.is_dir():
        raise PipelineError(f"{folder} not found: run `download` first, or `dvc repro`")
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    for odd, wrong in (
        ([name for name in files if not name.endswith(".jpg")], "is no .jpg image: remove it, or run `download` again"),
        ([name for name in files if _NO_TEXT.search(name)], "cannot be an image_id: rename it in the source"),
    ):
        if odd:
            shown = name_some(name.encode("ascii", "backslashreplace").decode() for name in odd)
            raise PipelineError(f"{folder} holds {shown}, which {wrong}")
    if not files:
        raise PipelineError(f"{folder} holds no image: run `download` again")
    return sorted(name.removesuffix(".jpg") for name in files)


def read_metadata(raw: Path = RAW) -> pd.DataFrame:
    """The metadata of every image that `download` brought, in the file's order; columns as `METADATA_COLUMNS`, maybe more."""
    return read_table(raw / "metadata.csv", METADATA_COLUMNS)


def read_provenance(raw: Path = RAW) -> dict[str, Any]:
    """Where the images came from: `source`, `synthetic` (bool), `files`, `licence`, `counts`."""
    provenance = read_json(raw / "provenance.json")
    check_provenance(provenance, raw / "provenance.json")
    return provenance


@dataclass(frozen=True)
class SplitFacts:
    """What the later stages need to know of the split besides its lists.

    fingerprint : sha256 of the three lists (`skinlesion.splitting.fingerprint`).
    source : of the images, as `download.source`.
    synthetic : whether they were drawn.
    """

    fingerprint: str
    source: str
    synthetic: bool


def write_splits(splits: dict[str, pd.DataFrame], facts: SplitFacts, folder: Path = SPLITS) -> None:
    """Write the three lists, a row per image, columns as `METADATA_COLUMNS`; and the facts as `facts.json`."""
    with atomic_folder(folder) as partial:
        write_json(partial / "facts.json", asdict(facts))
        for name in SPLIT_NAMES:
            write_table(splits[name], partial / f"{name}.csv", METADATA_COLUMNS)


def read_split_facts(folder: Path = SPLITS) -> SplitFacts:
    """The facts beside the lists.

    Raises
    ------
    PipelineError
        Missing or incomplete.
    """
    content = read_json(folder / "facts.json")
    check_split_facts(content, folder / "facts.json")
    return SplitFacts(**content)


def read_split(name: str, folder: Path = SPLITS) -> pd.DataFrame:
    """One of the lists `train`, `val`, `test`. `lesion_id` is that of the merged lesion where `split.links` joined some."""
    frame = read_table(folder / f"{name}.csv", METADATA_COLUMNS)
    if frame.empty:
        raise PipelineError(f"{folder / f'{name}.csv'} lists no image: run `split` again")
    return frame


@dataclass(frozen=True)
class PreparedImages:
    """Every image, decoded and resized once.

    images : uint8 array of shape (N, size, size, 3), RGB, memory-mapped read-only.
    index : N rows in the array's order: `image_id`, `width` and `height` of the original in pixels, `fit`, `color_constancy`.
    """

    images: np.ndarray
    index: pd.DataFrame

    @property
    def size(self) -> int:
        """Side of the squares in pixels."""
        return int(self.images.shape[1])

    @property
    def fit(self) -> Fit:
        """How the original was fitted into the square (see `skinlesion.geometry`)."""
        return cast(Fit, self.index["fit"].iloc[0])

    @property
    def color_constancy(self) -> ColorConstancy:
        """What was done to the colours."""
        return cast(ColorConstancy, self.index["color_constancy"].iloc[0])

    def rows_of(self, image_ids: Iterable[str]) -> np.ndarray:
        """Positions in the array (int64, one an id, in the order asked).

        Raises
        ------
        PipelineError
            An image was not prepared.
        """
        wanted = list(image_ids)
        positions = pd.Index(self.index["image_id"]).get_indexer(pd.Index(wanted))
        if (positions < 0).any():
            missing = [image_id for image_id, position in zip(wanted, positions, strict=True) if position < 0]
            raise PipelineError(f"image {name_some(missing)} is listed in a split and was not prepared: run `prepare` again")
        return positions.astype(np.int64)


def read_prepared(folder: Path = PREPARED) -> PreparedImages:
    """Open the prepared images without reading them into memory."""
    index = read_table(folder / "index.csv", INDEX_COLUMNS)
    images = open_images(folder / "images.npy", stage="prepare")
    if len(images) != len(index) or not len(index):
        raise PipelineError(f"{folder}: {len(images)} images and {len(index)} rows in the index: run `prepare` again")
    check_index(index, folder / "index.csv")
    return PreparedImages(images, index)


def write_predictions(predictions: dict[str, pd.DataFrame], folder: Path = PREDICTIONS) -> None:
    """Write the prediction tables of `val` and `test`; columns: descriptive, a logit and a calibrated probability a class."""
    with atomic_folder(folder) as partial:
        for name, frame in predictions.items():
            write_table(frame, partial / f"{name}.csv", (*DESCRIPTIVE_COLUMNS, *LOGIT_COLUMNS, *PROBABILITY_COLUMNS))


def read_predictions(name: str, folder: Path = PREDICTIONS) -> pd.DataFrame:
    """The prediction table of `val` or `test`.

    Raises
    ------
    PipelineError
        Missing or damaged, a logit that is not finite, or probabilities that are none (0 to 1) or do not sum to 1.
    """
    path = folder / f"{name}.csv"
    frame = read_table(path, (*DESCRIPTIVE_COLUMNS, *LOGIT_COLUMNS, *PROBABILITY_COLUMNS))
    numbers = frame[[*LOGIT_COLUMNS, *PROBABILITY_COLUMNS]].apply(pd.to_numeric, errors="coerce").astype("float64")
    broken = ~np.isfinite(numbers.to_numpy()).all(axis=1)
    probabilities = numbers[list(PROBABILITY_COLUMNS)].to_numpy()
    broken |= (np.abs(probabilities.sum(axis=1) - 1) > 1e-4) | (probabilities < 0).any(axis=1)
    if frame.empty or broken.any():
        offenders = name_some(frame.loc[broken, "image_id"]) or "no row at all"
        raise PipelineError(
            f"{path}: logits must be finite and probabilities sum to 1; offending: {offenders}. Run `evaluate` again"
        )
    frame[numbers.columns] = numbers
    return frame


def write_calibration(content: dict[str, Any], path: Path = CALIBRATION) -> None:
    """Write how logits become probabilities: `method`, `scale` and `bias` of each of `CLASSES`, `fitted_on`, `test_time`.

    `test_time` names the views over which the logits were averaged that it was fitted to (`skinlesion.test_time`),
    `classifier_sha256` the classifier that gave them (`skinlesion.identity`); so it does in the next two.
    """
    check_calibration(content, path)
    write_json(path, content)


def read_calibration(path: Path = CALIBRATION) -> dict[str, Any]:
    """How logits become probabilities, as `write_calibration` takes it: softmax(logits * scale + bias).

    Raises
    ------
    PipelineError
        Missing, damaged, not a finite number a class, or of unknown test-time views.
    """
    content = read_json(path)
    check_calibration(content, path)
    return content


def write_conformal(content: dict[str, Any], path: Path = CONFORMAL) -> None:
    """Write how a set of diagnoses is formed: `method`, `penalty` and `free` of `skinlesion.conformal.class_scores`; `levels`.

    `levels` maps each promised coverage to its quantile of the scores, None where validation has too few lesions to promise it.
    `calibration` is what the quantiles hold for, as of `write_calibration`; not that of the prediction tables, because it was
    fitted on the other half of validation.
    """
    check_conformal(content, path)
    write_json(path, content)


def read_conformal(path: Path = CONFORMAL) -> dict[str, Any]:
    """How a set of diagnoses is formed, as `write_conformal` takes it.

    Raises
    ------
    PipelineError
        Missing, damaged, or of an unknown method.
    """
    content = read_json(path)
    check_conformal(content, path)
    return content


def write_operating_points(content: dict[str, Any], path: Path = OPERATING_POINTS) -> None:
    """Write the operating points: `target`, its `classes`, `score`, `rule`, `chosen_on`, and `points` by name.

    A point has its `constraint` (None for Youden's), its `threshold` in [0, 1], and what it achieves on `val`.
    """
    check_operating_points(content, path)
    write_json(path, content)


def read_operating_points(path: Path = OPERATING_POINTS) -> dict[str, Any]:
    """The operating points, as `write_operating_points` takes them.

    Raises
    ------
    PipelineError
        Missing, damaged, of an unknown diagnosis, or a threshold that is no number from 0 to 1.
    """
    content = read_json(path)
    check_operating_points(content, path)
    return content
