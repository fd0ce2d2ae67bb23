"""`python -m tools.mend`: what a kill of DVC left of its own files is mended, and what is whole or in use is left alone."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import zc.lockfile

from tests.conftest import refuses
from tests.pipeline.clone import make_repository
from tools import mend

LOCK = "schema: '2.0'\nstages:\n  train:\n    cmd: train\n    outs:\n    - path: model\n      md5: ab12\n"


@pytest.fixture
def lock(workspace: Path) -> Path:
    """The lock file of a workspace in which DVC has run."""
    (workspace / ".dvc/tmp").mkdir(parents=True)
    (workspace / ".dvc/tmp/rwlock").write_text("{}", encoding="utf-8")
    path = workspace / "dvc.lock"
    path.write_text(LOCK, encoding="utf-8")
    return path


CUT = [
    "",
    "schema: '2",
    "schema: '2.0'\nstages:\n  train:\n    cm",
    "schema: '2.0'\nstages: [",
    "stages: {}",
    "- 1",
    LOCK.partition("th: model")[0],
]


@pytest.mark.parametrize("cut", CUT)
def test_a_cut_lock_file_is_taken_away(lock: Path, cut: str, caplog: pytest.LogCaptureFixture) -> None:
    lock.write_text(cut, encoding="utf-8")
    mend.main()
    assert not lock.exists()
    assert "dvc.lock was cut, as by a kill of DVC, and is taken away (to dvc.lock.cut)" in caplog.text
    assert (lock.parent / "dvc.lock.cut").read_text(encoding="utf-8") == cut  # maybe somebody's own edit that has a mistake


def test_or_is_again_as_committed(lock: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_repository(lock.parent, "first")
    lock.write_text("", encoding="utf-8")
    mend.main()
    assert lock.read_text(encoding="utf-8") == LOCK
    assert "dvc.lock was cut, as by a kill of DVC, and is again as committed" in caplog.text


def test_a_merge_conflict_is_no_cut(lock: Path) -> None:
    text = f"<<<<<<< HEAD\n{LOCK}=======\n{LOCK.replace('ab12', 'cd34')}>>>>>>> theirs\n"
    lock.write_text(text, encoding="utf-8")
    refuses(r"dvc.lock is in a merge conflict: take one side", mend.main)
    assert lock.read_text(encoding="utf-8") == text


def test_a_cut_rwlock_is_taken_away(lock: Path, caplog: pytest.LogCaptureFixture) -> None:
    rwlock = lock.parent / ".dvc/tmp/rwlock"
    rwlock.write_text("", encoding="utf-8")
    mend.main()
    assert not rwlock.exists() and lock.read_text(encoding="utf-8") == LOCK
    assert caplog.messages == [".dvc/tmp/rwlock was cut, as by a kill of DVC, and is taken away"]


def test_what_is_whole_stays_and_nothing_is_said(lock: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    mend.main()
    assert lock.read_text(encoding="utf-8") == LOCK and (lock.parent / ".dvc/tmp/rwlock").exists()
    assert caplog.messages == []


def test_nothing_is_touched_while_dvc_is_at_work(lock: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock.write_text("", encoding="utf-8")  # as it is while DVC writes it
    holder = "import sys, zc.lockfile; lock = zc.lockfile.LockFile('.dvc/tmp/lock'); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        mend.main()
        assert lock.exists() and "another DVC is at work here" in caplog.text
        process.communicate("")
    mend.main()
    assert not lock.exists()
    zc.lockfile.LockFile(".dvc/tmp/lock").close()  # let go of
