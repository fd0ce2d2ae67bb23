"""The contract between the stages: where each artifact lies, one function to write it and one to read it, both checking.

Paths are relative to the project's root, which is every stage's working directory; `dvc.yaml` names the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from skinlesion.diagnoses import CLASSES
from skinlesion.errors import PipelineError, name_some
from skinlesion.files import atomic_file, atomic_folder, read_json, write_json

RAW = Path("data/raw")
SPLITS = Path("data/splits")
PREPARED = Path("data/prepared")
PREDICTIONS = Path("data/predictions")
CLASSIFIER = Path("models/classifier")
CALIBRATION = Path("models/calibration.json")
OPERATING_POINTS = Path("models/operating_points.json")
METRICS = Path("metrics")
PLOTS = Path("plots")

SPLIT_NAMES: tuple[str, ...] = ("train", "val", "test")
METADATA_COLUMNS: tuple[str, ...] = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
# What a prediction table repeats of the metadata, so that it can be judged on its own.
DESCRIPTIVE_COLUMNS: tuple[str, ...] = ("image_id", "lesion_id", "dx", "age", "sex", "localization", "dx_type")
LOGIT_COLUMNS: tuple[str, ...] = tuple(f"logit_{dx}" for dx in CLASSES)
PROBABILITY_COLUMNS: tuple[str, ...] = tuple(f"probability_{dx}" for dx in CLASSES)
INDEX_COLUMNS: tuple[str, ...] = ("image_id", "width", "height", "fit")

Fit = Literal["squash", "crop", "pad"]


def image_path(image_id: str, raw: Path = RAW) -> Path:
    """Where `download` puts an image: RGB JPEG."""
    return raw / "images" / f"{image_id}.jpg"


def mask_path(image_id: str, raw: Path = RAW) -> Path:
    """Where `download` puts a lesion mask, if the source has it: PNG of the image's size, above 127 inside the lesion."""
    return raw / "segmentations" / f"{image_id}_segmentation.png"


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a CSV whose rows are images, keyed by `image_id`, and check what every such table promises.

    Identifiers, diagnoses and sites are strings, `age` is a float in years (NaN where unknown); an empty `sex` or
    `localization` becomes 'unknown'. Further columns are kept.

    Raises
    ------
    PipelineError
        The file is missing, empty or no CSV, lacks a column, has an empty or duplicate `image_id`, an unknown diagnosis
        or an age that is no number.
    """
    wanted = list(columns)
    text_columns = ("lesion_id", "image_id", "dx", "dx_type", "sex", "localization", "fit")
    try:
        frame = pd.read_csv(
            path, dtype=dict.fromkeys(text_columns, "str"), keep_default_na=False, na_values={"age": ["", "NaN", "nan"]}
        )
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run the stage that writes it first, or `dvc repro`") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not a readable CSV file ({error})") from None
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise PipelineError(f"{path} lacks the column(s) {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    _check_rows(frame, path)
    for name in ("sex", "localization"):
        if name in frame.columns:
            frame[name] = frame[name].replace("", "unknown")
    return frame


def _check_rows(frame: pd.DataFrame, path: Path) -> None:
    """Refuse empty and duplicate ids, unknown diagnoses and ages that are no number."""
    identifiers = frame["image_id"]
    if (identifiers == "").any():
        raise PipelineError(f"{path}: {(identifiers == '').sum()} row(s) have no image_id")
    duplicates = identifiers[identifiers.duplicated()].unique()
    if len(duplicates):
        raise PipelineError(f"{path}: duplicate image_id {name_some(duplicates)}: keep one row an image")
    if "dx" in frame.columns:
        unknown = frame[~frame["dx"].isin(CLASSES)]
        if len(unknown):
            offenders = name_some(f"'{row.dx}' ({row.image_id})" for row in unknown.itertuples())
            raise PipelineError(f"{path}: unknown diagnosis {offenders}; known are {', '.join(CLASSES)}")
    if "age" in frame.columns:
        ages = pd.to_numeric(frame["age"], errors="coerce")
        broken = frame[ages.isna() & frame["age"].notna()]
        if len(broken):
            offenders = name_some(f"'{row.age}' ({row.image_id})" for row in broken.itertuples())
            raise PipelineError(f"{path}: age must be a number of years or empty, not {offenders}")
        frame["age"] = ages.astype("float64")


def write_table(frame: pd.DataFrame, path: Path, columns: Iterable[str]) -> None:
    """Write a table with exactly `columns`, in that order, one line a row, byte-identical for equal content."""
    with atomic_file(path) as partial:
        frame[list(columns)].to_csv(partial, index=False, lineterminator="\n")


def read_metadata(raw: Path = RAW) -> pd.DataFrame:
    """The metadata of every image that `download` brought, in the file's order; columns as `METADATA_COLUMNS`, maybe more."""
    frame = read_table(raw / "metadata.csv", METADATA_COLUMNS)
    if (frame["lesion_id"] == "").any():
        offenders = name_some(frame.loc[frame["lesion_id"] == "", "image_id"])
        raise PipelineError(f"{raw / 'metadata.csv'}: no lesion_id for {offenders}")
    return frame


