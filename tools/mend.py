"""Mend what a kill made of DVC's own files: `python -m tools.mend` (`make run` and `make repro` begin with it).

Reads   dvc.lock, extras/dvc.lock and .dvc/tmp/rwlock
Writes  a lock file that is cut, as the last commit has it, or takes it away where none has; it is kept as dvc.lock.cut. Takes a
        cut rwlock away

DVC empties these files before it writes them, and for a dvc.lock of this length that takes a few tenths of a second: killed or
interrupted in them, it refuses every further command. What had been run by then is in its run cache, so that the next `dvc repro`
runs nothing again. While another DVC is at work nothing is touched.
"""

import json
import logging
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import zc.lockfile
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from voluptuous import Invalid

from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_file

LOCK_FILES = (Path("dvc.lock"), Path("extras/dvc.lock"))
DVC_FILES = Path(".dvc/tmp")
CONFLICT = re.compile(r"^(<<<<<<<|=======|>>>>>>>)", re.MULTILINE)

logger = logging.getLogger(__name__)


def is_lock(text: str) -> bool:
    """Whether DVC takes a text for a lock file, by its own schema: a cut one can be YAML still."""
    COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe", pure=True).load(text))
    return True


def is_whole(path: Path, is_right: Callable[[str], bool]) -> bool:
    """Whether a file is what it should be; one that is not there is."""
    try:
        return not path.exists() or is_right(path.read_text(encoding="utf-8"))
    except (YAMLError, Invalid, ValueError):
        return False


def committed(path: Path) -> str | None:
    """A file as the last commit has it."""
    command = ["git", "show", f"HEAD:./{path.as_posix()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    except FileNotFoundError:  # no git
        return None
    return done.stdout if done.returncode == 0 else None


def mend_lock_file(path: Path) -> None:
    """Put the committed lock file in the place of one that is cut, or take it away; what was there is kept beside it.

    Raises
    ------
    PipelineError
        It is not cut, but in a merge conflict.
    """
    if CONFLICT.search(path.read_text(encoding="utf-8", errors="replace")):
        raise PipelineError(
            f"{path} is in a merge conflict: take one side (`git checkout --ours {path}`, or --theirs), then `dvc repro`, which "
            "brings the rest from what is cached"
        )
    before, kept = committed(path), path.with_name(f"{path.name}.cut")
    os.replace(path, kept)
    outcome = f"is taken away (to {kept}): `dvc repro` writes it anew from what is cached"
    if before is not None:
        with atomic_file(path) as partial:
            partial.write_text(before, encoding="utf-8")
        outcome = f"is again as committed (it is kept as {kept}): `dvc repro` adds what has been run since"
    logger.warning("%s was cut, as by a kill of DVC, and %s", path, outcome)


def main() -> None:
    if not DVC_FILES.is_dir():
        return  # DVC has never run here
    try:
        held = zc.lockfile.LockFile(str(DVC_FILES / "lock"))
    except zc.lockfile.LockError:
        logger.warning("another DVC is at work here, so that nothing is mended")
        return
    try:
        for path in LOCK_FILES:
            if not is_whole(path, is_lock):
                mend_lock_file(path)
        rwlock = DVC_FILES / "rwlock"
        if not is_whole(rwlock, lambda text: isinstance(json.loads(text), dict)):  # DVC's list of who reads and writes what
            rwlock.unlink()
            logger.warning("%s was cut, as by a kill of DVC, and is taken away", rwlock)
    finally:
        held.close()


if __name__ == "__main__":
    run_stage(main)
