"""The workflows: what linters say of them, and what they must never do."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

pytestmark = pytest.mark.structure

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCRIPTS = sorted((ROOT / "ci").glob("*.sh"))
PROGRAMS = Path(sys.executable).parent
DOCUMENTS = {path.stem: YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) for path in WORKFLOWS}
TRIGGERS = DOCUMENTS["pipeline"]["on"]


def jobs() -> list[tuple[str, dict[str, Any]]]:
    """Every job of every workflow, by `FILE/JOB`."""
    return [(f"{stem}/{name}", job) for stem, document in DOCUMENTS.items() for name, job in document["jobs"].items()]


def steps() -> list[tuple[str, dict[str, Any]]]:
    """Every step, by the job's name."""
    return [(name, step) for name, job in jobs() for step in job["steps"]]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["zizmor", "--offline", "--no-progress", "--quiet", ".github/workflows"], id="zizmor"),
        pytest.param(["actionlint", "-color=false"], id="actionlint"),
        pytest.param(["shellcheck", "--external-sources", *(str(path.relative_to(ROOT)) for path in SCRIPTS)], id="shellcheck"),
    ],
)
def test_linters_find_nothing(command: list[str]) -> None:
    program = PROGRAMS / command[0]
    assert program.is_file(), f"{command[0]} is missing: pip install -r requirements/dev.txt"
    path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([str(program), *command[1:]], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actions_are_pinned_by_one_commit_each_with_its_version_beside() -> None:
    used = {line for path in WORKFLOWS for line in re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))}
    assert [line for line in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    assert len(used) == len({line.partition("@")[0] for line in used})


def test_every_step_is_a_script_that_runs_locally() -> None:
    for name, step in steps():
        if "run" in step:
            script = re.fullmatch(r"(?:\.\./trusted/)?(ci/[a-z_]+\.sh)( [\w./-]+)*", step["run"])
            assert script, f"{name}: {step['run']}"
            assert os.access(ROOT / script[1], os.X_OK), f"{script[1]} is no program"


def test_a_step_with_secrets_runs_nothing_of_a_branch() -> None:
    """In the GPU job: only scripts of the default branch, which start DVC from the environment of the tools."""
    secret = [(name, step) for name, step in steps() if "secrets." in str(step) or "github.token" in str(step)]
    named = {"Bring what others have computed", "Share what was computed", "Summary, pictures and comment"}
    assert {step["name"] for _, step in secret} == named
    for name, step in secret:
        assert name == "pipeline/publish" or step["run"].startswith("../trusted/ci/"), f"{name}: {step['run']}"
    for name, job in jobs():
        assert "secrets." not in str({key: value for key, value in job.items() if key != "steps"}), name
    for name, step in steps():
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False, name
            if name == "pipeline/publish":
                assert step["with"]["ref"] == "${{ github.event.repository.default_branch }}"


def test_permissions_are_those_that_are_needed() -> None:
    needed = {"contents": "read"}
    writes = {"pipeline/publish": {"contents": "write", "pull-requests": "write"}}
    assert all(document["permissions"] in ({}, needed) for document in DOCUMENTS.values())
    for name, job in jobs():
        assert job.get("permissions", needed) == writes.get(name, needed), name
        assert 0 < job["timeout-minutes"] <= 1440, f"{name} may run for ever"


def test_forks_never_reach_our_machines() -> None:
    ours = [(name, job) for name, job in jobs() if "self-hosted" in job["runs-on"]]
    assert [name for name, _ in ours] == ["pipeline/run"]
    for _, job in ours:
        assert job["runs-on"] == ["self-hosted", "linux", "x64", "gpu"]
        assert "github.event.pull_request.head.repo.full_name == github.repository" in job["if"]
        assert "github.event.label.name == 'run-pipeline'" in job["if"]
    assert TRIGGERS.keys() == {"workflow_dispatch", "pull_request", "push"} and TRIGGERS["pull_request"]["types"] == ["labeled"]


def test_another_label_does_not_end_a_training_that_is_under_way() -> None:
    """Every label starts a run of the workflow, and which run ends which is decided before a job's `if`."""
    group = DOCUMENTS["pipeline"]["concurrency"]["group"]
    assert " ".join(group.split()) == (
        "pipeline-${{ github.event_name == 'pull_request' && github.event.label.name != 'run-pipeline' && github.run_id "
        "|| github.event.pull_request.number || github.ref }}"
    )


def test_main_reruns_the_pipeline_after_what_changes_it() -> None:
    """Whatever a stage depends on, or reads as a parameter, is among the paths that start the workflow."""
    paths = TRIGGERS["push"]["paths"]
    stages = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    written = ("data/", "models/", "metrics/", "plots/", "extras/dvc.lock")  # by stages: they come with what made them
    own = {dep for stage in stages.values() for dep in stage["deps"] if not dep.startswith(written)}
    for dep in {*own, "params.yaml"}:
        assert any(dep == path or dep.startswith(path.removesuffix("**")) for path in paths), f"{dep} starts no run"
