"""DVC's everyday commands where the extras were never run: each ends with 0, and none misses what no stage wrote."""

from pathlib import Path

import pytest

from tests.pipeline.clone import commit_all, run, set_params, stages_run

pytestmark = pytest.mark.operations

BRANCH = [["dvc", "checkout"], ["git", "switch", "--quiet", "other"], ["dvc", "checkout"], ["git", "switch", "--quiet", "main"]]
COMMANDS = [
    *(
        ["dvc", "repro", *flags]
        for flags in ([], ["--all-pipelines"], ["--recursive", "."], ["--pull"], ["--dry"], ["extras/dvc.yaml"])
    ),
    *(["dvc", "status", *flags] for flags in ([], ["--cloud"])),
    *(["dvc", *words] for words in (["fetch"], ["pull", "--force"], ["push"], ["push", "--run-cache"], ["commit", "--force"])),
    *BRANCH,
    *(["dvc", kind, *words] for kind in ("metrics", "params", "plots") for words in (["diff", "HEAD"],)),
    *(["dvc", kind, "show"] for kind in ("metrics", "plots")),
    *(["dvc", *words] for words in (["diff"], ["dag"], ["stage", "list", "--all"], ["data", "status"], ["doctor"])),
    ["dvc", "exp", "run", "--name", "cheap", "-S", "threshold_sweep.cost_ratios=[5.0]"],
    *(["dvc", "exp", *words] for words in (["show"], ["list"], ["diff", "main", "cheap"], ["apply", "cheap"])),
    ["git", "checkout", "--quiet", "--force", "."],
    *(["dvc", *words] for words in (["checkout"], ["exp", "branch", "cheap", "kept"], ["exp", "push", "origin", "cheap"])),
    *(["dvc", "exp", "run", flag, "-S", "threshold_sweep.cost_ratios=[6.0]"] for flag in ("--queue", "--temp")),
    *(["dvc", "gc", "--force", "--workspace", *flags] for flags in ([], ["--all-branches"], ["--cloud"])),
    ["dvc", "get", ".", "models/classifier", "--out", "of_the_remote"],
]


def test_every_command_ends_well_in_a_clone(clone: Path, tmp_path: Path) -> None:
    run(clone, "dvc", "remote", "add", "--default", "folder", str(tmp_path / "remote"))
    commit_all(clone, "remote")
    run(clone, "dvc", "push")
    here = tmp_path / "here"
    run(tmp_path, "git", "clone", "--quiet", str(clone), str(here))
    assert "fetched" in run(here, "dvc", "pull")
    assert stages_run(run(here, "dvc", "repro")) == [] and run(here, "git", "status", "--porcelain") == ""
    run(here, "git", "switch", "--quiet", "--create", "other")
    set_params(here / "params.yaml", {"split.fold": 1})
    commit_all(here, "another fold")
    run(here, "git", "switch", "--quiet", "main")
    for command in COMMANDS:
        said = run(here, *command)
        assert "No file hash info" not in said and "missing version info" not in said, command


def test_an_extra_that_was_run_is_shared_and_its_switch_is_a_param(clone: Path, tmp_path: Path) -> None:
    run(clone, "dvc", "remote", "add", "--default", "folder", str(tmp_path / "remote"))
    output = run(clone, "dvc", "exp", "run", "-S", "extras.near_duplicates=[run]", "extras/dvc.yaml")
    assert stages_run(output) == ["extras/dvc.yaml:near-duplicates@run"]
    assert stages_run(run(clone, "dvc", "repro")) == ["report"]
    run(clone, "dvc", "push")
    commit_all(clone, "near-duplicates")
    here = tmp_path / "here"
    run(tmp_path, "git", "clone", "--quiet", str(clone), str(here))
    run(here, "dvc", "pull")
    assert (here / "data/extras/near_duplicates/pairs.csv").is_file()
    assert stages_run(run(here, "dvc", "repro", "--all-pipelines")) == []
    set_params(here / "params.yaml", {"extras.near_duplicates": []})
    assert "No file hash info" not in run(here, "dvc", "checkout") and "extras" not in run(here, "dvc", "status")
