"""The contract of `data/synthetic`: images that `synthesize` draws and `train` adds to the training list.

Apart from `skinlesion.artifacts`, so that an edit of the one does not rerun the readers of the other.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import parse_csv, write_table
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.base.files import atomic_folder, open_images, read_json, write_json
from skinlesion.diagnoses import CLASSES

SYNTHETIC = Path("data/synthetic")
INDEX_COLUMNS: tuple[str, ...] = ("synthetic_id", "dx")


@dataclass(frozen=True)
class SyntheticImages:
    """Images that no camera took.

    images : uint8 array of shape (M, size, size, 3), RGB, memory-mapped read-only; M may be 0.
    dx : the M diagnoses that they were drawn for, in the array's order.
    fingerprint : `training_fingerprint` of the list that their generator was trained on.
    """

    images: np.ndarray
    dx: list[str]
    fingerprint: str

    def check_training_list(self, train: pd.DataFrame) -> None:
        """Refuse images whose generator was trained on another list, which may hold what is now validation or test.

        Raises
        ------
        PipelineError
            There are images, and they were drawn from another list than `train` (columns `image_id`, `dx`).
        """
        if self.dx and self.fingerprint != training_fingerprint(train):
            raise PipelineError(
                "the synthetic images were drawn by a network that was trained on another training list, which may hold images "
                "of validation or test: run `synthesize` again"
            )


def training_fingerprint(train: pd.DataFrame) -> str:
    """SHA-256 (hexadecimal) of `image_id` and `dx` of every row, sorted by image_id."""
    lines = sorted(f"{row.image_id},{row.dx}\n" for row in train[["image_id", "dx"]].itertuples())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_synthetic(
    batches: Iterable[np.ndarray], dx: list[str], *, size: int, facts: dict[str, Any], folder: Path = SYNTHETIC
) -> None:
    """Write `images.npy` (uint8, M x size x size x 3), `index.csv` (`INDEX_COLUMNS`) and `facts.json`.

    Parameters
    ----------
    batches : uint8 arrays (any number, size, size, 3), M images in all, in the order of `dx`; one is in memory at a time.
    dx : M diagnoses.
    facts : what is to be recorded; `fingerprint` (`training_fingerprint`) must be among it.
    """
    numbers: dict[str, int] = {}
    for name in dx:
        numbers[name] = numbers.get(name, 0) + 1
    ids = [f"synthetic_{name}_{number:05d}" for name in numbers for number in range(numbers[name])]
    order = [name for name in numbers for _ in range(numbers[name])]
    if order != dx:
        raise ValueError("dx must hold the images of a diagnosis one after the other")
    with atomic_folder(folder) as partial:
        # Written in sequence rather than through a memory map, where a full disk is a SIGBUS and not an OSError.
        with (partial / "images.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(dx), size, size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            written = 0
            for batch in batches:
                if batch.dtype != np.uint8 or batch.shape[1:] != (size, size, 3):
                    raise ValueError(f"a batch must be uint8 of shape (B, {size}, {size}, 3), not {batch.dtype} {batch.shape}")
                file.write(np.ascontiguousarray(batch).data)
                written += len(batch)
        if written != len(dx):
            raise ValueError(f"{written} images and {len(dx)} diagnoses")
        write_table(pd.DataFrame({"synthetic_id": ids, "dx": dx}), partial / "index.csv", INDEX_COLUMNS)
        write_json(partial / "facts.json", facts)


def read_synthetic(size: int, folder: Path = SYNTHETIC) -> SyntheticImages:
    """Open the synthetic images without reading them into memory.

    Parameters
    ----------
    size : side in pixels of the prepared images that they are to stand beside.

    Raises
    ------
    PipelineError
        Missing, damaged, of an unknown diagnosis, or of another size.
    """
    index = _read_index(folder / "index.csv")
    fingerprint = read_json(folder / "facts.json").get("fingerprint")
    if not isinstance(fingerprint, str):
        raise PipelineError(f"{folder / 'facts.json'} lacks 'fingerprint': run `synthesize` again")
    images = open_images(folder / "images.npy", stage="synthesize")
    if images.shape[1] != size:
        raise PipelineError(
            f"{folder} holds images of {images.shape[1]} px, and the prepared ones have {size} px: run `synthesize` again"
        )
    if len(images) != len(index):
        raise PipelineError(f"{folder}: {len(images)} images and {len(index)} rows in the index: run `synthesize` again")
    return SyntheticImages(images, index["dx"].tolist(), fingerprint)


def _read_index(path: Path) -> pd.DataFrame:
    """`index.csv`, its columns and diagnoses checked."""
    try:
        index = parse_csv(path, name=f"{path}", dtype="str")
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run `synthesize` first, or `dvc repro`") from None
    if tuple(index.columns) != INDEX_COLUMNS:
        raise PipelineError(f"{path} must have the columns {', '.join(INDEX_COLUMNS)}: run `synthesize` again")
    unknown = index.loc[~index["dx"].isin(CLASSES), "dx"].unique()
    if len(unknown):
        raise PipelineError(f"{path}: unknown diagnosis {name_some(unknown)}: run `synthesize` again")
    return index
