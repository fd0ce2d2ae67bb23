"""Which code and which libraries made a result."""

import platform
import subprocess
from importlib.metadata import version

LIBRARIES: tuple[str, ...] = ("torch", "torchvision", "lightning-fabric", "numpy", "pillow")


def git_commit() -> str | None:
    """The commit of the code, with `-dirty` where tracked files were edited; None where git or its repository is absent."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a trained network depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
