"""Find images, masks and metadata in whatever layout they come, and bring them to that of `data/raw`.

Known are Kaggle's and Dataverse's folders, unpacked or as zip archives, and everything in one flat folder.
"""

import hashlib
import io
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from skinlesion.artifacts.raw import MASK_SUFFIX, image_path, mask_path, read_metadata
from skinlesion.artifacts.tables import METADATA_COLUMNS, parse_csv
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.base.files import file_digest
from skinlesion.data.sources.archives import MAX_FILE_BYTES, member_names, read_members
from skinlesion.data.sources.provenance import folder_entry

logger = logging.getLogger(__name__)

METADATA_NAMES = ("HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab", "metadata.csv")
# The test set of the ISIC 2018 challenge lies beside HAM10000 on Dataverse and is no part of it.
OTHER_DATA_SET = "ISIC2018_Task3_"

_IMAGE_OR_MASK = re.compile(rf"(ISIC_[0-9]{{7}})(?:\.(?i:jpe?g)|({MASK_SUFFIX})\.(?i:png))")
_PICTURE = re.compile(r".+\.(?i:jpe?g|png|bmp|tiff?|webp)")

TargetOf = Callable[[str, Path], Path | None]  # of a file's base name and the folder that is laid out as `data/raw`


@dataclass(frozen=True)
class Inputs:
    """What a source holds: where it stands, the metadata (name and bytes), the loose images and masks, the zip archives."""

    root: Path
    metadata_name: str
    metadata: bytes
    loose: list[Path]
    archives: list[Path]

    def name_of(self, path: Path) -> str:
        """A path below the root as it may be written down: relative, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def find_inputs(place: Path) -> Inputs:
    """Look through a folder (with all its folders and zip archives), or into one zip archive.

    Raises
    ------
    PipelineError
        It does not exist, or holds no image, no metadata, several different metadata files, or a lesion image as PNG.
    """
    if not place.exists():
        raise PipelineError(
            f"{place} not found: set download.path to a folder or zip archive; a relative path starts at the project's root"
        )
    root = place if place.is_dir() else place.parent
    paths = list(walk(place, aside=OTHER_DATA_SET)) if place.is_dir() else [place]
    archives = [path for path in paths if path.suffix.lower() == ".zip"]
    inside = {archive: member_names(archive) for archive in archives}
    loose = [path for path in paths if _IMAGE_OR_MASK.fullmatch(path.name)]
    names = [path.name for path in paths] + [name for members in inside.values() for name in members]
    _check_pictures(names, place)

    table = read_the_table(root, paths, inside, lambda name: name in METADATA_NAMES)
    if table is None:
        raise PipelineError(
            f"{place} holds no metadata; it must be named {' or '.join(METADATA_NAMES)}, loose or in a zip archive"
        )
    return Inputs(root, *table, loose, archives)


def read_the_table(
    root: Path, paths: list[Path], inside: dict[Path, list[str]], wanted: Callable[[str], bool]
) -> tuple[str, bytes] | None:
    """Name and content of the one file whose base name is wanted; None if there is none.

    Parameters
    ----------
    paths : below `root`, to be looked through. inside : the base names that each archive among them holds.

    Raises
    ------
    PipelineError
        There are several with different content.
    """
    tables = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths if wanted(path.name)}
    for archive, members in inside.items():
        if any(wanted(name) for name in members):
            found = read_members(archive, wanted)
            tables |= {f"{archive.relative_to(root).as_posix()}: {name}": content for name, content in found}
    if len(set(tables.values())) > 1:
        raise PipelineError(f"{root} holds different metadata files: {name_some(tables)}. Leave only the one that is meant")
    return next(iter(tables.items()), None)


def walk(folder: Path, *, aside: str | None = None) -> Iterator[Path]:
    """Every file below a folder, in a fixed order, but files and folders whose names start with `aside`."""

    def refuse(error: OSError) -> None:
        raise error

    for current, folders, files in os.walk(folder, onerror=refuse):
        left = [name for name in (*folders, *files) if aside is not None and name.startswith(aside)]
        if left:
            logger.warning("left aside, no part of HAM10000: %s", name_some(sorted(left)))
        # A pipe would be waited for, a device never ends, and a link may lead nowhere.
        strange = [name for name in files if name not in left and not (Path(current) / name).is_file()]
        if strange:
            logger.warning("left aside, no files or links to nowhere: %s", name_some(sorted(strange)))
        folders[:] = sorted(set(folders) - set(left))
        yield from (Path(current) / name for name in sorted(set(files) - {*left, *strange}))


def _check_pictures(names: list[str], place: Path) -> None:
    """Refuse a place without images or with images as PNG; say which pictures are left aside for their names."""
    png = [name for name in names if re.fullmatch(r"ISIC_[0-9]{7}\.(?i:png)", name)]
    if png:
        raise PipelineError(
            f"{place}: {len(png):,} lesion image(s) are PNG, as {name_some(png, 3)}; they must be JPEG as HAM10000's are (only "
            f"the masks, ISIC_0000000{MASK_SUFFIX}.png, are PNG): convert them first"
        )
    pictures = [name for name in names if _PICTURE.fullmatch(name)]
    usable = [match for name in pictures if (match := _IMAGE_OR_MASK.fullmatch(name))]
    if all(match[2] for match in usable):
        raise PipelineError(
            f"{place} holds no images named ISIC_ and seven digits, .jpg or .jpeg, loose or in a zip archive (archives inside "
            "archives are not opened)"
        )
    if aside := sorted(name for name in pictures if not _IMAGE_OR_MASK.fullmatch(name)):
        logger.warning("left aside for their names, which are not ISIC_ and seven digits: %s", name_some(aside))


def write_metadata(inputs: Inputs, raw: Path) -> pd.DataFrame:
    """Write `metadata.csv`: HAM10000's columns first, further ones after them, values and rows as in the source.

    Returns
    -------
    The table as every later stage reads it (see `artifacts.raw.read_metadata`).

    Raises
    ------
    PipelineError
        It is no table, lacks a column, or has a value that `tables.read_table` refuses.
    """
    return write_rows(read_rows(inputs), raw, name=inputs.metadata_name)


def read_rows(inputs: Inputs) -> pd.DataFrame:
    """The metadata as it stands in the source, every value a string; raises `PipelineError` if it is no table."""
    header = inputs.metadata.split(b"\n", 1)[0]
    separator = "\t" if b"\t" in header and b"," not in header else ","  # Dataverse's re-export is separated by tabs
    return parse_csv(io.BytesIO(inputs.metadata), name=inputs.metadata_name, sep=separator, dtype="str")


def write_rows(frame: pd.DataFrame, raw: Path, *, name: str) -> pd.DataFrame:
    """Write `metadata.csv` from rows of strings, and return and refuse as `write_metadata`; `name` is the source's own."""
    known = [name for name in METADATA_COLUMNS if name in frame.columns]
    further = [name for name in frame.columns if name not in METADATA_COLUMNS]
    path = raw / "metadata.csv"
    frame[[*known, *further]].to_csv(path, index=False, lineterminator="\n")
    try:
        return read_metadata(raw)
    except PipelineError as error:
        raise PipelineError(str(error).replace(str(path), name)) from None


