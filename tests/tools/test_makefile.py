"""What the Makefile does where the machine lacks something."""

import importlib.util
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.drills.test_read_only import UNSHARE, can_mount
from tests.pipeline.clone import copy_working_tree, user_environment
from tools import check_setup

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

NOT_SETTING_UP = {"help", "check", "clean"}
NO_REPOSITORY = "- git repository: {} is not one, as a downloaded zip is not, and DVC works in nothing else"

# As Debian's Python without python3-venv: it writes most of the environment, says what is missing, and fails.
HALF_A_PYTHON = """#!/bin/sh
[ "$1" = -m ] || exit 0
mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" "$3/bin/python" && echo "ensurepip is not available"
exit 1
"""


def make(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Exit code of make and what it said on standard error, its own last line left out."""
    command = [shutil.which("make"), f"PYTHON={sys.executable}", *words]
    given = user_environment() | environment
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, re.sub(r"(?m)^make: \*\*\* .*\n", "", done.stderr)


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The files of a downloaded zip, without .git."""
    copy_working_tree(tmp_path / "skin lesion", {})
    shutil.rmtree(tmp_path / "skin lesion" / ".git")
    return tmp_path / "skin lesion"


def test_a_downloaded_zip_is_told_what_to_do_before_anything_is_installed_and_that_helps(unpacked: Path) -> None:
    targets = re.findall(r"(?m)^([a-z]+):.*## ", (unpacked / "Makefile").read_text(encoding="utf-8"))
    for target in sorted({*targets} - NOT_SETTING_UP):
        code, said = make(unpacked, target)
        assert (code, said.count("error: "), said.count("\n- ")) == (2, 1, 1) and "Traceback" not in said, said
        assert NO_REPOSITORY.format(unpacked) in said and not (unpacked / ".venv").exists()
    way_out = said.partition("or make this folder one: ")[2]
    subprocess.run(way_out, shell=True, cwd=unpacked, env=user_environment(), capture_output=True, check=True)
    assert make(unpacked, "check") == (0, "")
    show = ["dvc", "exp", "show"]
    dvc = subprocess.run(show, cwd=unpacked, env=user_environment(), capture_output=True, text=True, check=False)
    assert dvc.returncode == 0, dvc.stderr


def test_all_that_is_missing_is_said_at_once(unpacked: Path) -> None:
    tools = unpacked.parent / "bin"
    tools.mkdir()
    code, said = make(unpacked, "run", "BASH=/nowhere/bash", "MAKE_VERSION=3.80", f"VENV={tools}/none", PATH=str(tools))
    named = re.findall(r"(?m)^- ([^:]+): (.*)$", said)
    assert (code, [name for name, _ in named]) == (2, ["git", "git repository", "make", "bash"]), said
    assert "apt install git" in named[0][1] and "install GNU make" in named[2][1] and "BASH=/path/to/bash" in named[3][1]
    code, said = make(unpacked, "run", "PYTHON=python3.99", PATH=str(tools))
    assert (code, said.count("\n")) == (2, 1) and said.startswith("error: no python3.99 on PATH and no git: install"), said


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / ".git").write_text("gitdir: /nowhere/.git"), "not a git repository: /nowhere/.git"),
        (lambda folder: (folder / ".git").mkdir(), "not a git repository"),
        (
            lambda folder: (run_git(folder, "init"), run_git(folder, "config", "core.repositoryformatversion", "99")),
            "Expected git repo version <= 1, found 99",
        ),
    ],
    ids=["moved worktree", "empty .git", "newer git's"],
)
def test_a_repository_git_cannot_use_is_named_with_gits_words(unpacked: Path, spoil: Callable[[Path], object], told: str) -> None:
    spoil(unpacked)
    code, said = make(unpacked, "run")
    assert code == 2 and f"- git repository: {unpacked} is none that git can use: fatal: " in said and told in said, said


def run_git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, capture_output=True, check=True)


def test_a_zip_unpacked_inside_a_repository_is_in_it(unpacked: Path) -> None:
    run_git(unpacked.parent, "init")
    assert make(unpacked, "check") == (0, "")


