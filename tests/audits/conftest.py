"""The inputs of `external`, made once for all of its tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.audits.external_cases import write_inputs
from tests.conftest import BuildOnce, WriteParams


@pytest.fixture(scope="session")
def external_inputs(build_once: BuildOnce, write_params_here: WriteParams) -> Path:
    """A folder with all that `external` reads."""
    return build_once("external", lambda folder: write_inputs(folder, write_params_here))


@pytest.fixture
def external_project(external_inputs: Path, workspace: Path) -> Path:
    """A copy of that folder, the working directory."""
    return shutil.copytree(external_inputs, workspace, dirs_exist_ok=True)
