"""A workspace in which the extra `export` was run once, for all tests of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from extras import export
from tests.serving.export_cases import (
    write_inputs,
)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, repository_params: dict[str, Any]) -> Path:
    """A workspace in which the stage was run once; tests that change it copy it. `seen.txt` names the images of calibration."""
    folder, seen = tmp_path_factory.mktemp("exported"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        write_inputs(repository_params)
        inputs = export.graph_inputs
        patch.setattr(export, "graph_inputs", lambda *given: seen.append(given[2]) or inputs(*given))
        export.main()
    (folder / "seen.txt").write_text("\n".join(pd.concat(seen)["image_id"]), encoding="utf-8")
    return folder


@pytest.fixture
def exported_here(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is the exported workspace, which the test leaves as it is."""
    monkeypatch.chdir(exported)
    return exported


@pytest.fixture
def exported_copy(exported: Path, workspace: Path) -> Path:
    """The working directory is a copy of it."""
    shutil.copytree(exported, workspace, dirs_exist_ok=True)
    return workspace
