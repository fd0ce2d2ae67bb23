"""Say what this machine lacks before anything is installed: `make check`, with which every target that sets up begins.

Reads   pyproject.toml, for the versions of Python; what the system, git and this Python say of themselves
Writes  nothing, or one message to stderr with all that is missing and the way out for each, and exit code 1

Any Python 3 must be able to read this file, with no package installed. So it uses nothing newer than Python 3.5.
"""

import argparse
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Oldest that the packages of requirements/pipeline.lock have wheels for (torch and contourpy; onnxruntime).
GLIBC, MACOS = (2, 28), (14,)
MAKE = (3, 81)
# Gigabytes of the packages, and while they are installed of pip's downloads, which it also caches. Linux has those of CUDA.
PACKAGES, DOWNLOADS = (7, 3) if platform.system() == "Linux" else (3, 1)
BUILT_IN = ("bz2", "ctypes", "lzma", "sqlite3", "ssl", "zlib")  # of which a Python built without their libraries lacks some
OTHER_PYTHON = "install another, and name it: make PYTHON=/path/to/python3 (first `rm -rf {venv}` where it was made by this one)"
SYSTEMS = "Linux with glibc 2.28 or later or macOS 14 or later is needed, on x86-64 (Linux alone) or ARM, 64 bits"
NO_GIT = "install it (Debian, Ubuntu: `sudo apt install git`; macOS: `xcode-select --install`)"
NO_REPOSITORY = (
    "{root} is not one, as a downloaded zip is not, and DVC works in nothing else: `git clone` the project instead, or make this "
    'folder one: git init && git add --all && git commit --message "The project as downloaded"'
)
NO_SPACE = (
    "disk: {free:.1f} GB are free for {names} and {need} GB needed: free some, or take other places, make VENV=/large/venv for "
    "{packages} GB of packages, TMPDIR=/large/tmp for {downloads} GB of downloads; PIP_NO_CACHE_DIR=1 saves {downloads} more GB"
)


