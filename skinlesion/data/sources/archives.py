"""Read the wanted files of a zip archive without trusting it: no path of its own, bounded in number and in bytes."""

import errno
import logging
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from skinlesion.base.errors import PipelineError, reason_of

logger = logging.getLogger(__name__)

# The Kaggle mirror has 20,036 members and 5.6 GB with its doubled folders; an image of 600 x 450 pixels has some 300 kB.
MAX_MEMBERS = 100_000
MAX_FILE_BYTES = 64 * 1024**2
MAX_TOTAL_BYTES = 20 * 1024**3

# What `zipfile` and its decoders raise for an archive that is none, is broken or lies. A ValueError comes of positions before the
# beginning and of names that are no UTF-8; an OSError of bzip2, and of positions that no file has.
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, struct.error, ValueError, OverflowError),
    *(RuntimeError, IndexError),
)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive, refuse one with too many members, and name it in whatever shows that it is broken."""
    try:
        with zipfile.ZipFile(archive) as opened:
            if len(opened.infolist()) > MAX_MEMBERS:
                raise PipelineError(f"{archive} has {len(opened.infolist()):,} members, more than {MAX_MEMBERS:,}: not HAM10000")
            yield opened
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's, not the archive's
        raise PipelineError(
            f"{archive} is no whole zip archive, or is packed in a way that Python cannot read ({reason_of(error)}): get it again"
        ) from None


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive: by its ending, or, where it has none, by its content."""
    return path.suffix.lower() == ".zip" or (not path.suffix and zipfile.is_zipfile(path))


def _parts(member: zipfile.ZipInfo) -> list[str]:
    """Its folders and its name, whatever separator the archive's author used; the name is empty for a folder."""
    return re.split(r"[/\\]", member.filename)


def _is_aside(member: zipfile.ZipInfo, aside: re.Pattern[str] | None) -> bool:
    return aside is not None and any(aside.match(part) for part in _parts(member))


def member_names(archive: Path, aside: re.Pattern[str] | None = None) -> list[str]:
    """Base names of an archive's files, sorted, without those whose name, or a folder's above them, `aside` matches.

    Raises
    ------
    PipelineError
        It is broken or has more than `MAX_MEMBERS` members.
    """
    with _opened(archive) as opened:
        members = [member for member in opened.infolist() if not _is_aside(member, aside)]
        if left := len(opened.infolist()) - len(members):
            logger.warning("left aside in %s, no part of HAM10000: %d members", archive, left)
        return sorted(name for member in members if (name := _parts(member)[-1]))


def read_members(
    archive: Path, wanted: Callable[[str], object], aside: re.Pattern[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Base name and content of every member whose base name is wanted, in the archive's order, without those of `aside`.

    Raises
    ------
    PipelineError
        A member is encrypted, broken or over `MAX_FILE_BYTES`, or all together are over `MAX_TOTAL_BYTES` (counted while
        reading, whatever the archive declares).
    """
    total = 0
    with _opened(archive) as opened:
        for member in opened.infolist():
            name = _parts(member)[-1]
            if not wanted(name) or _is_aside(member, aside):
                continue
            if member.flag_bits & 1:
                raise PipelineError(f"{archive}: {name} is encrypted: unpack the archive yourself and give the folder as path")
            with opened.open(member) as file:
                content = file.read(MAX_FILE_BYTES + 1)
            total += len(content)
            if len(content) > MAX_FILE_BYTES:
                raise PipelineError(
                    f"{archive}: {name} unpacks to more than {MAX_FILE_BYTES:,} bytes, which no image of HAM10000 does"
                )
            if total > MAX_TOTAL_BYTES:
                raise PipelineError(f"{archive} unpacks to more than {MAX_TOTAL_BYTES:,} bytes, which HAM10000 does not")
            yield name, content
