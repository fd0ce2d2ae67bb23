"""A tiny project on which the drills are done: run once undisturbed, and held afterwards against what it then was."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from dvc.utils.fs import remove
from ruamel.yaml import YAML

from tests.drills.ledger import Corrupt
from tests.pipeline.clone import TINY, copy_working_tree, user_environment
from tools.verify_cache import find_altered

# As small as every stage takes it; so many epochs that a training can be hit between two of them.
PARAMS = TINY | {"download.sample.lesions": 60, "download.sample.width": 64, "train.epochs": 12, "train.patience": 12}
PARAMS |= {"gradcam.faithfulness_images": 8, "gradcam.deletion_steps": 2}
PATIENCE = 300.0  # seconds for one run of the pipeline, on a machine that does other things too
STAY = re.compile(r"running/[a-z@0-9-]+\.lock|train/[0-9a-f]{32}\.lock|download/[a-z0-9]+\.lock")  # in .resume


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run left: outputs as dvc.lock names them, the MD5 of each file, what git sees; seconds a stage."""

    outputs: dict[str, str]
    files: dict[str, str]
    untracked: str
    seconds: dict[str, float]


class Process:
    """A command in a process group of its own, as a shell starts it; what it and its children say goes to a file."""

    def __init__(self, folder: Path, *command: str, environment: dict[str, str] | None = None) -> None:
        number = len(list(folder.parent.glob("output-*")))
        self._log = folder.parent / f"output-{number}.txt"
        with self._log.open("wb") as log:
            streams = {"stdout": log, "stderr": subprocess.STDOUT}
            alone = {"start_new_session": True, "preexec_fn": _heed_interrupts}
            given = user_environment() | (environment or {})
            self._process = subprocess.Popen(command, cwd=folder, env=given, **streams, **alone)

    @property
    def output(self) -> str:
        """Everything so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, pattern: str) -> None:
        """Wait until what is said matches, which must come before the end."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.output):
            assert self._process.poll() is None or re.search(pattern, self.output), f"never said {pattern!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"did not say {pattern!r} in {PATIENCE} s:\n{self.output}"
            time.sleep(0.01)

    def has_ended(self) -> bool:
        """Whether the command itself has; its children may live on."""
        return self._process.poll() is not None

    def send(self, number: signal.Signals, *, to_all: bool) -> None:
        """Signal the command alone, or its whole group as a terminal or an init system does."""
        if to_all:
            os.killpg(self._process.pid, number)
        else:
            os.kill(self._process.pid, number)

    def end(self) -> int:
        """Wait for the command; its exit status."""
        return self._process.wait(timeout=PATIENCE)

    def leave(self) -> None:
        """Kill whatever of the group is left, when a round is given up."""
        for process in living(self._process.pid):
            process.kill()
        self._process.wait()


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell without job control would have us ignore it


