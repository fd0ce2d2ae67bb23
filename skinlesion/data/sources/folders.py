"""Every file below a folder, through links too, each folder once; what is left aside is named."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from skinlesion.base.errors import name_some

logger = logging.getLogger(__name__)


def walk(folder: Path, *, aside: re.Pattern[str] | None = None) -> Iterator[Path]:
    """Every file below a folder, in a fixed order, but files and folders whose names `aside` matches.

    Links to folders are followed after all that is no link, unless they lead to what is looked through anyway or above `folder`:
    such a loop would not end.
    """
    seen = {folder.resolve()}
    links: list[Path] = []
    yield from _walk_one(folder, aside, seen, links)
    looped = []
    while links:
        link = links.pop(0)
        target = link.resolve()
        if target in seen or folder.resolve().is_relative_to(target):
            looped.append(link.relative_to(folder).as_posix())
        else:
            seen.add(target)
            yield from _walk_one(link, aside, seen, links)
    if looped:
        logger.warning("left aside, links to folders that are looked through anyway: %s", name_some(sorted(looped)))


def _walk_one(top: Path, aside: re.Pattern[str] | None, seen: set[Path], links: list[Path]) -> Iterator[Path]:
    """The files below `top` that lead through no link; adds the folders to `seen`, and the links to folders to `links`."""

    def refuse(error: OSError) -> None:
        raise error

    for current, folders, files in os.walk(top, onerror=refuse):
        here = Path(current)
        left = {name for name in (*folders, *files) if aside is not None and aside.match(name)}
        if left:
            logger.warning("left aside, no part of HAM10000: %s", name_some(sorted(left)))
        # A pipe would be waited for, a device never ends, and a link may lead nowhere.
        strange = {name for name in files if name not in left and not (here / name).is_file()}
        if strange:
            logger.warning("left aside, no files or links to nowhere: %s", name_some(sorted(strange)))
        below = sorted(set(folders) - left)
        links += [here / name for name in below if (here / name).is_symlink()]
        folders[:] = [name for name in below if not (here / name).is_symlink() and (here / name).resolve() not in seen]
        seen |= {(here / name).resolve() for name in folders}
        yield from (here / name for name in sorted(set(files) - left - strange))
