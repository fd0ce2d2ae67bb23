"""Two at once: two `dvc repro`, two trainings, and a `dvc repro` beside the training that a killed one left behind."""

import re
import signal

import pytest
from dvc.utils.fs import remove

from tests.drills.conftest import only_full
from tests.drills.ledger import Ledger
from tests.drills.project import Project, wait_for

TRAIN = ("python", "-m", "stages.train", "--member", "base", "--seed", "0")
DVC_BUSY = r"ERROR: .*(is busy, it is being blocked by:\s+\(PID \d+\): \S*dvc repro|Unable to acquire lock)"
STAGE_BUSY = r"error: another process is running train@base-0 in this workspace .*: wait until it ends, or end it"


@pytest.mark.parametrize("stage", ["train@base-0", pytest.param("split", marks=only_full)])
def test_the_second_dvc_is_told(project: Project, ledger: Ledger, stage: str) -> None:
    with ledger.round("together", "second dvc repro while a stage runs"):
        project.forget(stage)
        first = project.start("dvc", "repro")
        first.wait_until(f"Running stage '{stage}'")
        project.refuse("dvc", "repro", why=DVC_BUSY)
        assert first.end() == 0, first.output
        project.check()


@only_full
def test_both_begin_at_the_same_moment(project: Project, ledger: Ledger) -> None:
    with ledger.round("together", "two dvc repro started at once"):
        project.forget("split")
        both = [project.start("dvc", "repro") for _ in range(2)]
        refused = [process for process in both if process.end() != 0]
        assert all(re.search(DVC_BUSY, process.output) for process in refused), [process.output for process in both]
        project.restore()


@only_full
def test_two_trainings_by_hand(project: Project, ledger: Ledger) -> None:
    with ledger.round("together", "two python -m stages.train at once"):
        for path in ("models/members/base-0", "plots/train/base-0", "metrics/train/base-0.json"):
            remove(project.folder / path)
        first = project.start(*TRAIN)
        first.wait_until(r"epoch 1/")
        first.send(signal.SIGSTOP, to_all=True)  # as slow as a real one
        project.refuse(*TRAIN, why=STAGE_BUSY)
        first.send(signal.SIGCONT, to_all=True)
        assert first.end() == 0, first.output
        # What the first one wrote is what DVC knows, but DVC was not there: it says nothing changed.
        project.check()


def test_a_training_that_outlived_its_dvc(project: Project, ledger: Ledger) -> None:
    with ledger.round("together", "dvc repro beside a killed one's training"):
        project.forget("train@base-0")
        killed = project.start("dvc", "repro")
        killed.wait_until(r"epoch 1/")
        killed.send(signal.SIGKILL, to_all=False)
        killed.end()
        orphans = project.orphans()  # the training and its loading processes
        for orphan in orphans:
            orphan.suspend()
        project.refuse("dvc", "repro", why=STAGE_BUSY)
        for orphan in orphans:
            orphan.resume()
        wait_for(lambda: not project.orphans(), "the end of the training that lived on")
        project.restore()
