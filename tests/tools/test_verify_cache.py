"""`python -m tools.verify_cache`: what was altered behind DVC's back is found, named, taken away, and made anew by DVC."""

import logging
from pathlib import Path

import pytest

from tests.conftest import refuses
from tests.pipeline.clone import run, stages_run
from tools import verify_cache

PIPELINE = """\
stages:
  train:
    cmd: mkdir -p models/network && echo 12345 > models/network/weights && echo a > models/network/config
    deps: [seed]
    outs: [models/network]
"""
CONFIG = "[core]\n    no_scm = true\n    analytics = false\n[cache]\n    type = hardlink,symlink,copy\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose outputs are hard links into the cache, as this project's are."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "seed").write_text("1", encoding="utf-8")
    run(folder, "dvc", "init", "--quiet", "--no-scm")
    (folder / ".dvc/config").write_text(CONFIG, encoding="utf-8")
    run(folder, "dvc", "repro")
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That project as the working directory."""
    monkeypatch.chdir(made)
    return made


def alter(path: Path) -> None:
    """Change a byte in place; the file stays read-only, as root's editor or a failing disk leaves it."""
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(b"X" + content[1:])
    path.chmod(0o444)


def test_what_dvc_takes_for_whole_is_found_named_and_made_anew(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    verify_cache.main([])
    assert caplog.messages[-1].endswith("4 files, each as its name says")  # two files, the list of their folder, a run
    weights = project / "models/network/weights"
    assert weights.stat().st_nlink == 2
    alter(weights)
    assert stages_run(run(project, "dvc", "repro")) == []
    assert weights.read_text() == "X2345\n"  # DVC brought the altered file back, and is content
    refuses(r"1 of 4 files in .* were altered: models/network/weights\. DVC would .*--remove", verify_cache.main, [])
    verify_cache.main(["--remove"])
    assert "removed 1 of 4 files: models/network/weights; now run `dvc pull`" in caplog.messages[-1]
    assert not weights.exists() and (project / "models/network/config").exists()
    assert stages_run(run(project, "dvc", "repro")) == ["train"]
    assert weights.read_text() == "12345\n"


def test_the_list_of_a_folder_is_held_against_its_name_too(project: Path) -> None:
    [listed] = (project / ".dvc/cache/files/md5").rglob("*.dir")
    alter(listed)
    refuses(r"1 of 4 files in .* were altered: models/network\.", verify_cache.main, [])
    verify_cache.main(["--remove"])
    assert stages_run(run(project, "dvc", "repro")) == ["train"]
    verify_cache.main([])  # whole again


def test_a_remembered_run_that_says_nothing_is_taken_away(project: Path) -> None:
    [remembered] = (path for path in (project / ".dvc/cache/runs").rglob("*") if path.is_file())
    content = remembered.read_bytes()
    name = remembered.relative_to(project / ".dvc/cache")
    for damaged in (content[:20], b"", b"\xff", b"- 1", content.replace(b"md5", b"md4")):
        remembered.write_bytes(damaged)
        refuses(rf"1 of 4 files in .* were altered: {name}, of no current output\.", verify_cache.main, [])
    verify_cache.main(["--remove"])
    assert not remembered.parent.exists() and remembered.parent.parent.exists()
    verify_cache.main([])


def test_a_damaged_lock_file_is_named(project: Path) -> None:
    alter(next((project / ".dvc/cache/files/md5").rglob("*.dir")))
    (project / "dvc.lock").write_text("stages: [", encoding="utf-8")
    refuses(r"(?s)dvc.lock is damaged .*`git checkout dvc.lock` restores it", verify_cache.main, [])
