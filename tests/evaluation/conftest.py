"""A folder in which the stage `evaluate` has run, for all tests of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from skinlesion.artifacts.splits import SplitFacts, fingerprint, write_splits
from stages import evaluate
from tests.evaluation.evaluate_cases import (
    fitted_member,
    make_splits,
    write_images,
    write_small_params,
)
from tests.model.classifier_cases import save_ensemble


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory, repository_params: dict[str, Any]) -> Path:
    """A folder in which the stage has run."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        splits = make_splits()
        write_splits(splits, SplitFacts(fingerprint(splits), "sample", True))
        write_images(pd.concat(splits.values(), ignore_index=True), seed=1)
        save_ensemble([fitted_member(splits, 0)])
        write_small_params(repository_params)
        evaluate.main()
    return folder


@pytest.fixture
def evaluated_copy(evaluated: Path, workspace: Path) -> Path:
    """A copy of that folder to change, the working directory."""
    shutil.copytree(evaluated, workspace, dirs_exist_ok=True)
    return workspace
