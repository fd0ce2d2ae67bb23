"""An ensemble that was exported once for all tests of `export`."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import BuildOnce, WriteParams
from tests.serving.export_cases import run_export


@pytest.fixture(scope="session")
def exported(build_once: BuildOnce, write_params_here: WriteParams) -> Path:
    """A folder in which `export` was run once, to read."""
    return build_once("exported", lambda folder: run_export(folder, write_params_here))


@pytest.fixture
def exported_here(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That folder is the working directory."""
    monkeypatch.chdir(exported)


@pytest.fixture
def exported_copy(exported: Path, workspace: Path) -> Path:
    """A copy of that folder to change, the working directory."""
    return shutil.copytree(exported, workspace, dirs_exist_ok=True)
