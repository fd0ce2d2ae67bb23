"""Killed, terminated or interrupted at random moments of every stage: the next `dvc repro` ends as if nothing had been."""

import re
import signal
import time
from dataclasses import dataclass
from random import Random

import pytest

from tests.drills.conftest import seed_of_moments, wants_full
from tests.drills.ledger import Ledger
from tests.drills.project import Process, Project, wait_for
from tests.pipeline.clone import STAGES

CUT = r"'\./dvc\.lock' (is invalid|validation failed)|unable to read: 'dvc\.lock'|Unable to read RWLock-file"
TOLD = r"error: another process is running \S+ in this workspace \(\.resume/running/\S+ is locked\): wait until it ends"


@dataclass(frozen=True)
class Fault:
    """A signal, to the whole process group or to dvc alone, whose stage then lives on."""

    name: str
    number: signal.Signals
    to_all: bool


KILLED = Fault("SIGKILL", signal.SIGKILL, to_all=True)
ORPHANED = Fault("SIGKILL of dvc alone", signal.SIGKILL, to_all=False)
TERMINATED = Fault("SIGTERM", signal.SIGTERM, to_all=True)
INTERRUPTED = Fault("Ctrl-C", signal.SIGINT, to_all=True)
FAULTS = (KILLED, ORPHANED, TERMINATED, INTERRUPTED)

Round = tuple[str, Fault, int]
# Every stage killed once, and each other fault once.
SHORT: list[Round] = [
    *((stage, KILLED, 0) for stage in STAGES),
    *(("prepare", ORPHANED, 0), ("evaluate", TERMINATED, 0), ("download", INTERRUPTED, 0)),
]
# Every stage with every fault, and once more the stages that write most.
FULL: list[Round] = [
    *((stage, fault, 0) for stage in STAGES for fault in FAULTS),
    *((stage, fault, 1) for stage in ("download", "prepare", "evaluate", "gradcam") for fault in (KILLED, ORPHANED)),
]
# After which epoch a training is hit, somewhere in the next ones, and how.
EPOCHS = [(4, KILLED)]
if wants_full():
    EPOCHS += [(1, KILLED), (7, KILLED), (10, KILLED), (2, TERMINATED), (3, TERMINATED), (5, TERMINATED), (8, TERMINATED)]


def name_of(value: object) -> str:
    """How a round is called."""
    return value.name.replace(" ", "-") if isinstance(value, Fault) else str(value)


def interrupt(project: Project, stage: str, fault: Fault, moment: float, *, after: str) -> tuple[Process, float]:
    """Run the pipeline, and break it `moment` seconds after it has said `after`; earlier where it had ended by then.

    Returns
    -------
    The process, its end waited for, and the moment at which it was broken.
    """
    while True:
        process = project.start("dvc", "repro")
        process.wait_until(after)
        time.sleep(moment)
        if not process.has_ended():
            process.send(fault.number, to_all=fault.to_all)
            assert process.end() != 0, f"it was told to end, and succeeded:\n{process.output}"
            return process, moment
        process.end()
        project.forget(stage)
        moment /= 2


def recover(project: Project, facts: dict[str, object]) -> str:
    """The same command again, as README says: where DVC was hit while it wrote a file of its own, that is mended first; where the
    stage of a killed dvc lives on, the next one may be told so, and to wait. What was needed is written down.
    """
    status, answer = project.run("dvc", "repro")
    if status and re.search(CUT, answer):
        facts["mended"] = True
        assert project.run("python", "-m", "tools.mend")[0] == 0  # as `make repro` does before `dvc repro`
        status, answer = project.run("dvc", "repro")
    if status and re.search(TOLD, answer):
        facts["told"] = True
        wait_for(lambda: not project.orphans(), "the end of the stage that lived on")
        return project.repro()
    assert status == 0, f"dvc repro ended with {status}:\n{answer}"
    return answer


@pytest.mark.parametrize(("stage", "fault", "number"), FULL if wants_full() else SHORT, ids=name_of)
def test_the_next_run_ends_as_if_nothing_was(project: Project, ledger: Ledger, stage: str, fault: Fault, number: int) -> None:
    seed = seed_of_moments()
    drawn = Random(f"{seed} {stage} {fault.name} {number}").uniform(0.0, project.reference.seconds[stage])
    with ledger.round("interrupted", f"{fault.name} in {stage}") as facts:
        project.forget(stage)
        process, moment = interrupt(project, stage, fault, drawn, after=f"Running stage '{stage}'")
        facts |= {"seed": seed, "moment": round(moment, 3)}
        recover(project, facts)
        wait_for(lambda: not project.orphans(), "the end of the stage that lived on")
        project.check()
        assert "Traceback" not in process.output, process.output


@pytest.mark.parametrize(("epoch", "fault"), EPOCHS, ids=name_of)
def test_a_training_goes_on_from_its_last_epoch(project: Project, ledger: Ledger, epoch: int, fault: Fault) -> None:
    seed = seed_of_moments()
    drawn = Random(f"{seed} epoch {epoch}").uniform(0.0, 0.15)  # an epoch takes about as long
    with ledger.round("interrupted", f"{fault.name} among the epochs") as facts:
        project.forget("train@base-0")
        process, moment = interrupt(project, "train@base-0", fault, drawn, after=rf"epoch {epoch}/\d+: ")
        reached = max(map(int, re.findall(r"epoch (\d+)/", process.output)))
        facts |= {"seed": seed, "moment": round(moment, 3), "reached": reached}
        resumed = re.search(r"resuming from \S+ after epoch (\d+)", recover(project, facts))
        assert resumed or reached == 12, "it began anew"
        assert resumed is None or int(resumed[1]) >= epoch - 1
        project.check()
        assert "Traceback" not in process.output, process.output


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7] if wants_full() else [0.0])
def test_cut_while_dvc_writes_its_lock_file(project: Project, ledger: Ledger, share: float) -> None:
    """A few tenths of a second after each stage that random moments seldom meet: DVC has emptied the file, and is writing it."""
    with ledger.round("interrupted", "SIGKILL while DVC writes dvc.lock") as facts:
        path, rwlock = project.folder / "dvc.lock", project.folder / ".dvc/tmp/rwlock"
        content = path.read_text(encoding="utf-8")
        path.write_text(content[: int(share * len(content))], encoding="utf-8")
        rwlock.write_text("", encoding="utf-8")
        facts |= {"share": share, "mended": True}
        assert "rwlock was cut" in project.run("python", "-m", "tools.mend")[1]
        assert "Running stage" not in recover(project, facts)
        project.check()