def living(group: int) -> list[psutil.Process]:
    """The processes of a session that started with `group`, zombies aside."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            continue
    return found


class Project:
    """One copy of the project, to be broken."""

    def __init__(self, folder: Path, reference: Reference) -> None:
        self.folder = folder
        self.reference = reference
        self.processes: list[Process] = []

    def start(self, *command: str, environment: dict[str, str] | None = None) -> Process:
        """Start a command as a user would."""
        self.processes.append(Process(self.folder, *command, environment=environment))
        return self.processes[-1]

    def run(self, *command: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
        """Run a command to its end; its exit status and what it said."""
        process = self.start(*command, environment=environment)
        return process.end(), process.output

    def succeed(self, *command: str, environment: dict[str, str] | None = None) -> str:
        """Run a command, which must succeed; what it said."""
        status, output = self.run(*command, environment=environment)
        assert status == 0, f"{command} ended with {status}:\n{output}"
        return output

    def repro(self) -> str:
        """`dvc repro`, which must succeed; what it said."""
        return self.succeed("dvc", "repro")

    def restore(self) -> str:
        """`dvc repro`, after which all must be as after an undisturbed run; what it said."""
        output = self.repro()
        self.check()
        return output

    def refuse(self, *command: str, why: str) -> str:
        """Run a command, which must end with an error that matches `why`, and without a traceback; what it said."""
        status, output = self.run(*command)
        assert status != 0 and re.search(why, output) and "Traceback" not in output, output
        return output

    def forget(self, stage: str) -> None:
        """Take away all that a stage left: its outputs, what of them is cached, its entry in dvc.lock and the run cache.

        The next `dvc repro` then runs it in earnest. (`dvc repro --force` would too, but only the one that is killed.)
        """
        path, yaml = self.folder / "dvc.lock", YAML()
        lock = yaml.load(path.read_text(encoding="utf-8"))
        for out in lock["stages"].pop(stage)["outs"]:
            remove(self.folder / out["path"])
            self._forget_cached(out["md5"])
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(lock, file)
        shutil.rmtree(self.folder / ".dvc/cache/runs", ignore_errors=True)

    def _forget_cached(self, digest: str) -> None:
        path = self.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        if digest.endswith(".dir") and path.is_file():
            for entry in json.loads(path.read_text(encoding="utf-8")):
                self._forget_cached(entry["md5"])
        path.unlink(missing_ok=True)

    def outputs(self) -> dict[str, str]:
        """Path and MD5 of every output in dvc.lock."""
        lock = YAML(typ="safe", pure=True).load((self.folder / "dvc.lock").read_text(encoding="utf-8"))
        return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}

    def files(self) -> dict[str, str]:
        """MD5 of every file of every output, read by ourselves: DVC would take a file of known size and time for known."""
        found = {}
        for out in self.reference.outputs:
            path = self.folder / out
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    found[str(file.relative_to(self.folder))] = hashlib.md5(file.read_bytes()).hexdigest()
        return found

    def untracked(self) -> str:
        """What git sees beside the commit."""
        return self.run("git", "status", "--porcelain")[1]

    def orphans(self) -> list[psutil.Process]:
        """Processes of any command that was started here."""
        return [process for started in self.processes for process in living(started._process.pid)]

    def check(self) -> None:
        """Insist that everything is as the undisturbed run left it, in dvc.lock, workspace, cache and git, and nothing besides.

        Raises
        ------
        Corrupt
            An output is another one.
        AssertionError
            A temporary file, a checkpoint or a process is left.
        """
        hold("dvc.lock", self.outputs(), self.reference.outputs)
        hold("the workspace", self.files(), self.reference.files)
        altered = find_altered(self.folder / ".dvc/cache")[1]
        if altered:
            raise Corrupt(f"cached files that are not what their names say: {altered}")
        status, output = self.run("dvc", "status", "dvc.yaml", "--json")
        if status or json.loads(output.splitlines()[-1]):
            raise Corrupt(f"dvc status: {output}")
        self.check_rests()

    def check_rests(self) -> None:
        """Insist that nothing temporary is left."""
        partial = [path for path in self.folder.rglob(".*.partial") if ".dvc" not in path.parts]
        assert partial == []
        scratch = self.folder / ".resume"
        rests = [path.relative_to(scratch).as_posix() for path in scratch.rglob("*") if path.is_file()]
        assert [rest for rest in rests if not STAY.fullmatch(rest)] == []
        assert self.untracked() == self.reference.untracked
        assert [process.cmdline() for process in self.orphans()] == []

    def close(self) -> None:
        """End whatever still runs."""
        for process in self.processes:
            process.leave()


def hold(what: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Compare contents, or their MD5s, by path."""
    odd = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if odd:
        raise Corrupt(f"{what}: {odd} missing, new or other than after an undisturbed run")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must happen."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in {PATIENCE} s: {what}"
        time.sleep(0.05)


def run_undisturbed(folder: Path) -> None:
    """Make the project in `folder`, run it, and write beside it what it left."""
    copy_working_tree(folder, PARAMS)
    project = Project(folder, Reference({}, {}, "", {}))
    process = project.start("dvc", "repro")
    starts = dict(watch(process))
    assert process.end() == 0, process.output
    times = [*starts.values(), time.monotonic()]
    seconds = {stage: times[place + 1] - begun for place, (stage, begun) in enumerate(starts.items())}
    outputs = project.outputs()
    held = Project(folder, Reference(outputs, {}, "", {}))
    reference = Reference(outputs, held.files(), held.untracked(), seconds)
    (folder.parent / "reference.json").write_text(json.dumps(asdict(reference)), encoding="utf-8")


def watch(process: Process) -> Iterator[tuple[str, float]]:
    """Each stage as it begins, and when."""
    seen: set[str] = set()
    while True:
        ended = process.has_ended()
        for stage in re.findall(r"Running stage '([^']+)'", process.output):
            if stage not in seen:
                seen.add(stage)
                yield stage, time.monotonic()
        if ended:
            return
        time.sleep(0.02)


def copy_project(undisturbed: Path, folder: Path) -> Project:
    """A copy to break, with its links, times and cache."""
    content = json.loads((undisturbed.parent / "reference.json").read_text(encoding="utf-8"))
    subprocess.run(["cp", "-a", str(undisturbed), str(folder)], check=True)
    return Project(folder, Reference(**content))
