"""The GPU job, step by step from its workflow file, on a tiny sample: a bare git remote, a DVC remote in a folder, a fake gh.

Three runs share a remote: the first on one machine computes everything, the second on another machine nothing, the third changes
a parameter and computes what depends on it.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.operations.workflow_steps import Job
from tests.pipeline.clone import TINY, commit_all, copy_working_tree, run, set_params, stages_run, user_environment

pytestmark = pytest.mark.operations

REPOSITORY = "group/skin-lesion"
FAKE_GH = '''#!/usr/bin/env python3
"""A GitHub that has one pull request: `gh api` on its comments, kept in a file; `gh auth setup-git` has nothing to do."""
import json, os, sys
from pathlib import Path

kept = Path(os.environ["FAKE_GITHUB"])
comments = json.loads(kept.read_text()) if kept.is_file() else []
words = sys.argv[1:]
if words == ["auth", "setup-git"]:
    sys.exit()
assert words[0] == "api" and os.environ["GH_TOKEN"] == "token", words
if "--method" not in words:
    assert words[1:3] == ["--paginate", "repos/group/skin-lesion/issues/7/comments?per_page=100"], words
    mine = [c for c in comments if c["user"]["type"] == "Bot" and c["body"].startswith("<!-- pipeline-report -->")]
    print("\\n".join(str(c["id"]) for c in mine))
    sys.exit()
method, address = words[words.index("--method") + 1], words[words.index("--method") + 2]
body = json.load(sys.stdin)["body"]
if method == "POST":
    assert address == "repos/group/skin-lesion/issues/7/comments", address
    comments.append({"id": 100 + len(comments), "user": {"type": "Bot"}, "body": body})
else:
    assert method == "PATCH", method
    [comment] = [c for c in comments if address == f"repos/group/skin-lesion/issues/comments/{c['id']}"]
    comment["body"] = body
kept.write_text(json.dumps(comments))
'''


@dataclass
class Rehearsal:
    """What the runs share, and how one of them is made."""

    folder: Path
    origin: Path
    commit: str

    def machine(self, name: str) -> Path:
        """A machine's folder for what outlives jobs. Its environments are this one, which has everything already; machine `one`
        installs that of the tools.
        """
        state = self.folder / name
        if not state.exists():
            clone = self.folder / "for-environments"
            if not clone.exists():
                run(self.folder, "git", "clone", "--quiet", str(self.origin), str(clone))
            for kind in ("project", *(["tools"] if name != "one" else [])):
                script = f"source ci/environment.sh; environment_of . {kind}"
                environment = Path(run(clone, "bash", "-c", script, PIPELINE_STATE=str(state)).strip())
                (environment / "bin").mkdir(parents=True)
                (environment / ".complete").touch()
                for program in ("python", "dvc"):  # a link to a virtual environment's python would leave the environment
                    own = environment / "bin" / program
                    own.write_text(f'#!/bin/sh\nexec "{Path(sys.executable).parent / program}" "$@"\n', encoding="utf-8")
                    own.chmod(0o755)
        return state

    def job(
        self, number: str, *, machine: str, event: str, private: bool = False, overrides: str = ""
    ) -> tuple[dict[str, str], Path]:
        """Carry out the job `run` and then `publish`; what the steps said, and the folder of the report."""
        base = f"{self.commit}~1" if event == "pull_request" else self.commit
        values = {
            "github.run_id": number,
            "github.run_attempt": "1",
            "github.server_url": "https://github.com",
            "github.repository": REPOSITORY,
            "github.event_name": event,
            "github.event.repository.default_branch": "main",
            "github.event.pull_request.head.sha || github.sha": self.commit,
            "github.event.pull_request.base.sha || github.event.before || github.sha": base,
            "github.event.pull_request.number": "7" if event == "pull_request" else "",
            "github.token": "token",
            "vars.PIPELINE_STATE": str(self.machine(machine)),
            "vars.DVC_REMOTE_URL": str(self.folder / "remote"),
            "vars.DVC_REMOTE_READABLE": "" if private else "true",
            "inputs.overrides": overrides,
            **dict.fromkeys(("vars.DVC_REMOTE_ENDPOINT", "vars.DVC_REMOTE_REGION", "inputs.recipes"), ""),
            **{f"secrets.AWS_{name}": "" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")},
        }
        artifacts = self.folder / f"artifacts-{number}"
        outputs = {}
        for name in ("run", "publish"):
            place = self.folder / f"{name}-{number}"
            place.mkdir()
            environment = {
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "FAKE_GITHUB": str(self.folder / "comments.json"),
                "GITHUB_REPOSITORY": REPOSITORY,
                "GITHUB_RUN_ID": number,
                "GITHUB_STEP_SUMMARY": str(self.folder / f"summary-{number}.md"),
            }
            outputs |= Job("pipeline.yml", name, values, self.origin, artifacts).carry_out(place, environment)
        return outputs, artifacts

    def comments(self) -> list[str]:
        return [comment["body"] for comment in json.loads((self.folder / "comments.json").read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """A bare git remote of this working tree, and a commit that makes its params tiny; nothing of DVC in any remote."""
    folder = tmp_path_factory.mktemp("rehearsal")
    project = folder / "project"
    copy_working_tree(project, {})
    shutil.copy2(ROOT / "dvc.lock", project)  # of the default params, in no remote: there is something that cannot be brought
    shutil.copytree(ROOT / "metrics", project / "metrics", dirs_exist_ok=True)
    commit_all(project, "what the pull request starts from")
    set_params(project / "params.yaml", TINY)
    commit_all(project, "what the pull request is")
    run(folder, "git", "clone", "--quiet", "--bare", str(project), str(folder / "origin.git"))
    (folder / "bin").mkdir()
    (folder / "bin/gh").write_text(FAKE_GH, encoding="utf-8")
    (folder / "bin/gh").chmod(0o755)
    return Rehearsal(folder, folder / "origin.git", run(project, "git", "rev-parse", "HEAD").strip())


@pytest.fixture(scope="module")
def first(rehearsal: Rehearsal) -> tuple[dict[str, str], Path]:
    """The first run, for a pull request, on a machine that has nothing, with a remote that is empty."""
    return rehearsal.job("1001", machine="one", event="pull_request")


def test_the_first_run_computes_everything_and_reports(rehearsal: Rehearsal, first: tuple[dict[str, str], Path]) -> None:
    outputs, artifacts = first
    assert "download: nobody has run it with these inputs yet" in outputs["Bring what others have computed"]
    assert "Recipes and overrides" not in outputs
    assert len(stages_run(outputs["Run the pipeline"])) == 15
    assert (artifacts / "plots_page/index.html").is_file() and (artifacts / "dvc.lock").is_file()
    report = (artifacts / "report.md").read_text(encoding="utf-8")
    assert "| trained | base-0 (mobilenet_v3_small) on 1 x cpu" in report and "| stages run | download, split," in report
    assert "figures say nothing about real skin" in report and "| params.yaml | train.epochs | 8" in report
    [comment] = rehearsal.comments()
    summary = (rehearsal.folder / "summary-1001.md").read_text(encoding="utf-8")
    assert comment == summary and comment.startswith("<!-- pipeline-report -->")
    commit = run(rehearsal.origin, "git", "rev-parse", "pipeline-reports").strip()
    address = f"https://github.com/{REPOSITORY}/blob/{commit}/1001/evaluate_roc.png?raw=true"
    assert f"![evaluate roc]({address})" in comment and "](plots/" not in comment
    published = run(rehearsal.origin, "git", "ls-tree", "--name-only", "-r", commit).split()
    assert sorted(published) == sorted(f"1001/{path.name}" for path in (artifacts / "plots").iterdir())


@pytest.mark.parametrize("private", [False, True], ids=["readable", "private"])
def test_a_second_machine_computes_nothing(rehearsal: Rehearsal, first: tuple[dict[str, str], Path], private: bool) -> None:
    """`private`: a remote that only the steps with secrets can read; what it has must have come before `dvc repro`."""
    number = "1003" if private else "1002"
    outputs, artifacts = rehearsal.job(number, machine=f"two-{number}", event="pull_request", private=private)
    assert stages_run(outputs["Run the pipeline"]) == []
    assert (artifacts / "dvc.lock").read_bytes() == (first[1] / "dvc.lock").read_bytes()
    report = (artifacts / "report.md").read_text(encoding="utf-8")
    assert "| trained | nothing |" in report and "| stages run | none |" in report
    [comment] = rehearsal.comments()
    assert f"/{number}/" in comment


def test_a_branch_cannot_speak_for_the_job_s_remote(rehearsal: Rehearsal, tmp_path: Path) -> None:
    """DVC would merge what git has of the remote with the job's own settings."""
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(rehearsal.origin), str(clone))
    run(clone, "dvc", "remote", "add", "ci", "s3://bucket/elsewhere")
    run(clone, "dvc", "remote", "modify", "ci", "endpointurl", "https://elsewhere.example")
    state = rehearsal.machine("three")
    environment = user_environment() | {"PIPELINE_STATE": str(state), "DVC_REMOTE_URL": str(rehearsal.folder / "remote")}
    command = [clone / "ci/configure.sh", clone]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "error: .dvc/config has a remote of the name ci" in done.stderr
    assert not (clone / ".dvc/config.local").exists()


def test_an_override_reruns_what_depends_on_it(rehearsal: Rehearsal, first: tuple[dict[str, str], Path]) -> None:
    overrides = "threshold_sweep.target=malignant -S threshold_sweep.guarantee=0.8"
    outputs, artifacts = rehearsal.job("1004", machine="one", event="workflow_dispatch", overrides=overrides)
    assert stages_run(outputs["Run the pipeline"]) == ["threshold-sweep", "failures", "report"]
    report = (artifacts / "report.md").read_text(encoding="utf-8")
    assert "| params.yaml | threshold_sweep.target | mel" in report and "malignant" in report
    assert "/1004/" in (rehearsal.folder / "summary-1004.md").read_text(encoding="utf-8")
    assert "/1004/" not in rehearsal.comments()[0]
