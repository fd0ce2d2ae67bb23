"""One process at a time in a stage; and a process that is told to end takes its temporary files with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from skinlesion.base import locks
from skinlesion.base.errors import PipelineError
from stages import prepare, split
from tests.conftest import ROOT, MakeRaw, WriteParams, refuses

# It writes a folder and, once told that it may, puts it in place.
WRITER = """
import time
from pathlib import Path
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder
from skinlesion.base.locks import one_at_a_time

@one_at_a_time("prepare")
def main():
    with atomic_folder(Path("data/prepared")) as folder:
        (folder / "half").write_text("half")
        if {fork}:
            import os
            if os.fork() == 0:
                Path("forked").write_text(str(os.getpid()))
                time.sleep(60)
        Path("begun").touch()
        time.sleep(60)

run_stage(main)
"""


@contextmanager
def begun(folder: Path, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has come to where it says that it has begun."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE, **options) as process:
        wait_for((folder / "begun").exists)
        try:
            yield process
        finally:
            process.kill()


def writer(folder: Path, *, fork: bool = False) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that is in the middle of writing data/prepared."""
    return begun(folder, "-c", WRITER.format(fork=fork))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_process_is_told_and_changes_nothing(
    workspace: Path, write_params: WriteParams, make_raw: MakeRaw, metadata: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params({"split.max_deviation": 5.0})
    make_raw(metadata)
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 0.1)
    with writer(workspace) as first:
        # The message names the stage and the file; what the first one has written stays its own.
        refuses(r"another process is running prepare in this workspace \(.resume", prepare.main)
        assert (workspace / "data/.prepared.partial/half").read_text() == "half"
        split.main()  # another stage is free to run
        first.kill()
        first.wait()
        with pytest.raises(PipelineError, match="broken image"):  # the lock went with the process; these images are empty files
            prepare.main()


def test_a_terminated_process_takes_its_temporary_files_away(workspace: Path) -> None:
    with writer(workspace) as process:
        process.send_signal(signal.SIGTERM)
        stderr = process.communicate(timeout=30)[1]
    assert (process.returncode, stderr) == (1, "terminated\n")
    assert list((workspace / "data").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_terminated_child_leaves_its_parents_files_alone(workspace: Path) -> None:
    with writer(workspace, fork=True) as process:
        forked = workspace / "forked"
        wait_for(lambda: forked.exists() and forked.read_text() != "")
        child = int(forked.read_text())
        os.kill(child, signal.SIGTERM)
        wait_for(lambda: "Z" in Path(f"/proc/{child}/stat").read_text() if Path("/proc").is_dir() else True)
        assert (workspace / "data/.prepared.partial/half").read_text() == "half"
        assert process.poll() is None


# As a training: torch's handler raises where a loading process ends, and the files that are to go are many.
TRAINING = """
import os, signal, time
from pathlib import Path
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder

def fell(number, frame):
    raise RuntimeError("DataLoader worker is killed by signal: Terminated.")

def main():
    with atomic_folder(Path("data/prepared")) as folder:
        for number in range(3000):
            (folder / str(number)).touch()
        signal.signal(signal.SIGCHLD, fell)
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(60)
        Path("begun").touch()
        time.sleep(60)

run_stage(main)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_nothing_cuts_the_unwinding_short(workspace: Path) -> None:
    """The whole group is told to end, and once more while the files are taken away."""
    with begun(workspace, "-c", TRAINING, start_new_session=True) as process:
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        stderr = process.communicate(timeout=30)[1]
    assert (process.returncode, stderr) == (1, "terminated\n")
    assert list((workspace / "data").iterdir()) == []


def heed_interrupts() -> None:
    """A shell without job control has what it starts in the background ignore them, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interruption_among_the_imports_is_one_line(workspace: Path) -> None:
    (workspace / "pandas.py").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(60)\n")
    with begun(workspace, "-m", "stages.split", preexec_fn=heed_interrupts) as process:
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=30)[1]
    assert stderr == "interrupted\n" and process.returncode != 0