def read_provenance(raw: Path = RAW) -> dict[str, Any]:
    """Where the images came from: `source`, `synthetic` (bool), `files`, `licence`, `counts`."""
    provenance = read_json(raw / "provenance.json")
    for key in ("source", "synthetic", "licence", "counts"):
        if key not in provenance:
            raise PipelineError(f"{raw / 'provenance.json'} lacks '{key}': run `download` again")
    return provenance


def write_splits(splits: dict[str, pd.DataFrame], folder: Path = SPLITS) -> None:
    """Write the three lists; a row an image, columns as `METADATA_COLUMNS`."""
    with atomic_folder(folder) as partial:
        for name in SPLIT_NAMES:
            write_table(splits[name], partial / f"{name}.csv", METADATA_COLUMNS)


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
    index : N rows in the array's order: `image_id`, `width` and `height` of the original in pixels, `fit`.
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
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
    except FileNotFoundError:
        raise PipelineError(f"{folder / 'images.npy'} not found: run `prepare` first, or `dvc repro`") from None
    except ValueError as error:
        raise PipelineError(f"{folder / 'images.npy'} is damaged ({error}): run `prepare` again") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise PipelineError(
            f"{folder / 'images.npy'} must be uint8 of shape (N, size, size, 3), not {images.dtype} {images.shape}"
        )
    if len(images) != len(index) or not len(index):
        raise PipelineError(f"{folder}: {len(images)} images and {len(index)} rows in the index: run `prepare` again")
    if index["fit"].nunique() != 1:
        raise PipelineError(f"{folder / 'index.csv'} mixes several values of fit: run `prepare` again")
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
        Missing or damaged, a logit that is not finite, or probabilities that do not sum to 1.
    """
    path = folder / f"{name}.csv"
    frame = read_table(path, (*DESCRIPTIVE_COLUMNS, *LOGIT_COLUMNS, *PROBABILITY_COLUMNS))
    numbers = frame[[*LOGIT_COLUMNS, *PROBABILITY_COLUMNS]].apply(pd.to_numeric, errors="coerce")
    broken = ~np.isfinite(numbers.to_numpy()).all(axis=1)
    broken |= np.abs(numbers[list(PROBABILITY_COLUMNS)].sum(axis=1).to_numpy() - 1) > 1e-4
    if frame.empty or broken.any():
        offenders = name_some(frame.loc[broken, "image_id"]) or "no row at all"
        raise PipelineError(
            f"{path}: logits must be finite and probabilities sum to 1; offending: {offenders}. Run `evaluate` again"
        )
    frame[numbers.columns] = numbers
    return frame


def write_calibration(temperature: float, path: Path = CALIBRATION) -> None:
    """Write the temperature (> 0) by which logits are divided before the softmax."""
    write_json(path, {"method": "temperature", "temperature": temperature, "fitted_on": "val"})


def read_calibration(path: Path = CALIBRATION) -> float:
    """The temperature by which logits are divided before the softmax."""
    temperature = read_json(path).get("temperature")
    if not isinstance(temperature, int | float) or not temperature > 0:
        raise PipelineError(f"{path}: temperature must be a number above 0, not {temperature!r}: run `evaluate` again")
    return float(temperature)
