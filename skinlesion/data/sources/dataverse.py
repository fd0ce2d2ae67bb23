"""HAM10000's original archives on Harvard Dataverse (doi:10.7910/DVN/DBW86T), by file id and published MD5."""

import logging
from dataclasses import dataclass
from pathlib import Path

from skinlesion.data.sources.transfer import fetch

logger = logging.getLogger(__name__)

SERVER = "https://dataverse.harvard.edu/api/access/datafile"
ORIGIN = "https://doi.org/10.7910/DVN/DBW86T"


@dataclass(frozen=True)
class RemoteFile:
    """A file of the data set: name, Dataverse's number, hexadecimal MD5, bytes (None if not published), query."""

    name: str
    number: int
    md5: str
    size: int | None
    query: str = ""


# The small ones first: what is wrong with the line or the server shows before gigabytes have come. The metadata is asked in
# its original format, because Dataverse's default is a tab-separated re-export that fails the published MD5.
FILES: tuple[RemoteFile, ...] = (
    RemoteFile("HAM10000_metadata", 4338392, "8f85fb1aa29d80a2797247e434deb79d", 690_218, "?format=original"),
    RemoteFile("HAM10000_segmentations_lesion_tschandl.zip", 3838943, "6e8d252e09cfdb0189199f15985a5b84", None),
    RemoteFile("HAM10000_images_part_1.zip", 3172585, "4639bfa73ab251610530a97c898e6e46", 1_366_522_108),
    RemoteFile("HAM10000_images_part_2.zip", 3172584, "da43d6cc50f6613013be07e8986b384b", 1_403_566_547),
)


def download(folder: Path) -> None:
    """Bring every file, each verified, into `folder`; what is there is asked for again only if damaged, what was cut is resumed.

    Raises
    ------
    PipelineError
        As `transfer.fetch`.
    """
    for file in FILES:
        bring(file, folder)


def bring(file: RemoteFile, folder: Path, *, section: str = "download") -> None:
    """Bring one file into `folder`, for a section of `params.yaml`; raises as `transfer.fetch`."""
    way_out = (
        f"A browser may get them: download the files one by one from {ORIGIN} into a folder (what is whole already lies in "
        f"{folder}), then set {section}.source=local and {section}.path to that folder"
    )
    logger.info("downloading %s from Harvard Dataverse", file.name)
    fetch(f"{SERVER}/{file.number}{file.query}", folder / file.name, md5=file.md5, size=file.size, way_out=way_out)