def test_a_disk_that_is_too_small_is_said_before_it_is_full(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("needs unshare and mount, as root or in a user name space")
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=100m none {shlex.quote(str(small))} && exec "$@"'
    words = [*UNSHARE, "sh", "-c", mount, "sh", "make", "check", f"PYTHON={sys.executable}", f"VENV={small}/venv"]
    for places, need in (({"TMPDIR": str(small)}, 10), ({}, 7), ({"PIP_CACHE_DIR": f"{small}/pip/cache"}, 10)):
        done = subprocess.run(words, cwd=ROOT, env=user_environment() | places, capture_output=True, text=True, check=False)
        assert f"- disk: 0.1 GB are free for {small} and {need} GB needed: free some, or" in done.stderr, done.stderr


def test_a_place_that_cannot_be_written_is_said() -> None:
    assert "- disk: /proc/self cannot be written: take another place with" in make(ROOT, "check", "VENV=/proc/self/venv")[1]


Version = namedtuple("Version", "major minor")


@pytest.mark.parametrize(
    ("owner", "name", "value", "told"),
    [
        (platform, "system", "Windows", "this is Windows; Linux with glibc 2.28 .* on Windows use Ubuntu in WSL 2"),
        (platform, "system", "MSYS_NT-10.0", "use Ubuntu in WSL 2"),
        (platform, "machine", "i686", "this is a Python of 64 bits on i686"),
        (platform, "machine", "riscv64", "use another machine"),
        (sys, "maxsize", 2**31 - 1, "this is a Python of 32 bits on x86_64"),
        (check_setup, "glibc_version", "", "a Linux without glibc, as Alpine with musl.* use Debian"),
        (check_setup, "glibc_version", "2.17", "a Linux with glibc 2.17; .* use a newer one"),
        (sys, "version_info", Version(3, 10), "the packages need CPython 3.11 to 3.14: install another, and name"),
        (sys, "version_info", Version(3, 15), "need CPython 3.11 to 3.14"),
        (platform, "python_implementation", "PyPy", "is PyPy 3"),
        (sysconfig, "get_config_var", 1, "is CPython, free-threaded 3"),
        (check_setup, "BUILT_IN", ("ssl", "_lzma_", "_sqlite3_"), "Python's _lzma_, _sqlite3_: .* was built without"),
        (importlib.util, "find_spec", None, "venv and ensurepip: not part of .* `sudo apt install python3-venv`"),
    ],
)
def test_an_unfit_machine_is_told(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, value: object, told: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(owner, name, (lambda *_: value) if callable(getattr(owner, name)) else value)
    with pytest.raises(SystemExit, match=told):
        check_setup.main(["--venv", "nowhere/venv"])


@pytest.mark.parametrize(
    ("machine", "version", "told"),
    [
        ("x86_64", "14.5", "macOS for Intel, for which torch has had no wheels since 2.3"),
        ("arm64", "13.6", "macOS 13.6"),
        ("arm64", "14", ""),
    ],
)
def test_macs(monkeypatch: pytest.MonkeyPatch, machine: str, version: str, told: str) -> None:
    for name, value in {"system": "Darwin", "machine": machine, "mac_ver": (version, ("", "", ""), machine)}.items():
        monkeypatch.setattr(platform, name, lambda value=value: value)
    assert check_setup.lacks_system() == [] if not told else told in check_setup.lacks_system()[0]


def test_an_environment_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(HALF_A_PYTHON, encoding="utf-8")
    python.chmod(0o755)
    environment = tmp_path / "environment"
    command = ["make", "-f", str(ROOT / "Makefile"), f"PYTHON={python}", f"VENV={environment}", "repro"]
    for _ in range(2):  # the second time must not take a rest of the first for an environment
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert "ensurepip is not available" in done.stdout
        told = f"error: `{python} -m venv {environment}` failed, see above; on Debian and Ubuntu install python3-venv"
        assert told in done.stderr
        assert not environment.exists()
