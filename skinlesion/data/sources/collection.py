"""Find any collection of dermatoscopic images: JPEGs under whatever names, and one table that says what they show."""

import logging
import re
from pathlib import Path

from skinlesion.artifacts.raw import image_path
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.data.sources.archives import member_names
from skinlesion.data.sources.isic2018 import GROUND_TRUTH
from skinlesion.data.sources.layout import METADATA_NAMES, Inputs, read_the_table, walk

logger = logging.getLogger(__name__)

# A name that begins with a full stop is none of the user's: macOS packs such a shadow beside every file.
_JPEG = re.compile(r"([^.].*)\.(?i:jpe?g)")
_OTHER_PICTURE = re.compile(r"[^.].*\.(?i:png|bmp|tiff?|webp|heic|dcm)")
_TABLE = re.compile(r"[^.].*\.(?i:csv|tab|tsv)")


def jpeg_target(name: str, raw: Path) -> Path | None:
    """Where an image goes, by its base name, which is its id; None for what is no JPEG (see `layout.bring_files`)."""
    match = _JPEG.fullmatch(name)
    return image_path(match[1], raw) if match else None


def _is_table(name: str) -> bool:
    return name in (*METADATA_NAMES, GROUND_TRUTH.name) or _TABLE.fullmatch(name) is not None


def find_collection(place: Path) -> Inputs:
    """Look through a folder (with all its folders and zip archives), or into one zip archive.

    Raises
    ------
    PipelineError
        It does not exist, or holds no JPEG, no table, or several different tables.
    """
    if not place.exists():
        raise PipelineError(
            f"{place} not found: set external.path to a folder or zip archive; a relative path starts at the project's root"
        )
    root = place if place.is_dir() else place.parent
    paths = list(walk(place)) if place.is_dir() else [place]
    archives = [path for path in paths if path.suffix.lower() == ".zip"]
    inside = {archive: member_names(archive) for archive in archives}
    names = [path.name for path in paths] + [name for members in inside.values() for name in members]
    others = sorted(name for name in names if _OTHER_PICTURE.fullmatch(name))
    if not any(_JPEG.fullmatch(name) for name in names):
        seen = f"; what it holds is {name_some(others, 3)}: convert them first" if others else ""
        raise PipelineError(f"{place} holds no image as .jpg or .jpeg, loose or in a zip archive{seen}")
    if others:
        logger.warning("left aside, since they are no JPEG: %s", name_some(others))
    table = read_the_table(root, paths, inside, _is_table)
    if table is None:
        raise PipelineError(f"{place} holds no table (.csv, .tab or .tsv) that says what the images show")
    return Inputs(root, *table, [path for path in paths if _JPEG.fullmatch(path.name)], archives)
