"""Files of the cache and of the workspace removed or altered: it is noticed, and made good with the documented commands."""

import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.drills.conftest import only_full, wants_full
from tests.drills.ledger import Corrupt, Ledger
from tests.drills.project import Project
from tests.pipeline.clone import STAGES

WEIGHTS = "models/members/base-0/weights.safetensors"
IMAGES = "data/prepared/images.npy"
TABLE = "data/predictions/test.csv"
LIST = "data/predictions"  # of a folder the cache keeps a list of its files
VERIFY = ("python", "-m", "tools.verify_cache")


def flip(path: Path) -> None:
    """Turn a byte in the middle round; the length stays."""
    content = path.read_bytes()
    place = len(content) // 2
    overwrite(path, content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def cut(path: Path, share: float = 0.5) -> None:
    """Lose the second half, or all but another share."""
    content = path.read_bytes()
    overwrite(path, content[: int(share * len(content))])


empty = partial(cut, share=0.0)


def overwrite(path: Path, content: bytes) -> None:
    """Write in place, so that what links to the file changes too; as root could, or a failing disk, the mode staying."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)


def cached(project: Project, name: str) -> Path:
    """The cached file of an output's file, or of a folder its list."""
    folder, digests = project.folder / ".dvc/cache/files/md5", project.reference.outputs | project.reference.files
    return folder / digests[name][:2] / digests[name][2:]


DAMAGE: list[tuple[str, Callable[[Path], None]]] = (
    [(name, damage) for name in (WEIGHTS, IMAGES, TABLE, LIST) for damage in (flip, cut, empty)]
    if wants_full()
    else [(WEIGHTS, flip)]
)


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_altered_behind_dvc(project: Project, ledger: Ledger, name: str, damage: Callable[[Path], None]) -> None:
    """DVC takes a read-only file of its cache for whole: a command of ours has to find it, and to make way for a new one."""
    with ledger.round("cache", "cached file altered, still read-only"):
        damage(cached(project, name))
        altered = rf"error: 1 of \d+ files in \S+ were altered: {re.escape(name)}\. DVC would take them for whole"
        project.refuse(*VERIFY, why=altered)
        output = project.succeed(*VERIFY, "--remove")
        assert re.search(rf"removed 1 of \d+ files: {re.escape(name)}; now run `dvc pull`", output), output
        project.restore()


@pytest.mark.parametrize("name", [WEIGHTS, IMAGES, TABLE, LIST] if wants_full() else [IMAGES])
def test_removed_from_the_cache(project: Project, ledger: Ledger, name: str) -> None:
    with ledger.round("cache", "cached file removed"):
        cached(project, name).unlink()
        assert "not in cache" in project.succeed("dvc", "status", "dvc.yaml")
        project.restore()


def alter_in_place(folder: Path) -> None:
    """What a user without root's rights has to do before an editor can change a linked file: DVC then looks."""
    path = folder / WEIGHTS
    assert path.stat().st_nlink > 1
    path.chmod(0o644)
    flip(path)


def replace_output(folder: Path, name: str = TABLE, damage: Callable[[Path], None] = cut) -> None:
    """As most editors do it: a new file in the old one's place. The cache still has the right one."""
    other = folder / "other"
    shutil.copyfile(folder / name, other)
    damage(other)
    os.replace(other, folder / name)


def remove_outputs(folder: Path) -> None:
    for name in ("data", "models", "plots", "report"):
        shutil.rmtree(folder / name)
    for name in ("data", "models", "plots"):
        (folder / name).mkdir()
        (folder / name / ".gitkeep").touch()


@only_full
@pytest.mark.parametrize(
    ("fault", "damage", "status", "reruns"),
    [
        ("linked output made writable and altered", alter_in_place, "models/members/base-0", True),
        ("output replaced by another file", replace_output, "modified: .*data/predictions", False),
        ("outputs removed from the workspace", remove_outputs, "deleted: .*data/prepared", False),
        ("whole cache removed", lambda folder: shutil.rmtree(folder / ".dvc/cache"), "not in cache", True),
    ],
)
def test_a_workspace_that_is_damaged(
    project: Project, ledger: Ledger, fault: str, damage: Callable[[Path], None], status: str, reruns: bool
) -> None:
    """DVC notices it, and its next run makes it good: from the cache alone where the cache is whole."""
    with ledger.round("cache", fault):
        damage(project.folder)
        noticed = project.succeed("dvc", "status", "dvc.yaml")
        assert re.search(status, noticed), noticed
        assert ("Running stage" in project.restore()) == reruns


@only_full
def test_a_run_that_is_remembered_is_damaged(project: Project, ledger: Ledger) -> None:
    with ledger.round("cache", "run cache cut"):
        runs = {path: path.read_bytes() for path in (project.folder / ".dvc/cache/runs").rglob("*") if path.is_file()}
        assert len(runs) == len(STAGES)
        project.forget("threshold-sweep")
        for path, content in runs.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[:20])
        project.refuse("dvc", "repro", why="failed to reproduce 'threshold-sweep'")
        output = project.succeed(*VERIFY, "--remove")
        assert re.search(rf"removed {len(runs)} of \d+ files: ", output), output
        assert "Running stage 'threshold-sweep'" in project.restore()


BY_HAND = [
    (WEIGHTS, "stages.assemble", cut),
    ("models/classifier/base-0/weights.safetensors", "stages.evaluate", cut),
    *((IMAGES, "stages.evaluate", cut), (IMAGES, "stages.baselines", empty)),
    *((TABLE, "stages.threshold_sweep", cut), (TABLE, "stages.subgroups", empty)),
    *(("data/raw/metadata.csv", "stages.split", cut), ("models/calibration.json", "stages.selective", cut)),
    *(("models/operating_points.json", "stages.failures", empty), ("metrics/evaluate.json", "stages.report", cut)),
]


@pytest.mark.parametrize(("name", "stage", "damage"), BY_HAND if wants_full() else BY_HAND[4:5])
def test_a_stage_refuses_damage(project: Project, ledger: Ledger, name: str, stage: str, damage: Callable[[Path], None]) -> None:
    with ledger.round("cache", "damaged input of a stage by hand"):
        replace_output(project.folder, name, damage)
        status, output = project.run("python", "-m", stage)
        if status == 0:
            raise Corrupt(f"{stage} took a damaged {name} for whole:\n{output}")
        assert "Traceback" not in output and re.search(rf"(?m)^error: .*{re.escape(name)}", output), output
        project.restore()
