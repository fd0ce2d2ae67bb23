"""A repository in which the pipeline was run once, for whatever asks DVC about it."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import BuildOnce
from tests.pipeline.clone import STAGES, TINY, commit_all, copy_working_tree, run, stages_run


def run_once(folder: Path) -> None:
    """Make a git repository with this working tree's files and tiny params, and run the pipeline."""
    copy_working_tree(folder, TINY)
    output = run(folder, "dvc", "repro")
    assert stages_run(output) == STAGES
    commit_all(folder, "first run")


@pytest.fixture
def finished(build_once: BuildOnce) -> Path:
    """A repository in which the pipeline was run once, to read."""
    return build_once("clone", run_once)


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)