def main(arguments: list) -> None:
    """Check everything, so that nobody installs one thing after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="where the environment is, or will be made")
    parser.add_argument("--make", help="version of make")
    parser.add_argument("--bash", help="path of bash")
    options = parser.parse_args(arguments)
    lacking = lacks_git() + lacks_python(options.venv) + lacks_system() + lacks_space(options.venv)
    if options.make and numbers(options.make) < MAKE:
        lacking.append("make: this is {}; 3.81 or later is needed: install GNU make".format(options.make))
    if options.bash and not os.access(options.bash, os.X_OK):
        lacking.append("bash: not at {}: install it, or say where it is: make BASH=/path/to/bash".format(options.bash))
    if lacking:
        sys.exit("error: nothing is installed before this machine has what it lacks:\n- " + "\n- ".join(lacking))


def lacks_git() -> list:
    """Whether there is a git, and a repository that it can use."""
    code, said = run("git", "--version")
    there = any((folder / ".git").exists() for folder in (ROOT, *ROOT.parents))
    lacking = ["git: {}: {}".format(said, NO_GIT)] if code else []
    if not there:
        lacking.append("git repository: " + NO_REPOSITORY.format(root=ROOT))
    elif not code:
        code, said = run("git", "rev-parse", "--git-dir")
        if code:
            lacking.append("git repository: {} is none that git can use: {}".format(ROOT, said))
    return lacking


def lacks_python(venv: Path) -> list:
    """Whether the packages have wheels for this Python, and it can make an environment and use them."""
    required = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest, after = map(int, required.groups())  # type: ignore[union-attr]  # a test holds that it is there
    kind = platform.python_implementation() + (", free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")
    lacking = []
    if kind != "CPython" or not (3, oldest) <= sys.version_info[:2] < (3, after):
        told = "Python: {} is {} {}; the packages need CPython 3.{} to 3.{}: {}"
        way_out = OTHER_PYTHON.format(venv=venv)
        lacking.append(told.format(sys.executable, kind, platform.python_version(), oldest, after - 1, way_out))
    absent = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if absent and not (venv / "bin" / "python").exists():
        told = "{}: not part of {}: on Debian and Ubuntu `sudo apt install python3-venv`, or {}"
        lacking.append(told.format(" and ".join(absent), sys.executable, OTHER_PYTHON.format(venv=venv)))
    unbuilt = [name for name in BUILT_IN if not can_import(name)]
    if unbuilt:
        told = "Python's {}: {} was built without: install the libraries' headers and build it again, or {}"
        lacking.append(told.format(", ".join(unbuilt), sys.executable, OTHER_PYTHON.format(venv=venv)))
    return lacking


def lacks_system() -> list:
    """Whether torch and the others have wheels for the system and the processor."""
    system, machine, mac = platform.system(), platform.machine().lower(), platform.mac_ver()[0]
    bits, glibc = 64 if sys.maxsize > 2**32 else 32, glibc_version()
    if system not in ("Linux", "Darwin"):
        found, way_out = system, "on Windows use Ubuntu in WSL 2"
    elif bits == 32 or machine not in ("x86_64", "amd64", "aarch64", "arm64"):
        found, way_out = "a Python of {} bits on {}".format(bits, machine), "use another machine or Python"
    elif system == "Darwin" and machine == "x86_64":
        found = "macOS for Intel, for which torch has had no wheels since 2.3"
        way_out = "use Linux or a Mac with Apple silicon (if this is one, its Python is for Intel: take one for arm64)"
    elif system == "Darwin" and numbers(mac) < MACOS:
        found, way_out = "macOS " + mac, "update it"
    elif system == "Linux" and not glibc:
        found, way_out = "a Linux without glibc, as Alpine with musl", "use Debian, Ubuntu or Fedora, in a container too"
    elif system == "Linux" and numbers(glibc) < GLIBC:
        found, way_out = "a Linux with glibc " + glibc, "use a newer one, in a container too"
    else:
        return []
    return ["system: this is {}; {}: {}".format(found, SYSTEMS, way_out)]


def lacks_space(venv: Path) -> list:
    """Whether the packages have room where they are still to be installed; what lies on one file system is added up."""
    if (venv / ".installed").exists():
        return []
    place, temporary = existing(venv), existing(Path(tempfile.gettempdir()))
    if not os.access(str(place), os.W_OK):
        return ["disk: {} cannot be written: take another place with make VENV=/path/to/venv".format(place)]
    wanted = [(place, PACKAGES), (temporary, DOWNLOADS)]
    cache = existing(Path(os.environ.get("PIP_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home()))
    # On a file system of its own a full cache does not matter to pip.
    if not os.environ.get("PIP_NO_CACHE_DIR") and device(cache) in map(device, (place, temporary)):
        wanted.append((cache, DOWNLOADS))
    lacking = []
    for one in sorted({device(folder) for folder, _ in wanted}):
        names = ", ".join(sorted({str(folder) for folder, _ in wanted if device(folder) == one}))
        need = sum(size for folder, size in wanted if device(folder) == one)
        free = min(shutil.disk_usage(str(folder)).free for folder, _ in wanted if device(folder) == one) / 1e9
        if free < need:
            lacking.append(NO_SPACE.format(free=free, names=names, need=need, packages=PACKAGES, downloads=DOWNLOADS))
    return lacking


def existing(place: Path) -> Path:
    """A place, or the nearest folder above it that is there."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())


def device(place: Path) -> int:
    return place.stat().st_dev


def run(*command: str) -> tuple:
    """The exit code of a command in the project's root, and what it said, as one line."""
    try:
        process = subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        return 127, error.strerror
    said = process.communicate()[0].decode("utf-8", "replace")
    return process.returncode, " ".join(said.split())


def can_import(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def glibc_version() -> str:
    """As "2.36", or empty where the C library is another."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").rpartition(" ")[2]
    except (AttributeError, OSError, ValueError):
        return ""


def numbers(version: str) -> tuple:
    return tuple(int(number) for number in re.findall(r"\d+", version))


if __name__ == "__main__":
    main(sys.argv[1:])
