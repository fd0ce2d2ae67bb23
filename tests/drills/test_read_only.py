"""A workspace that cannot be written: every command says so in one message, at once, and changes nothing."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drills.conftest import wants_full
from tests.drills.ledger import Corrupt, Ledger
from tests.drills.project import Project
from tests.pipeline.clone import STAGES

# Within a mount name space of its own, which goes with the process; for who is not root, within a user name space too.
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
MOUNT = 'mount --bind "$PWD" "$PWD" && mount -o remount,ro,bind "$PWD" && cd "$PWD" && exec "$@"'
REFUSED = r"error: Read-only file system at \S+: the file system is read-only; use a workspace that can be written"


def read_only(*command: str) -> list[str]:
    """The command, run where the working directory is read-only."""
    return [*UNSHARE, "sh", "-c", MOUNT, "sh", *command]


def can_mount(folder: Path) -> bool:
    """Whether this machine lets us."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(read_only("true"), cwd=folder, capture_output=True, check=False).returncode == 0


@pytest.fixture
def frozen(project: Project) -> Project:
    """The project, where the machine can make it read-only."""
    if not can_mount(project.folder):
        pytest.skip("needs unshare and mount, as root or in a user name space")
    return project


def everything(folder: Path) -> dict[str, tuple[str, float]]:
    """MD5 and time of every file."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): (hashlib.md5(path.read_bytes()).hexdigest(), path.stat().st_mtime) for path in files}


def hold_unchanged(before: dict[str, tuple[str, float]], folder: Path) -> None:
    if everything(folder) != before:
        raise Corrupt("something was written")


def test_dvc_names_the_file(frozen: Project, ledger: Ledger) -> None:
    with ledger.round("read-only", "dvc repro"):
        frozen.forget("split")
        before = everything(frozen.folder)
        error = r"(?m)^ERROR: .*Read-only file system: '\S+'"
        assert len(re.findall(error, frozen.refuse(*read_only("dvc", "repro"), why=error))) == 1
        hold_unchanged(before, frozen.folder)
        frozen.restore()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_run_says_no_more_than_dvc(frozen: Project, ledger: Ledger) -> None:
    with ledger.round("read-only", "make run"):
        environment = Path(sys.executable).parents[1]
        before = everything(frozen.folder)
        # -o: the environment is there, whatever the times of the copied requirements say.
        status, output = frozen.run(*read_only("make", f"VENV={environment}", "-o", f"{environment}/.installed", "run"))
        assert status == 2 and "Traceback" not in output, output
        assert len(re.findall(r"(?m)^(?:ERROR|error): .*Read-only file system", output)) == 1, output
        hold_unchanged(before, frozen.folder)


@pytest.mark.parametrize("stage", STAGES if wants_full() else ["train@base-0"])
def test_a_stage_by_hand(frozen: Project, ledger: Ledger, stage: str) -> None:
    with ledger.round("read-only", "a stage by hand"):
        module, _, member = stage.partition("@")
        options = ["--member", "base", "--seed", "0"] if member else []
        before = everything(frozen.folder)
        frozen.refuse(*read_only("python", "-m", f"stages.{module.replace('-', '_')}", *options), why=REFUSED)
        hold_unchanged(before, frozen.folder)
