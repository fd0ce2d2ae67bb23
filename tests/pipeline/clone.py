"""A clone of this working tree with tiny params, in which tests run the whole pipeline through DVC as a user would."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dvc.utils.hydra import apply_overrides

from tests.conftest import ROOT

AFTER_EVALUATION = ["threshold-sweep", "baselines", "selective", "subgroups", "failures", "gradcam", "neighbors", "report"]
AFTER_TRAINING = ["assemble", "evaluate", *AFTER_EVALUATION]
BEFORE_TRAINING = ["download", "split", "prepare", "synthesize"]
STAGES = [*BEFORE_TRAINING, "train@base-0", *AFTER_TRAINING]

LOCKS = ("dvc.lock", "extras/dvc.lock")
NO_EXTRAS = "schema: '2.0'\nstages: {}\n"
TINY = {
    "download.sample.lesions": 120,
    "download.sample.width": 80,
    "download.sample.height": 64,
    "split.folds": 3,
    "split.validation_folds": 2,
    "split.max_deviation": 5.0,
    "prepare.size": 32,
    "train.backbone": "mobilenet_v3_small",
    "train.epochs": 2,
    "train.warmup_epochs": 0.5,
    "bootstrap.draws": 100,
    "gradcam.confident_errors": 2,
    "gradcam.unsure_correct": 0,
    "gradcam.typical_correct": 0,
    "neighbors.cases": 2,
}


def user_environment() -> dict[str, str]:
    """A user's environment: this one's `python` and `dvc` first on PATH, bytecode written, commits under some name."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "DVC_ROOT", *("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV"))
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    return environment | dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "t") | {
        "GIT_AUTHOR_EMAIL": "t@t",
        "GIT_COMMITTER_EMAIL": "t@t",
    }  # fmt: skip


def run(folder: Path, *command: str, **environment: str) -> str:
    """Run a command in the clone, which must succeed; returns what it said."""
    variables = user_environment() | environment
    done = subprocess.run(command, cwd=folder, env=variables, text=True, capture_output=True, timeout=400)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def stages_run(output: str) -> list[str]:
    """The stages that DVC says it ran, in order."""
    return re.findall(r"Running stage '([^']+)'", output)


def copy_working_tree(folder: Path, params: dict[str, Any]) -> None:
    """Make `folder` a git repository with this working tree's files, some params set (`{"split.fold": 2}`), nothing run yet."""
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name not in LOCKS and not name.startswith("metrics/"):  # those are of the default run
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "extras/dvc.lock").write_text(NO_EXTRAS, encoding="utf-8")
    set_params(folder / "params.yaml", params)
    make_repository(folder, "tiny")


def set_params(path: Path, params: dict[str, Any]) -> None:
    """Set some values of a `params.yaml`, its comments kept, as `dvc exp run -S` does."""
    apply_overrides(path, [f"{key}={value}" for key, value in params.items()])


def make_repository(folder: Path, message: str) -> None:
    """Make a folder a git repository of what it holds."""
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    commit_all(folder, message)


def commit_all(folder: Path, message: str) -> None:
    """Commit whatever git sees."""
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)
