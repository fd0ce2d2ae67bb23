"""Find images, masks and metadata in whatever layout they come, and bring them to that of `data/raw`.

Known are Kaggle's and Dataverse's folders, unpacked or as zip archives, and everything in one flat folder.
"""

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from skinlesion.artifacts.raw import MASK_SUFFIX, image_path, mask_path, read_metadata
from skinlesion.artifacts.tables import METADATA_COLUMNS, parse_csv
from skinlesion.base.decoding import kind_of
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.base.files import file_digest
from skinlesion.data.sources.archives import MAX_FILE_BYTES, is_archive, member_names, read_members
from skinlesion.data.sources.folders import walk
from skinlesion.data.sources.ground_truth import add_groupings, one_hot, to_ham10000_columns
from skinlesion.data.sources.provenance import folder_entry

logger = logging.getLogger(__name__)

# A browser adds a number to the name of what it brings again.
METADATA = re.compile(r"(?i:HAM10000_metadata( ?\(\d+\))?(\.(csv|tab|tsv|txt))?|metadata\.(csv|tab|tsv|txt))")
# HAM10000 is what the ISIC 2018 challenge trains on in task 3, and has tables of its own there. What it validates and tests on is
# not part of it, and lies beside it there and on Dataverse.
_TRUTH = re.compile(r"(?i:ISIC2018_Task3_Training_GroundTruth.*\.csv)")
GROUPINGS = re.compile(r"(?i:ISIC2018_Task3_Training_LesionGroupings.*\.csv)")
_OTHER_DATA_SET = re.compile(r"(?i:ISIC2018_Task3_(Validation|Test))")

PICTURE_ENDING = r"\.(?i:jpe?g|jpe|jfif|jif|png|gif|bmp|tiff?|webp|hei[cf]|avif|jp2|dcm)"  # what a file is, its bytes say
_PICTURE = re.compile(rf".+{PICTURE_ENDING}")
_IMAGE_OR_MASK = re.compile(rf"(ISIC_[0-9]{{7}})({MASK_SUFFIX})?{PICTURE_ENDING}")
_KINDS = {".jpg": "a JPEG", ".png": "a PNG"}  # by the ending of a file in `data/raw`, which is ours

TargetOf = Callable[[str, Path], Path | None]  # of a file's base name and the folder that is laid out as `data/raw`


@dataclass(frozen=True)
class Inputs:
    """What a source holds: where it stands, the metadata (name and bytes), the loose images and masks, the zip archives.

    groupings : the challenge's table of lesions, name and bytes. aside : names of what is not read in archives.
    """

    root: Path
    metadata_name: str
    metadata: bytes
    loose: list[Path]
    archives: list[Path]
    groupings: tuple[str, bytes] | None = None
    aside: re.Pattern[str] | None = None

    def name_of(self, path: Path) -> str:
        """A path below the root as it may be written down: relative, with forward slashes."""
        return path.relative_to(self.root).as_posix()


def find_inputs(place: Path) -> Inputs:
    """Look through a folder (with all its folders and zip archives), or into one zip archive.

    Raises
    ------
    PipelineError
        It does not exist, or holds no image, no metadata, or several different metadata files.
    """
    if not place.exists():
        raise PipelineError(
            f"{place} not found: set download.path to a folder or zip archive; a relative path starts at the project's root"
        )
    root = place if place.is_dir() else place.parent
    paths = list(walk(place, aside=_OTHER_DATA_SET)) if place.is_dir() else [place]
    archives = [path for path in paths if is_archive(path)]
    inside = {archive: member_names(archive, _OTHER_DATA_SET) for archive in archives}
    loose = [path for path in paths if _IMAGE_OR_MASK.fullmatch(path.name)]
    names = [path.name for path in paths if path not in inside] + [name for members in inside.values() for name in members]
    _check_pictures(names, place)

    metadata = read_the_table(root, paths, inside, METADATA.fullmatch)
    table = metadata or read_the_table(root, paths, inside, _TRUTH.fullmatch)
    others = sorted(name for name in names if not _PICTURE.fullmatch(name))
    if table is None:
        raise PipelineError(
            f"{place} holds no metadata; it must be named HAM10000_metadata (as .csv or .tab too) or metadata.csv, or be the "
            f"ISIC challenge's ISIC2018_Task3_Training_GroundTruth.csv, loose or in a zip archive{_seen(others)}"
        )
    used = (METADATA,) if metadata else (_TRUTH, GROUPINGS)
    if others := [name for name in others if not any(kind.fullmatch(name) for kind in used)]:
        logger.warning("left aside, neither images nor the metadata: %s", name_some(others))
    groupings = read_the_table(root, paths, inside, GROUPINGS.fullmatch)
    return Inputs(root, *table, loose, archives, groupings, _OTHER_DATA_SET)


def _seen(names: list[str]) -> str:
    """What a place holds, for its refusal."""
    return f"; it holds {name_some(sorted(names))}" if names else ""


