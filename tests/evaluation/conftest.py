"""A classifier that was evaluated once for all tests of `evaluate`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import BuildOnce, WriteParams
from tests.evaluation.evaluate_cases import run_evaluate


@pytest.fixture(scope="session")
def evaluated(build_once: BuildOnce, write_params_here: WriteParams) -> Path:
    """A folder in which `evaluate` was run once on a small classifier, to read."""
    return build_once("evaluated", lambda folder: run_evaluate(folder, write_params_here))


@pytest.fixture
def project(evaluated: Path, workspace: Path) -> Path:
    """A copy of that folder to change, the working directory."""
    return shutil.copytree(evaluated, workspace, dirs_exist_ok=True)
