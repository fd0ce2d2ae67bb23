"""A finished run to record."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BuildOnce
from tests.tools.record_cases import write_run


@pytest.fixture
def finished_run(workspace: Path, build_once: BuildOnce, repository_params: dict[str, Any]) -> Path:
    """The working directory as a workspace after `dvc repro`."""

    def fill(folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            write_run(repository_params)

    shutil.copytree(build_once("finished_run", fill), workspace, dirs_exist_ok=True)
    return workspace
