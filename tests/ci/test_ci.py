"""The scripts of ci/, each by itself. tests/operations rehearses the whole GPU job."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ci import compare_sample, publish, set_params
from ci.end_leftovers import VARIABLE, processes_of
from ci.publish import LONGEST, fitting, read_pictures, with_addresses
from ci.report import MARKER, stage_of
from ci.run_log import read_log
from skinlesion.config.params import load_params
from tests.conftest import ROOT, WriteParams, refuses
from tests.pipeline.clone import make_repository, run

PNG = publish.SIGNATURE + b"content"

LOG = """Stage 'download' is cached - skipping run, checking out outputs
Stage 'split' didn't change, skipping
Running stage 'prepare':
> python -m stages.prepare
Running stage 'train@base-0':
training base-0 (resnet18) on 1 x cuda in bf16-mixed
epoch 1/3: training loss 1.8431, validation macro_auc 0.8306, 1,056 images/s, at most 111 s left
epoch 2/3: training loss 1.5680, validation macro_auc 0.9198, 1,252 images/s, at most 102 s left
epoch 3/3: training loss 1.3435, validation macro_auc 0.9353, 1,100 images/s
Pulling data for stage: 'assemble'
dvc repro took 61 seconds
"""


def test_what_a_log_says_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "repro.log").write_text(LOG, encoding="utf-8")
    log = read_log(tmp_path / "repro.log")
    assert log.ran == ("prepare", "train@base-0") and log.restored == ("assemble", "download")
    assert log.trainings == ("base-0 (resnet18) on 1 x cuda in bf16-mixed",)
    assert log.images_per_second == 1100.0 and log.seconds == 61
    (tmp_path / "repro.log").write_text("Stage 'split' didn't change, skipping\n", encoding="utf-8")
    assert read_log(tmp_path / "repro.log").images_per_second is None


def test_a_plot_belongs_to_the_stage_whose_name_it_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert stage_of("threshold_sweep_curve") == "threshold-sweep" and stage_of("baselines") == "baselines"
    assert stage_of("train_loss") == "train" and stage_of("leak_inflation") == "extras"


def test_recipes_then_overrides(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_params()
    monkeypatch.setenv("RECIPES", "cosine_b0 ham10000")
    monkeypatch.setenv("OVERRIDES", "train.lr=0.00001 -S '++train.class_multipliers={mel: 3}'")
    set_params.main()
    params = load_params(path)
    assert params.train.backbone == "efficientnet_b0" and params.download.source == "dataverse"
    assert params.train.lr == 0.00001 and params.train.class_multipliers == {"mel": 3.0}


@pytest.mark.parametrize(
    ("recipes", "overrides", "message"),
    [
        ("cosine_b", "", "there is no recipe 'cosine_b'"),
        ("", "train.lr", "'train.lr' is no override"),
        ("", "train.lr='0.1", "No closing quotation"),
        ("", "train.lrr=0.1", "an override is refused: Could not override 'train.lrr'"),
        ("", "train.lr=-1", r"train.lr = -1: input should be greater than 0"),
        ("", "train.backbone=resnet19", "resnet19.*did you mean 'resnet"),
    ],
)
def test_a_refused_override_leaves_the_file_alone(
    write_params: WriteParams, monkeypatch: pytest.MonkeyPatch, recipes: str, overrides: str, message: str
) -> None:
    path = write_params()
    before = path.read_bytes()
    monkeypatch.setenv("RECIPES", recipes)
    monkeypatch.setenv("OVERRIDES", overrides)
    refuses(message, set_params.main)
    assert path.read_bytes() == before and [found.name for found in path.parent.iterdir()] == ["params.yaml"]


@pytest.fixture
def sample(workspace: Path) -> Path:
    """A git repository with the committed run of the sample."""
    for name in ("dvc.lock", *(f"metrics/{name}.json" for name in compare_sample.METRIC_FILES)):
        (workspace / name).parent.mkdir(exist_ok=True)
        (workspace / name).write_bytes((ROOT / name).read_bytes())
    make_repository(workspace, "sample")
    return workspace


def change_metric(folder: Path, change: float) -> None:
    path = folder / "metrics/evaluate.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["test"]["macro_auc"] += change
    path.write_text(json.dumps(metrics), encoding="utf-8")


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ci.compare_sample", *arguments]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_the_same_run_passes_and_rounding_may_differ(sample: Path) -> None:
    change_metric(sample, -0.9 * compare_sample.TOLERANCE["macro_auc"])
    done = compare()
    assert done.returncode == 0, done.stderr
    assert "data as at HEAD to the byte, metrics within their tolerance" in done.stdout and "| macro AUC |" in done.stdout


def test_another_run_is_refused_with_all_that_is_off(sample: Path) -> None:
    change_metric(sample, -1.1 * compare_sample.TOLERANCE["macro_auc"])
    lock = (sample / "dvc.lock").read_text(encoding="utf-8")
    [digest] = [md5 for path, md5 in compare_sample.data_hashes(lock).items() if path == "data/prepared"]
    (sample / "dvc.lock").write_text(lock.replace(digest, f"{'0' * 32}.dir"), encoding="utf-8")
    (sample / "metrics/split.json").write_text('{"images": {}, "odd": 1}', encoding="utf-8")
    done = compare()
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"data/prepared: {'0' * 32}.dir instead of {digest}" in done.stderr
    assert "macro AUC of test is" in done.stderr and "metrics/split.json has other keys:" in done.stderr


def test_a_revision_that_is_not_there(sample: Path) -> None:
    done = compare("--to", "no-such")
    assert done.returncode == 1 and "error: dvc.lock at no-such cannot be read" in done.stderr


@pytest.fixture
def history(workspace: Path) -> Callable[..., str]:
    """A git repository of three commits on main and one on a branch that left main at the first; runs git there."""
    git = partial(run, workspace, "git")
    git("init", "--quiet", "--initial-branch", "main")
    for name in ("one", "two", "three"):
        git("commit", "--quiet", "--allow-empty", "--message", name)
        git("tag", name)
    git("switch", "--quiet", "--create", "branch", "one")
    git("commit", "--quiet", "--allow-empty", "--message", "own")
    return git


@pytest.mark.parametrize(
    ("at", "base", "expected"),
    [
        ("branch", "three", "one"),  # a pull request, after whose start main went on
        ("three", "two", "two"),
        ("three", "three", "three"),  # by hand: what is committed
        ("three", "0" * 40, "two"),  # the branch is new
        ("one", "0" * 40, "one"),
        ("three", "", "three"),
    ],
)
def test_what_a_run_is_compared_with(history: Callable[..., str], at: str, base: str, expected: str) -> None:
    history("switch", "--quiet", "--detach", at)
    found = run(Path(), "bash", "-c", f"source {ROOT}/ci/environment.sh; base_commit", BASE=base)
    assert found == history("rev-parse", expected)


def test_a_failure_is_reported_with_the_end_of_its_log(history: Callable[..., str]) -> None:
    command = [str(ROOT / "ci/report_failure.sh")]
    run(Path(), *command, RUN_URL="https://x/runs/1")
    report = Path("ci-report/report.md").read_text(encoding="utf-8")
    assert report.startswith(f"{MARKER}\n## Pipeline report: failed") and "failed before the pipeline was run" in report
    lines = "\n".join(["first", *["between"] * 60, "error: no space ```left"])
    Path("ci-report/repro.log").write_text(lines, encoding="utf-8")
    run(Path(), *command, RUN_URL="https://x/runs/1")
    report = Path("ci-report/report.md").read_text(encoding="utf-8")
    assert "error: no space left\n````" in report and "first" not in report and "[The log](https://x/runs/1)" in report
    assert history("rev-parse", "--short=10", "HEAD").strip() in report and read_pictures(Path("ci-report/plots")) == {}


@pytest.mark.parametrize(
    ("output", "status", "expected", "code"),
    [
        ("Stage 'split' didn't change, skipping\nData and pipelines are up to date.", 0, "up to date", 0),
        ("Running stage 'split':\n> python -m stages.split\nRunning stage 'train@base-0':\n>", 0, "data: split train@base-0.", 1),
        ("ERROR: failed to reproduce 'evaluate': [Errno 2] No such file or directory: 'data'", 255, "data: evaluate.", 1),
        ("ERROR: Unable to read RWLock-file", 255, "Unable to read RWLock-file", 255),
    ],
)
def test_a_lock_file_that_is_behind(workspace: Path, output: str, status: int, expected: str, code: int) -> None:
    """With what DVC 3.67 says: in a clone without data it fails on a stage that would run."""
    for folder in ("ci", ".venv/bin"):
        Path(folder).mkdir(parents=True)
    shutil.copy(ROOT / "ci/in_step.sh", "ci")
    Path("Makefile").write_text(".venv/.installed:\n\t@touch $@\n", encoding="utf-8")
    Path("output").write_text(output, encoding="utf-8")
    dvc = Path(".venv/bin/dvc")
    dvc.write_text(f'#!/bin/sh\n[ "$*" = "repro --dry --allow-missing" ] || exit 9\ncat output\nexit {status}\n')
    dvc.chmod(0o755)
    done = subprocess.run(["ci/in_step.sh"], capture_output=True, text=True)
    assert done.returncode == code and expected in done.stdout + done.stderr
    assert done.stderr.startswith("error: dvc.lock is behind") == (code == 1)


def test_only_this_job_s_processes_are_ended(tmp_path: Path) -> None:
    """One that does as it is asked, one that must be killed, each in a session of its own; another job's; and one of nobody's."""
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    meek = "import time; print('up', flush=True); time.sleep(60)"
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}

    def start(code: str, job: dict[str, str]) -> subprocess.Popen[str]:
        alone = {"env": clean | job, "start_new_session": True}
        process = subprocess.Popen([sys.executable, "-c", code], **alone, stdout=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline() == "up\n"
        return process

    own = [start(stubborn, {VARIABLE: "8-1"}), start(meek, {VARIABLE: "8-1"})]
    others = [start(meek, {VARIABLE: "8-2"}), start(meek, {})]
    try:
        assert processes_of("8-1").keys() == {process.pid for process in own}
        code = "import end_leftovers as e; e.end(lambda: e.processes_of('8-1'), patience=1.0)"
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", code], env=clean | {VARIABLE: "8-1", "PYTHONPATH": str(ROOT / "ci")}, check=True)
        assert time.monotonic() - begun < 20
        assert [process.wait(5) for process in own] == [-signal.SIGKILL, -signal.SIGTERM]
        assert [process.poll() for process in others] == [None, None]
    finally:
        for process in (*own, *others):
            process.kill()
            process.wait()


def test_leftovers_of_no_job_are_not_looked_for() -> None:
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([ROOT / "ci/end_leftovers.sh"], env=clean, capture_output=True, text=True)
    assert done.returncode == 1 and f"error: {VARIABLE} is not set" in done.stderr


def test_pictures_get_addresses_and_nothing_else_does() -> None:
    report = "![a](plots/a_b.png) [x](plots/../secret) ![c](https://elsewhere/c.png)"
    expected = "![a](https://x/1/a_b.png?raw=true) [x](plots/../secret) ![c](https://elsewhere/c.png)"
    assert with_addresses(report, prefix="https://x/1") == expected


def test_a_report_that_is_too_long_is_cut_at_a_line() -> None:
    cut = fitting(f"{MARKER}\n" + "a line of the report\n" * 5000)
    assert len(cut) <= LONGEST and cut.startswith(MARKER)
    assert cut.rstrip().splitlines()[-3:] == ["a line of the report", "", cut.rstrip().splitlines()[-1]]
    assert "too long for a comment" in cut and fitting("short") == "short"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.svg", PNG, "'a.svg' is no picture"),
        ("..png", PNG, "'..png' is no picture"),
        ("a.png", b"<script>", "a.png is no PNG file"),
        ("a.png", PNG + bytes(publish.MOST_BYTES), "a.png is no PNG file of at most 2,000,000 bytes"),
    ],
)
def test_what_is_no_picture_is_not_published(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / "good.png").write_bytes(PNG)
    assert read_pictures(tmp_path) == {"good.png": PNG}
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=message):
        read_pictures(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(PNG)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/a.png").symlink_to(tmp_path / "secret")
    with pytest.raises(SystemExit, match=r"'a.png' is no picture"):
        read_pictures(tmp_path / "plots")
