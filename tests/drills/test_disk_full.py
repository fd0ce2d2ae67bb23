"""Drill: the disk is full after so many bytes. One clear message, nothing half-written; with space again, the same outputs."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, WriteParams
from tests.data.download_cases import kaggle_files, pack, write_files
from tests.drills.conftest import wants_full
from tests.drills.ledger import Corrupt, Ledger
from tests.properties import networks
from tests.training.training_cases import ARGUMENTS, TINY, write_inputs

# To mount and unmount: as on a runner whose user may become root without a password.
AS_ROOT = ["sudo", "-n"] if os.geteuid() and shutil.which("sudo") else []
DISK = 192 * 1024**2  # bytes of the small disk; what a stage writes here is far less
OUTPUTS = ("data", "models", "metrics", "plots")


@dataclass(frozen=True)
class Stage:
    """A stage, what it needs, and how many amounts of space are tried in short and in full."""

    module: str
    prepare: Callable[[WriteParams], None]
    arguments: tuple[str, ...] = ()
    short: int = 2
    full: int = 8


def sample(write_params: WriteParams) -> None:
    write_params({"download.sample.lesions": 21, "download.sample.width": 64, "download.sample.height": 64})


def archives(write_params: WriteParams) -> None:
    files = kaggle_files()
    parts = {f"{part}.zip": pack({path: files[path] for path in files if part in path}) for part in ("part_1", "part_2", "segm")}
    write_files(Path("source"), parts | {"HAM10000_metadata.csv": files["HAM10000_metadata.csv"]})
    write_params({"download.source": "local", "download.path": "source", "download.expect": "any"})


def raw_images(write_params: WriteParams) -> None:
    files = kaggle_files(masks=False).items()
    write_files(Path("data/raw"), {f"images/{Path(path).name}": content for path, content in files if path.endswith(".jpg")})
    write_params({"prepare.size": 128})


def trainable(write_params: WriteParams) -> None:
    write_inputs(images=70)
    write_params(TINY | {"train.epochs": 2, "train.backbone": networks.BACKBONE})


STAGES = {
    "download of the sample": Stage("stages.download", sample, short=0),
    "download of a folder": Stage("stages.download", archives, short=1),
    "prepare": Stage("stages.prepare", raw_images, short=2),
    "train": Stage("stages.train", trainable, tuple(ARGUMENTS), short=1, full=6),
    "evaluate": Stage("stages.evaluate", networks.lay_out, short=0, full=6),
}


@pytest.fixture
def small_disk(workspace: Path) -> Iterator[Path]:
    """A disk of `DISK` bytes, mounted for the length of the test."""
    place = workspace / "disk"
    place.mkdir()
    options = f"size={DISK},uid={os.getuid()},gid={os.getgid()}"
    command = [*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs to mount a small disk, as root: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run([*AS_ROOT, "umount", "--lazy", str(place)], check=True)


@contextmanager
def filled_up(disk: Path, *, free: int) -> Iterator[None]:
    """All of the disk but `free` bytes is taken."""
    filler = disk / "filler"
    left = shutil.disk_usage(disk).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, left - free))
    try:
        yield
    finally:
        filler.unlink()


def run(stage: Stage) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", stage.module, *stage.arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def snapshot() -> dict[str, str]:
    """Digest of every file that stages write, by path."""
    files = (path for folder in OUTPUTS for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def enter(folder: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder with a copy of the inputs becomes the working directory; what of a stage's outputs is there already."""
    shutil.copytree(inputs, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    return snapshot()


@pytest.mark.parametrize("name", STAGES)
def test_a_full_disk(
    name: str, workspace: Path, small_disk: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    stage = STAGES[name]
    rounds = stage.full if wants_full() else stage.short
    if not rounds:
        pytest.skip("in full alone (DRILLS=full)")
    given, quiet = workspace / "given", workspace / "quiet"
    given.mkdir()
    monkeypatch.chdir(given)
    stage.prepare(write_params)
    enter(quiet, given, monkeypatch)
    ended = run(stage)
    assert ended.returncode == 0, ended.stderr
    expected, need = snapshot(), used(quiet) - used(given)

    inputs = enter(small_disk, given, monkeypatch)
    for number in range(rounds):
        free = need * (2 * number + 1) // (2 * rounds)  # in the middle of equal shares
        with ledger.round("disk full", f"no space left in {name}") as facts:
            facts["need"], facts["free"] = need, free
            one_round(stage, small_disk, free, inputs, expected)


def one_round(stage: Stage, disk: Path, free: int, inputs: dict[str, str], expected: dict[str, str]) -> None:
    """Run with so much space, and again with enough of it."""
    with filled_up(disk, free=free):
        ended = run(stage)
    if ended.returncode == 0:
        raise Corrupt(f"{stage.module} says that it wrote more than there was space for")
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1, ended.stderr
    assert last.startswith("error: No space left on device"), ended.stderr
    assert "free some space and run the same command again" in last
    assert "Traceback" not in ended.stderr, ended.stderr
    left = snapshot()
    halves = [path for path in left if "partial" in path]
    if halves or any(left[path] != inputs[path] for path in inputs):
        raise Corrupt(f"half-written after a full disk: {halves or sorted(left)}")
    if torn := [path for path in left.keys() - inputs.keys() if left[path] != expected.get(path)]:
        raise Corrupt(f"not what an undisturbed run writes: {torn}")
    ended = run(stage)
    assert ended.returncode == 0, ended.stderr
    if snapshot() != expected:
        raise Corrupt("after a full disk the same command ends with something else than an undisturbed run")
    for path in expected.keys() - inputs.keys():
        Path(path).unlink()


@pytest.fixture(autouse=True)
def mounts_are_gone(workspace: Path) -> Iterator[None]:
    """No mount outlives a test."""
    yield
    deadline = time.monotonic() + 10
    while str(workspace) in Path("/proc/mounts").read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, "the small disk is still mounted"
        time.sleep(0.1)
