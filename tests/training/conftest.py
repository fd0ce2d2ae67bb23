"""Fixtures of the tests of training."""

from pathlib import Path
from typing import Any

import pytest

from skinlesion.config.training import TrainParams
from tests.conftest import WriteParams
from tests.training.training_cases import TINY, MakeParams, write_inputs


@pytest.fixture
def train_params(repository_params: dict[str, Any]) -> MakeParams:
    """The section `train` of the repository with some values set."""

    def make(**values: Any) -> TrainParams:
        return TrainParams.model_validate(repository_params["train"] | values)

    return make


@pytest.fixture
def prepared_workspace(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace with everything that `train` reads."""
    write_inputs()
    write_params(TINY)
    return workspace
