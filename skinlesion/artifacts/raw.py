"""The contract of `data/raw`: images, metadata, lesion masks where the source has them, and where all of it came from."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.artifacts.tables import METADATA_COLUMNS, read_table
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.base.files import read_json
from skinlesion.config.contents import Provenance, check_content

RAW = Path("data/raw")

MASK_SUFFIX = "_segmentation"
MAX_PIXELS = 25_000_000  # of one image; a larger one is a decompression bomb, or not from a dermatoscope


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
    """Where the images came from: the keys of `skinlesion.config.contents.Provenance`, checked, and what else `download` wrote.

    Raises
    ------
    PipelineError
        Missing or damaged.
    """
    provenance = read_json(raw / "provenance.json")
    check_content(Provenance, provenance, raw / "provenance.json", stage="download")
    return provenance
