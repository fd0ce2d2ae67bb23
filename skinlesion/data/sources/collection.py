"""Find any collection of dermatoscopic images: JPEGs under whatever names, and one table that says what they show."""

import logging
import re
from pathlib import Path

from skinlesion.artifacts.raw import image_path
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.data.sources.archives import is_archive, member_names
from skinlesion.data.sources.folders import walk
from skinlesion.data.sources.isic2018 import GROUND_TRUTH
from skinlesion.data.sources.layout import GROUPINGS, METADATA, PICTURE_ENDING, Inputs, read_the_table

logger = logging.getLogger(__name__)

# A name that begins with a full stop is none of the user's: macOS packs such a shadow beside every file.
_PICTURE = re.compile(rf"([^.].*){PICTURE_ENDING}")
_TABLE = re.compile(r"[^.].*\.(?i:csv|tab|tsv)")


def jpeg_target(name: str, raw: Path) -> Path | None:
    """Where an image goes, by its base name, which is its id; None for what is no picture (see `layout.bring_files`)."""
    match = _PICTURE.fullmatch(name)
    return image_path(match[1], raw) if match else None


def _is_table(name: str) -> bool:
    known = METADATA.fullmatch(name) or _TABLE.fullmatch(name) or name == GROUND_TRUTH.name
    return bool(known) and not GROUPINGS.fullmatch(name)


def find_collection(place: Path) -> Inputs:
    """Look through a folder (with all its folders and zip archives), or into one zip archive.

    Raises
    ------
    PipelineError
        It does not exist, or holds no picture, no table, or several different tables.
    """
    if not place.exists():
        raise PipelineError(
            f"{place} not found: set external.path to a folder or zip archive; a relative path starts at the project's root"
        )
    root = place if place.is_dir() else place.parent
    paths = list(walk(place)) if place.is_dir() else [place]
    archives = [path for path in paths if is_archive(path)]
    inside = {archive: member_names(archive) for archive in archives}
    names = [path.name for path in paths if path not in inside] + [name for members in inside.values() for name in members]
    others = sorted(
        name for name in names if not _PICTURE.fullmatch(name) and not _is_table(name) and not GROUPINGS.fullmatch(name)
    )
    seen = f"; it holds {name_some(others)}" if others else ""
    if not any(_PICTURE.fullmatch(name) for name in names):
        raise PipelineError(f"{place} holds no image, as .jpg, loose or in a zip archive{seen}")
    table = read_the_table(root, paths, inside, _is_table)
    if table is None:
        raise PipelineError(f"{place} holds no table (.csv, .tab or .tsv) that says what the images show{seen}")
    if others:
        logger.warning("left aside, neither images nor the table: %s", name_some(others))
    groupings = read_the_table(root, paths, inside, GROUPINGS.fullmatch)
    return Inputs(root, *table, [path for path in paths if _PICTURE.fullmatch(path.name)], archives, groupings)
