"""The contract of `data/splits`: who is in training, validation and test, and what else is known of the split."""

import hashlib
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from skinlesion.artifacts.tables import METADATA_COLUMNS, read_table, write_table
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import atomic_folder, read_json, write_json
from skinlesion.config.contents import check_content

SPLITS = Path("data/splits")
SPLIT_NAMES: tuple[str, ...] = ("train", "val", "test")


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SplitFacts:
    """What the later stages need to know of the split besides its lists.

    fingerprint : sha256 of the three lists (`fingerprint` below).
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
    path = folder / "facts.json"
    return check_content(SplitFacts, read_json(path), path, stage="split")


def read_split(name: str, folder: Path = SPLITS) -> pd.DataFrame:
    """One of the lists `train`, `val`, `test`. `lesion_id` is that of the merged lesion where `split.links` joined some."""
    frame = read_table(folder / f"{name}.csv", METADATA_COLUMNS)
    if frame.empty:
        raise PipelineError(f"{folder / f'{name}.csv'} lists no image: run `split` again")
    return frame


LINK_COLUMNS: tuple[str, ...] = ("image_id_a", "image_id_b")


def fingerprint(splits: dict[str, pd.DataFrame]) -> str:
    """SHA-256 (hexadecimal) of who is in which list: names, then image_id, lesion_id, dx of every row, sorted by image_id.

    It depends neither on the order of the rows nor on any other column.
    """
    digest = hashlib.sha256()
    for name in SPLIT_NAMES:
        rows = splits[name].sort_values("image_id")
        lines = (rows["image_id"] + "," + rows["lesion_id"] + "," + rows["dx"] + "\n").tolist()
        digest.update("".join([f"{name}\n", *lines]).encode())
    return digest.hexdigest()
