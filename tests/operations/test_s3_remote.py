"""What one clone has trained, no other trains: through an S3-compatible server, a shared folder, and a shared cache."""

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.operations.s3_server import BUCKET, REGION, S3, serve_s3
from tests.pipeline.clone import TINY, commit_all, copy_working_tree, stages_run, user_environment
from tests.stage_cases import bytes_below

pytestmark = pytest.mark.operations

TARGET = "evaluate"  # the last stage that the test runs: data, training, and metrics of `cache: false`
LEARNT = ("data/predictions", "models/classifier", "models/members")
PUSH_RUNS = ("python", "-m", "tools.push_runs")


def attempt(folder: Path, *command: str, keys: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a clone with these keys alone in its environment: no profile of the user's, no role of the machine's."""
    environment = {name: value for name, value in user_environment().items() if not name.startswith("AWS_")}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder.parent)} | (keys or {})
    options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=folder, env=environment, timeout=600, check=False, **options)


def succeed(folder: Path, *command: str, keys: dict[str, str] | None = None) -> str:
    done = attempt(folder, *command, keys=keys)
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def files_below(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    with contextlib.chdir(folder):
        return bytes_below(*names)


@dataclass(frozen=True)
class Team:
    """The clone that has trained and pushed, and the storage that it pushed to."""

    first: Path
    storage: S3
    before_runs: list[str]  # what `dvc push --run-cache` alone had left at the server

    def clone(self, folder: Path, revision: str = "main") -> Path:
        succeed(self.first, "git", "clone", "--quiet", "--branch", revision, str(self.first), str(folder))
        return folder


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A team's storage, and the first clone, which followed docs/remotes.md."""
    base = tmp_path_factory.mktemp("team")
    first = base / "first"
    with serve_s3(base) as storage:
        copy_working_tree(first, TINY)
        succeed(first, "dvc", "remote", "add", "--default", "storage", f"s3://{BUCKET}/skin-lesion")
        for name, value in {"endpointurl": storage.url, "region": REGION, "verify": "true"}.items():
            succeed(first, "dvc", "remote", "modify", "storage", name, value)
        commit_all(first, "params and remote, nothing run yet")
        succeed(first, "git", "branch", "not-run")
        assert "train@base-0" in stages_run(succeed(first, "dvc", "repro", TARGET))
        commit_all(first, "run")
        succeed(first, "dvc", "push", "--run-cache", keys=storage.environment)
        before_runs = storage.names()
        assert "7 runs are at the remote" in succeed(first, *PUSH_RUNS, keys=storage.environment)
        yield Team(first, storage, before_runs)


def test_a_second_clone_has_the_results_and_runs_nothing(team: Team, tmp_path: Path) -> None:
    second = team.clone(tmp_path / "second")
    output = succeed(second, "dvc", "repro", "--pull", TARGET, keys=team.storage.environment)
    assert stages_run(output) == [] and "epoch" not in output
    assert files_below(second, LEARNT) == files_below(team.first, LEARNT) != {}
    assert succeed(second, "git", "status", "--porcelain") == ""


def test_a_clone_whose_lock_does_not_have_the_run_yet_runs_nothing_either(team: Team, tmp_path: Path) -> None:
    third = team.clone(tmp_path / "third", "not-run")
    assert not (third / "dvc.lock").exists() and not (third / "metrics/evaluate.json").exists()
    output = succeed(third, "dvc", "repro", "--pull", TARGET, keys=team.storage.environment)
    assert stages_run(output) == [] and "Stage 'train@base-0' is cached" in output
    compared = (*LEARNT, "metrics")
    assert files_below(third, compared) == files_below(team.first, compared)
    locks = [YAML(typ="safe").load((clone / "dvc.lock").read_text(encoding="utf-8")) for clone in (third, team.first)]
    assert locks[0] == locks[1]  # stages that do not depend on each other may stand in another order


def test_why_push_runs_is_there(team: Team) -> None:
    """Metrics of `cache: false` are part of a run, and `dvc push --run-cache` does not send them."""
    lock = YAML(typ="safe").load((team.first / "dvc.lock").read_text(encoding="utf-8"))
    outs = lock["stages"]["train@base-0"]["outs"]
    (metrics,) = (out["md5"] for out in outs if out["path"] == "metrics/train/base-0.json")
    name = f"skin-lesion/files/md5/{metrics[:2]}/{metrics[2:]}"
    assert any("/runs/" in sent for sent in team.before_runs)
    assert name not in team.before_runs, "DVC sends them now: tools/push_runs.py can go"
    assert name in team.storage.names()


def test_no_file_holds_the_credentials(team: Team, tmp_path: Path) -> None:
    second = team.clone(tmp_path / "second")
    succeed(second, "dvc", "pull", "data/splits", keys=team.storage.environment)
    for clone in (team.first, second):
        holders = [path for path in clone.rglob("*") if path.is_file() and not path.is_symlink()]
        secrets = (team.storage.secret.encode(), team.storage.key.encode())
        assert len(holders) > 100
        assert [path for path in holders if any(secret in path.read_bytes() for secret in secrets)] == []


REPRO = ("dvc", "repro", "--pull", TARGET)
NO_KEY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


@pytest.mark.parametrize(
    ("keys", "url", "commands", "why"),
    [
        pytest.param({"AWS_SECRET_ACCESS_KEY": "wrong"}, None, [REPRO, ("dvc", "pull")], "Forbidden", id="wrong secret"),
        pytest.param(NO_KEY, None, [REPRO, PUSH_RUNS], "Unable to locate credentials", id="no key"),
        # Not `dvc pull`: it tries again for every file, which takes minutes.
        pytest.param({}, "http://127.0.0.1:1", [REPRO], "Could not connect to the endpoint URL", id="no server"),
    ],
)
def test_a_remote_that_cannot_be_read_stops_the_run(
    team: Team, tmp_path: Path, keys: dict[str, str], url: str | None, commands: list[tuple[str, ...]], why: str
) -> None:
    clone = team.clone(tmp_path / "clone")
    keys = {name: value for name, value in (team.storage.environment | keys).items() if value}
    if url:
        succeed(clone, "dvc", "remote", "modify", "--local", "storage", "endpointurl", url)
    for command in commands:
        done = attempt(clone, *command, keys=keys)
        assert done.returncode != 0 and why in done.stdout and stages_run(done.stdout) == [], done.stdout
        assert "Traceback" not in done.stdout
        if command == PUSH_RUNS:
            assert "error: `dvc push` failed, see above, and no run was pushed" in done.stdout
    assert not any((clone / name).exists() for name in LEARNT)


def test_a_remote_without_the_data_stops_pull_but_not_repro(team: Team, tmp_path: Path) -> None:
    clone = team.clone(tmp_path / "clone")
    succeed(clone, "dvc", "remote", "modify", "--local", "storage", "url", f"s3://{BUCKET}/somewhere-else")
    pulled = attempt(clone, "dvc", "pull", "data/raw", keys=team.storage.environment)
    assert pulled.returncode != 0 and "Is your cache up to date?" in pulled.stdout
    output = succeed(clone, "dvc", "repro", "--pull", "download", keys=team.storage.environment)
    assert "Some of the cache files do not exist neither locally nor on remote" in output
    assert stages_run(output) == ["download"]


def test_a_file_that_was_altered_at_the_remote_is_refused(team: Team, tmp_path: Path) -> None:
    """By `verify`, which is off unless it is set: without it DVC takes what the remote has for what dvc.lock names."""
    clone, splits = team.clone(tmp_path / "clone"), "data/splits/train.csv"
    content = (team.first / splits).read_bytes()
    digest = hashlib.md5(content).hexdigest()
    place = {"Bucket": BUCKET, "Key": f"skin-lesion/files/md5/{digest[:2]}/{digest[2:]}"}
    team.storage.client().put_object(**place, Body=content + b"one row more\n")
    try:
        done = attempt(clone, "dvc", "pull", "data/splits", keys=team.storage.environment)
    finally:
        team.storage.client().put_object(**place, Body=content)
    assert done.returncode != 0 and "Checkout failed for following targets" in done.stdout
    assert not (clone / splits).exists()
    succeed(clone, "dvc", "pull", "data/splits", keys=team.storage.environment)
    assert (clone / splits).read_bytes() == content


def test_a_folder_is_a_remote_too(team: Team, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    succeed(team.first, "dvc", "remote", "add", "--local", "folder", str(folder))
    assert "7 runs are at the remote" in succeed(team.first, *PUSH_RUNS, "--remote", "folder")
    clone = team.clone(tmp_path / "clone", "not-run")
    succeed(clone, "dvc", "remote", "add", "--local", "--default", "folder", str(folder))
    assert stages_run(succeed(clone, "dvc", "repro", "--pull", TARGET)) == []
    assert files_below(clone, LEARNT) == files_below(team.first, LEARNT)


def test_runs_that_lost_their_files_keep_nobody_from_pushing(team: Team, tmp_path: Path) -> None:
    """As on a machine that pulled everybody's records, and some are of before a `dvc gc`."""
    folder = tmp_path / "shared"
    succeed(team.first, "dvc", "remote", "add", "--local", "--force", "folder", str(folder))
    succeed(team.first, *PUSH_RUNS, "--remote", "folder")
    lists = sorted(folder.glob("files/md5/??/*.dir"))
    assert lists
    for listed in lists:
        listed.unlink()
    clone = team.clone(tmp_path / "clone", "not-run")
    succeed(clone, "dvc", "remote", "add", "--local", "--default", "folder", str(folder))
    succeed(clone, "dvc", "pull", "--run-cache", "--allow-missing")
    assert (clone / ".dvc/cache/runs").is_dir() and not (clone / "data/raw").exists()
    output = succeed(clone, *PUSH_RUNS)
    assert "7 runs are at the remote, 0 of their files new there" in output and "7 of them cannot be brought back" in output


def test_clones_that_share_a_cache_need_no_remote(team: Team, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(team.first / ".dvc/cache", cache)
    clone = team.clone(tmp_path / "clone", "not-run")
    succeed(clone, "dvc", "cache", "dir", "--local", str(cache))
    succeed(clone, "dvc", "config", "--local", "cache.shared", "group")
    assert stages_run(succeed(clone, "dvc", "repro", TARGET)) == []
    assert files_below(clone, LEARNT) == files_below(team.first, LEARNT)
