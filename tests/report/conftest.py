"""A run of the sample, to report on."""

from pathlib import Path

import pytest

from skinlesion.report.blocks import Figure
from skinlesion.report.figures import Plots
from tests.conftest import WriteParams
from tests.report.report_cases import write_run


@pytest.fixture
def run_folder(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace as a run of the sample leaves it."""
    write_params()
    write_run(workspace)
    return workspace


@pytest.fixture
def quick(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with one small drawing for every plot, because Vega takes its time."""
    monkeypatch.setattr(Plots, "draw", lambda self, name: Figure(name, "<svg></svg>"))
    return run_folder
