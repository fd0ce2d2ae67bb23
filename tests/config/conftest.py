"""A workspace in which recipes are tried."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import recipes
from recipes.__main__ import main
from skinlesion.base.errors import run_stage
from tests.config.recipe_cases import Refused, WriteRecipe
from tests.conftest import ROOT


@pytest.fixture
def params_file(workspace: Path) -> Path:
    """The repository's `params.yaml`, comments included, in the working directory."""
    return Path(shutil.copy(ROOT / "params.yaml", workspace / "params.yaml"))


@pytest.fixture
def write_recipe(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> WriteRecipe:
    """Write a recipe of one's own beside copies of the real ones; gives its name back."""
    folder = Path(shutil.copytree(ROOT / "recipes", workspace / "own_recipes"))
    monkeypatch.setattr(recipes, "FOLDER", folder)

    def write(params: Any, *, name: str = "own", **other: Any) -> str:
        content = {"description": "own", "source": "ours", "params": params, **other}
        with (folder / f"{name}.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump({key: value for key, value in content.items() if value is not None}, file)
        return name

    return write


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command; stdout may hold only what DVC refuses. Returns its message."""

    def run(*names: str) -> str:
        monkeypatch.setattr(sys, "argv", ["recipes", *names])
        with pytest.raises(SystemExit) as stopped:
            run_stage(main)
        assert capsys.readouterr().out == "--recipe-was-refused\n"
        assert isinstance(stopped.value.code, str), "exit code 1, the message on stderr"
        return stopped.value.code

    return run
