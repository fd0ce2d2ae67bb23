"""One worker of DVC's queue a GPU, with a stand-in for training that notes which GPU it sees."""

import fcntl
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipeline.clone import commit_all, run

pytestmark = pytest.mark.operations

SCRIPT = ROOT / "ci/queue_gpus.sh"
# Waits until both are at work, which one worker alone would never see.
STAND_IN = """import os, pathlib, sys, time
folder, seed = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / seed).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
deadline = time.monotonic() + 120
while len(list(folder.iterdir())) < 2:
    if time.monotonic() > deadline:
        sys.exit("no second one came")
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
    run(project, "git", "init", "--quiet")
    run(project, "dvc", "init", "--quiet")
    commit_all(project, "stand-in")
    run(project, "dvc", "exp", "run", "--queue", "-S", "seed=range(1,3)")
    assert "the queue is empty" in run(project, str(SCRIPT), "0", "3")
    assert sorted(path.read_text(encoding="utf-8") for path in seen.iterdir()) == ["0", "3"]
    assert run(project, "dvc", "queue", "status").count("Success") == 2
    with (project / ".dvc/tmp/exps/queue_gpus.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AssertionError, match=r"error: another .*queue_gpus.sh works through this queue"):
            run(project, str(SCRIPT), "0")


@pytest.mark.parametrize(
    ("gpus", "message"),
    [([], "name the GPUs"), (["0", "1", "0"], "a GPU is named twice"), (["all"], "'all' is no number or UUID of a GPU")],
)
def test_gpus_that_are_refused(gpus: list[str], message: str) -> None:
    done = subprocess.run([SCRIPT, *gpus], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr


def test_a_folder_without_a_queue_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, "0"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "error: no queue here: `dvc exp run --queue` first" in done.stderr