def ham10000_target(name: str, raw: Path) -> Path | None:
    """Where an image or mask of HAM10000 goes, by its base name; None for any other file."""
    match = _IMAGE_OR_MASK.fullmatch(name)
    if match is None:
        return None
    return mask_path(match[1], raw) if match[2] else image_path(match[1], raw)


def bring_files(inputs: Inputs, raw: Path, target_of: TargetOf = ham10000_target) -> list[dict[str, Any]]:
    """Copy every image and mask to its place in `raw`; the same file twice (the Kaggle mirror's folders) is taken once.

    `target_of` gives the place of a file by its base name, and None for what is not wanted.

    Returns
    -------
    What the files came from, for the provenance: name, bytes and MD5 of the metadata and of each archive; of each folder
    with loose images the count, the bytes, and the MD5 of its files' sorted MD5s joined by line feeds.

    Raises
    ------
    PipelineError
        Two different files for one image or mask, a file over `archives.MAX_FILE_BYTES`, or a broken archive.
    """
    (raw / "images").mkdir()
    taken: dict[Path, tuple[str, str]] = {}
    digest = hashlib.md5(inputs.metadata, usedforsecurity=False).hexdigest()
    files: list[dict[str, Any]] = [{"name": inputs.metadata_name, "bytes": len(inputs.metadata), "md5": digest}]
    folders: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for path in tqdm(inputs.loose, desc="copying", disable=None):
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PipelineError(f"{path} has more than {MAX_FILE_BYTES:,} bytes, which no image of HAM10000 has")
        content = path.read_bytes()
        digest = _place(target_of(path.name, raw), content, origin=inputs.name_of(path), taken=taken)
        folders[f"{inputs.name_of(path.parent)}/"].append((digest, len(content)))
    files += [folder_entry(name, members) for name, members in folders.items()]
    for archive in inputs.archives:
        members = read_members(archive, lambda name: target_of(name, raw) is not None)
        before = len(taken)
        for name, content in tqdm(members, desc=f"unpacking {archive.name}", disable=None):
            _place(target_of(name, raw), content, origin=f"{inputs.name_of(archive)}: {name}", taken=taken)
        if len(taken) > before:
            digest = file_digest(archive, "md5")
            files.append({"name": inputs.name_of(archive), "bytes": archive.stat().st_size, "md5": digest})
    return files


def _place(target: Path | None, content: bytes, *, origin: str, taken: dict[Path, tuple[str, str]]) -> str:
    """Write an image or mask under our own name, unless the same bytes are there already; returns their MD5."""
    assert target is not None, origin  # only wanted files are read
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    earlier, place = taken.setdefault(target, (digest, origin))
    if earlier != digest:
        raise PipelineError(
            f"{target.stem} is there twice with different content: {place} and {origin}. Leave only the right one"
        )
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    return digest
