"""The clock goes backwards, in the middle of a run and between two: results stay, and no duration is negative."""

import os
import re
import time
from pathlib import Path

import pytest

from tests.drills.conftest import only_full
from tests.drills.ledger import Ledger
from tests.drills.project import Project
from tests.pipeline.clone import stages_run

DAY = 86_400
LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"))
needs_faketime = pytest.mark.skipif(not LIBRARIES, reason="needs libfaketime (Debian, Ubuntu: apt-get install faketime)")


def another_clock(file: Path) -> dict[str, str]:
    """The environment of a process whose clock is as far off as `file` says at every look; the monotonic one is right."""
    on = dict.fromkeys(("FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"), "1")
    return {"LD_PRELOAD": str(LIBRARIES[0]), "FAKETIME_TIMESTAMP_FILE": str(file)} | on


def negative_numbers(output: str) -> list[str]:
    """What is said to have taken, or to be going to take, less than nothing."""
    return re.findall(r"-\d[\d.]* ?(?:s|images/s|min|h)\b", output)


@needs_faketime
@pytest.mark.parametrize(
    ("stage", "moment"), [("train@base-0", r"epoch 3/"), pytest.param("prepare", r"Running stage 'prepare'", marks=only_full)]
)
def test_in_the_middle_of_a_run(project: Project, ledger: Ledger, stage: str, moment: str) -> None:
    with ledger.round("clock", f"a day back in {stage}"):
        offset = project.folder.parent / "clock"
        offset.write_text("+0", encoding="utf-8")
        project.forget(stage)
        process = project.start("dvc", "repro", environment=another_clock(offset))
        process.wait_until(moment)
        offset.write_text("-1d", encoding="utf-8")
        assert process.end() == 0, process.output
        assert negative_numbers(process.output) == []
        project.check()


@needs_faketime
@only_full
def test_between_two_runs(project: Project, ledger: Ledger) -> None:
    with ledger.round("clock", "a day back between two runs"):
        offset = project.folder.parent / "clock"
        offset.write_text("-1d", encoding="utf-8")
        assert stages_run(project.succeed("dvc", "repro", environment=another_clock(offset))) == []
        project.forget("evaluate")
        output = project.succeed("dvc", "repro", environment=another_clock(offset))
        assert stages_run(output) == ["evaluate"], output
        assert negative_numbers(output) == []
        project.check()


@only_full
def test_files_of_tomorrow(project: Project, ledger: Ledger) -> None:
    with ledger.round("clock", "files dated tomorrow"):
        tomorrow = time.time() + DAY
        for name in ("data", "models", "plots", "metrics", "stages", "skinlesion", ".dvc/cache"):
            for path in [*(project.folder / name).rglob("*"), project.folder / "params.yaml"]:
                os.utime(path, (tomorrow, tomorrow))
        assert stages_run(project.repro()) == []
        project.forget("threshold-sweep")
        assert stages_run(project.restore()) == ["threshold-sweep"]
