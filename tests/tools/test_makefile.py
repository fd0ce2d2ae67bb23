"""What the Makefile does where the machine lacks something."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# As Debian's Python without python3-venv: it writes most of the environment, says what is missing, and fails.
HALF_A_PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 0
mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" "$3/bin/python" && echo "ensurepip is not available"
exit 1
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
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
        assert (
            f"error: `{python} -m venv {environment}` failed, see above; on Debian and Ubuntu install python3-venv" in done.stderr
        )
        assert not environment.exists()
