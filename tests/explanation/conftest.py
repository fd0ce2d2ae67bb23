"""A workspace in which `gradcam` can run."""

from pathlib import Path

import pytest

from tests.conftest import WriteParams
from tests.explanation.workspace import SHOW_ONLY_MISSES, make_workspace


@pytest.fixture
def ready(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace in which the stage can run, on the CPU, drawing no more than it must."""
    write_params(SHOW_ONLY_MISSES)
    make_workspace("squash")
    return workspace
