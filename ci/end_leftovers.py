"""End the processes that this job left behind: those that carry its PIPELINE_JOB in their environment, and no others.

A cancelled job's `dvc` is killed by the runner, but a training in a session of its own (a loading process, torchrun's workers)
can live on and hold the GPU. The variable is inherited by whatever the job starts, and has another value in every job, so that
other jobs on the machine, and people at work on it, are left alone. This process and its ancestors belong to the job and stay.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

VARIABLE = "PIPELINE_JOB"
PATIENCE = 30.0  # seconds between asking (SIGTERM) and ending (SIGKILL): a training that saves a checkpoint needs some


def processes_of(job: str, proc: Path = Path("/proc")) -> dict[int, str]:
    """Command lines of the running processes of a job, by process id; without this process and its ancestors."""
    wanted = f"{VARIABLE}={job}".encode()
    spared = ancestors(os.getpid(), proc)
    found = {}
    for folder in proc.glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state = _status(folder)[0]
        except OSError:  # it ended while we looked, or is another user's
            continue
        if wanted in environment and int(folder.name) not in spared and state != "Z":
            found[int(folder.name)] = command
    return found


def ancestors(process: int, proc: Path = Path("/proc")) -> set[int]:
    """A process and those above it."""
    found: set[int] = set()
    while process > 0 and process not in found:
        found.add(process)
        try:
            process = int(_status(proc / str(process))[1])
        except OSError:
            break
    return found


def _status(folder: Path) -> list[str]:
    """State, parent's id and so on of a process: what follows its name in `stat` (proc(5))."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def end(find: Callable[[], dict[int, str]], patience: float = PATIENCE) -> dict[int, str]:
    """Ask all to end, wait, and kill those that stay; what was found at first."""
    found = find()
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        for process in find():
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile, which is what is wanted
                os.kill(process, number)
        deadline = time.monotonic() + seconds
        while find() and time.monotonic() < deadline:
            time.sleep(0.1)
    return found


def main() -> None:
    """End what is left and say what it was; exit code 1 if something could not be ended."""
    job = os.environ.get(VARIABLE)
    if not job:
        sys.exit(f"error: {VARIABLE} is not set, so that what belongs to this job cannot be told from what does not")
    for process, command in end(lambda: processes_of(job)).items():
        print(f"ended process {process}: {command[:200]}")
    if left := processes_of(job):
        sys.exit(f"error: still running: {', '.join(map(str, left))}")


if __name__ == "__main__":
    main()
