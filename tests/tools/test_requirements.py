"""The files that say what is installed: pins, the lock, the container."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.structure

DIRECT = ("requirements.txt", "requirements/remotes.txt")
OTHERS = ("requirements/app.txt", "requirements/dev.txt", "requirements/loggers.txt")
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,]+\])?==([A-Za-z0-9.+!]+)")


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def pins(name: str) -> dict[str, str]:
    """Package and version of each line; a line that is neither a pin nor a comment fails."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            pin = PIN.fullmatch(line)
            assert pin, f"{name}: {line!r} is no exact pin"
            found[normalized(pin[1])] = pin[2]
    return found


def locked(file: str = "requirements/pipeline.lock") -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each package in the lock."""
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: dict[str, tuple[str, int]] = {}
    for line in lines:
        pin, hashed = PIN.match(line), re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line)
        assert (pin is None) != (hashed is None), f"{file}: {line!r} is neither a pin nor a sha256"
        name = normalized(pin[1]) if pin else list(found)[-1]
        assert not (pin and name in found), f"{file}: {name} is there twice"
        found[name] = (pin[2], 0) if pin else (found[name][0], found[name][1] + 1)
    return found


@pytest.mark.parametrize(
    ("file", "inputs"), [("requirements/pipeline.lock", DIRECT), ("requirements/app.lock", ["requirements/app.txt"])]
)
def test_a_lock_has_the_direct_pins_and_a_hash_for_everything(file: str, inputs: Sequence[str]) -> None:
    lock = locked(file)
    direct = {name: version for each in inputs for name, version in pins(each).items()}
    assert {name: lock.get(name, ("not there",))[0] for name in direct} == direct, "run `make lock`"
    assert len(lock) > 2 * len(direct)
    assert [name for name, (_, hashes) in lock.items() if hashes == 0] == []


def test_the_lock_of_the_tools_is_a_part_of_it() -> None:
    lock, tools = locked(), locked("requirements/tools.lock")
    assert {"dvc", *pins("requirements/remotes.txt")} <= tools.keys() and "torch" not in tools
    assert {name: lock.get(name) for name in tools} == tools, "run `make lock`"


def test_the_lock_of_app_and_api_adds_packages_and_changes_none() -> None:
    lock, app = locked(), locked("requirements/app.lock")
    assert {name: lock[name] for name in app if name in lock} == {name: app[name] for name in app if name in lock}


@pytest.mark.parametrize("file", ["requirements/pipeline.lock", "requirements/tools.lock", "requirements/app.lock"])
def test_a_lock_names_no_place_and_the_command_that_made_it(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "#    make lock\n" in text
    assert re.findall(r"https?:|file:|--index-url|--find-links|@ |/work|/home|/root", text) == []
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"--output-file requirements/pipeline.lock {' '.join(DIRECT)}" in recipe


def test_what_tests_need_does_not_change_what_is_locked() -> None:
    lock = {name: version for name, (version, _) in locked().items()}
    for file in OTHERS:
        shared = {name: version for name, version in pins(file).items() if name in lock}
        assert {name: lock[name] for name in shared} == shared, file


@pytest.mark.skipif(shutil.which("hadolint", path=str(Path(sys.executable).parent)) is None, reason="needs hadolint")
@pytest.mark.parametrize("file", ["deploy/Dockerfile", "deploy/Dockerfile.serving"])
def test_a_dockerfile_passes_its_linter(file: str) -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, file], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_takes_the_lock_alone_and_is_not_root() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line for line in lines if re.match(r"(COPY|ADD) ", line)]
    assert [re.findall(r" ([^-/ ]\S*) /", line) for line in copied] == [["requirements/pipeline.lock"]]
    install = [number for number, line in enumerate(lines) if "pip install" in line]
    user = next(number for number, line in enumerate(lines) if line.startswith("USER"))
    assert install and all("--require-hashes" in lines[number] and number > user for number in install)
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert [line for line in ignored if not line.startswith("#")] == ["*", "!requirements/pipeline.lock"]
