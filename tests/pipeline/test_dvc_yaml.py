"""What `dvc.yaml` and `extras/dvc.yaml` say of the stages: their deps against their imports, and what an edit reruns."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from skinlesion.config.schema import UNSEEN_BY_DVC
from tests.conftest import ROOT
from tests.pipeline.clone import BEFORE_TRAINING, STAGES

# They decide how a stage fails, writes and checks, not what it computes; `params.yaml` is tracked value by value.
UNTRACKED = ("skinlesion/base/", "skinlesion/config/", "stages/__init__.py", "extras/__init__.py")
PACKAGES = ("skinlesion", "stages", "extras")

EVERYTHING = set(STAGES)
EDITS = {  # files that are edited together, stages that this makes stale, and stages that it must not
    "below training": (
        [
            *("skinlesion/explanation/cam/maps.py", "skinlesion/serving/predictor.py", "skinlesion/report/card.py"),
            *("skinlesion/audits/leak.py", "skinlesion/evaluation/metrics/bootstrap.py"),
            *("app/demo.py", "api/routes.py", "tools/mend.py"),
        ],
        {"evaluate", "gradcam", "report"},
        {*BEFORE_TRAINING, "train@base-0"},
    ),
    "a results writer": (
        ["skinlesion/evaluation/results/decisions.py", "skinlesion/evaluation/results/predictions.py"],
        {"evaluate", "threshold-sweep"},
        {*BEFORE_TRAINING, "train@base-0", "assemble"},
    ),
    "base and config": (
        *(["skinlesion/base/files.py", "skinlesion/base/errors.py", "skinlesion/config/params.py"], set[str](), EVERYTHING),
    ),
    "training": (["skinlesion/training/losses.py"], {"train@base-0"}, EVERYTHING - {"train@base-0"}),
    "the network": (["skinlesion/model/network.py"], {"train@base-0", "evaluate"}, {*BEFORE_TRAINING}),
    "the sample": (["skinlesion/data/sample/lesion.py"], {"download"}, EVERYTHING - {"download"}),
}


# Name and content of every stage, those of the extras included.
DECLARED: dict[str, dict[str, Any]] = {
    name: stage.get("do", stage)
    for file in ("dvc.yaml", "extras/dvc.yaml")
    for name, stage in YAML(typ="safe").load((ROOT / file).read_text(encoding="utf-8"))["stages"].items()
}


@cache
def imported_modules(path: Path) -> set[str]:
    """Files of this project's packages that a file imports, itself not included, by reading its import statements."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    bases = [ROOT / name.replace(".", "/") for name in found if name.startswith(PACKAGES)]
    files = [file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py")]
    return {str(file.relative_to(ROOT)) for file in files if file.is_file()}


@cache
def is_docstring_alone(path: Path) -> bool:
    """Whether a module says what its package is and nothing else, as most `__init__.py` do."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(statement, ast.Expr) for statement in body)


@cache
def used_files(stage: str) -> set[str]:
    """The stage's script and every module of this project that it uses, directly or not, but for those of `UNTRACKED`."""
    script = re.match(r"python -m (\S+)", DECLARED[stage]["cmd"])
    assert script, f"{stage}: cmd must be `python -m` and a module"
    waiting, used = [f"{script[1].replace('.', '/')}.py"], set()
    while waiting:
        name = waiting.pop()
        if name not in used and not name.startswith(UNTRACKED) and not is_docstring_alone(ROOT / name):
            used.add(name)
            waiting += imported_modules(ROOT / name)
    return used


@pytest.mark.structure
@pytest.mark.parametrize("stage", DECLARED)
def test_dvc_yaml_lists_the_code_that_a_stage_uses(stage: str) -> None:
    code = [name for name in DECLARED[stage]["deps"] if name.startswith(PACKAGES) and not name.endswith(".lock")]
    files = [file for name in code for file in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))]
    covered = {str(file.relative_to(ROOT)) for file in files}
    assert used_files(stage) - covered == set(), "used and not listed"
    unused = [name for name in code if not any(used == name or used.startswith(f"{name}/") for used in used_files(stage))]
    assert unused == [], "listed and not used"


@pytest.mark.parametrize("stage", DECLARED)
def test_no_stage_reruns_for_another_machine_and_each_that_bootstraps_for_its_section(stage: str) -> None:
    declared = DECLARED[stage]
    if stage == "report":  # which prints the text of params.yaml, and so reruns for all of it
        assert "params.yaml" in declared["deps"] and "params" not in declared
        return
    assert "params.yaml" not in declared["deps"] and "machine" not in declared["params"]
    script = ROOT / f"{declared['cmd'].split()[2].replace('.', '/')}.py"
    read = {node.attr for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)}
    assert ("bootstrap" in read) == ("bootstrap" in declared["params"])


def keys_below(value: Any) -> set[str]:
    """Every key of nested mappings."""
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(keys_below(nested) for nested in value.values()))


@pytest.mark.structure
@pytest.mark.parametrize("stage", DECLARED)
def test_the_run_cache_sees_every_param(stage: str, repository_params: dict[str, Any]) -> None:
    keys = DECLARED[stage].get("params", [])
    for key in keys:
        value: Any = repository_params
        for name in key.split(".${")[0].split("."):
            value = value[name]
        assert not keys_below(value) & set(UNSEEN_BY_DVC), f"{key}: name its keys one by one"
    section = stage.replace("-", "_")
    own = {key for key in keys if key.partition(".")[0] == section}
    assert not own or own == {section} or own == {f"{section}.{key}" for key in repository_params[section]}


def test_an_edit_reruns_what_it_can_change_and_nothing_else(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(clone)
    for edit, (files, must, must_not) in EDITS.items():
        before = {name: Path(name).read_bytes() for name in files}
        for name, content in before.items():
            Path(name).write_bytes(content + b"# an edit\n")
        stale = {name for name in Repo().status() if not name.startswith("extras/")}
        assert must <= stale and not stale & must_not, (edit, stale)
        for name, content in before.items():
            Path(name).write_bytes(content)