def read_the_table(
    root: Path, paths: list[Path], inside: dict[Path, list[str]], wanted: Callable[[str], object]
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


def _check_pictures(names: list[str], place: Path) -> None:
    """Refuse a place without images; say which pictures are left aside for their names."""
    pictures = [name for name in names if _PICTURE.fullmatch(name)]
    usable = [match for name in pictures if (match := _IMAGE_OR_MASK.fullmatch(name))]
    if all(match[2] for match in usable):
        raise PipelineError(
            f"{place} holds no images named ISIC_ and seven digits, as .jpg, loose or in a zip archive (archives inside archives "
            f"are not opened){_seen(names)}"
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
    rows, name = read_rows(inputs), inputs.metadata_name
    if one_hot(rows):
        rows, lesions_known = to_ham10000_columns(rows, name=name)
        if not lesions_known:
            raise PipelineError(
                f"{name} does not say which images show one lesion, and such images must not be trained and tested on: put "
                "HAM10000_metadata of Dataverse beside it, or the challenge's ISIC2018_Task3_Training_LesionGroupings.csv"
            )
    return write_rows(rows, raw, name=name)


def read_rows(inputs: Inputs) -> pd.DataFrame:
    """The metadata as it stands in the source, every value a string, with the challenge's lesions where it is the challenge's.

    Raises
    ------
    PipelineError
        It is no table.
    """
    rows = parse_csv(inputs.metadata, name=inputs.metadata_name, dtype="str")
    if inputs.groupings is None or not one_hot(rows):
        return rows
    return add_groupings(rows, parse_csv(inputs.groupings[1], name=inputs.groupings[0], dtype="str"), name=inputs.groupings[0])


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


def bring_files(
    inputs: Inputs, raw: Path, image_ids: Iterable[str], target_of: TargetOf = ham10000_target
) -> list[dict[str, Any]]:
    """Copy every image and mask to its place in `raw`; the same file twice (the Kaggle mirror's folders) is taken once.

    `image_ids` are the metadata's. `target_of` gives the place of a file by its base name, and None for what is not wanted.
    By its content a file must be a JPEG where it is an image, a PNG where it is a mask; others are left aside, and named.

    Returns
    -------
    What the files came from, for the provenance: name, bytes and MD5 of the metadata and of each archive; of each folder
    with loose images the count, the bytes, and the MD5 of its files' sorted MD5s joined by line feeds.

    Raises
    ------
    PipelineError
        Two different files for one image or mask, a file over `archives.MAX_FILE_BYTES`, a broken archive, or an image that is
        missing where others are left aside for their kind.
    """
    (raw / "images").mkdir()
    taken: dict[Path, tuple[str, str]] = {}
    aside: list[str] = []
    digest = hashlib.md5(inputs.metadata, usedforsecurity=False).hexdigest()
    files: list[dict[str, Any]] = [{"name": inputs.metadata_name, "bytes": len(inputs.metadata), "md5": digest}]
    if inputs.groupings and one_hot(read_rows(inputs)):
        name, content = inputs.groupings
        files.append({"name": name, "bytes": len(content), "md5": hashlib.md5(content, usedforsecurity=False).hexdigest()})
    folders: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for path in tqdm(inputs.loose, desc="copying", disable=None):
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PipelineError(f"{path} has more than {MAX_FILE_BYTES:,} bytes, which no image of HAM10000 has")
        content = path.read_bytes()
        placed = _place(target_of(path.name, raw), content, origin=inputs.name_of(path), taken=taken, aside=aside)
        if placed is not None:
            folders[f"{inputs.name_of(path.parent)}/"].append((placed, len(content)))
    files += [folder_entry(name, members) for name, members in folders.items()]
    for archive in inputs.archives:
        members = read_members(archive, lambda name: target_of(name, raw) is not None, inputs.aside)
        before = len(taken)
        for name, content in tqdm(members, desc=f"unpacking {archive.name}", disable=None):
            _place(target_of(name, raw), content, origin=f"{inputs.name_of(archive)}: {name}", taken=taken, aside=aside)
        if len(taken) > before:
            digest = file_digest(archive, "md5")
            files.append({"name": inputs.name_of(archive), "bytes": archive.stat().st_size, "md5": digest})
    if aside:
        what = f"since images must be JPEG and masks PNG: {name_some(sorted(aside))}"
        if lacking := sorted(set(image_ids) - {target.stem for target in taken}):
            raise PipelineError(f"{len(lacking):,} image(s) are missing, as {lacking[0]}; left aside, {what}. Convert them first")
        logger.warning("left aside, %s", what)
    return files


def _place(
    target: Path | None, content: bytes, *, origin: str, taken: dict[Path, tuple[str, str]], aside: list[str]
) -> str | None:
    """Write an image or mask under our own name, unless the same bytes are there already; returns their MD5.

    A file of another kind is added to `aside` and not written.
    """
    assert target is not None, origin  # only wanted files are read
    if (kind := kind_of(content)) not in (None, _KINDS[target.suffix]):
        aside.append(f"{origin} ({kind})")
        return None
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
