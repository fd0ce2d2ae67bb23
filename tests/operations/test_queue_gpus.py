"""One worker of DVC's queue a GPU, with a stand-in for training that notes which GPU it sees."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_pipeline import run

pytestmark = pytest.mark.operations

SCRIPT = ROOT / "ci/queue_gpus.sh"
# Works until it is told to stop, so that two can be seen at work at once.
STAND_IN = """import os, pathlib, sys, time
folder, seed = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / seed).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
deadline = time.monotonic() + 120
while not (folder / "stop").exists() and time.monotonic() < deadline:
    time.sleep(0.2)
pathlib.Path("out.txt").write_text(seed)
"""
STAGE = """stages:
  train:
    cmd: python train.py {folder} ${{seed}}
    deps: [train.py]
    params: [seed]
    outs: [out.txt]
"""


def test_two_experiments_at_once_see_a_gpu_each(tmp_path: Path) -> None:
    project, seen = tmp_path / "project", tmp_path / "seen"
    project.mkdir()
    seen.mkdir()
    (project / "train.py").write_text(STAND_IN, encoding="utf-8")
    (project / "dvc.yaml").write_text(STAGE.format(folder=seen), encoding="utf-8")
    (project / "params.yaml").write_text("seed: 0\n", encoding="utf-8")
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"], ["git", "add", "--all"]):
        run(project, *command)
    run(project, "git", "commit", "--quiet", "--message", "stand-in")
    run(project, "dvc", "exp", "run", "--queue", "-S", "seed=range(1,3)")
    try:
        assert "2 workers, one a GPU" in run(project, str(SCRIPT), "0", "3")
        with pytest.raises(AssertionError, match="error: 2 workers are there already"):
            run(project, str(SCRIPT), "0")
        deadline = time.monotonic() + 60
        while len(found := [path.read_text(encoding="utf-8") for path in seen.iterdir()]) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        (seen / "stop").touch()
        run(project, "dvc", "queue", "stop", "--kill")
    assert sorted(found) == ["0", "3"]


@pytest.mark.parametrize(
    ("gpus", "message"),
    [([], "name the GPUs"), (["0", "1", "0"], "a GPU is named twice"), (["all"], "'all' is no number or UUID of a GPU")],
)
def test_what_is_refused(gpus: list[str], message: str) -> None:
    done = subprocess.run([SCRIPT, *gpus], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr
