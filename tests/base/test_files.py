"""Nobody sees a file or a folder half-written."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from skinlesion.base import files
from tests.conftest import refuses


def test_a_file_takes_its_place_when_the_block_succeeds(workspace: Path) -> None:
    path = workspace / "new" / "table.csv"
    for content in ("first", "second"):
        with files.atomic_file(path) as partial:
            partial.write_text(content)
        assert path.read_text() == content
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_a_failed_block_leaves_the_old_file(workspace: Path) -> None:
    path = workspace / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [file.name for file in workspace.iterdir()] == ["table.csv"]


def test_a_folder_takes_its_place_old_content_and_all(workspace: Path) -> None:
    path = workspace / "data" / "splits"
    for name in ("first", "second"):
        with files.atomic_folder(path) as partial:
            (partial / name).write_text(name)
        assert [file.name for file in path.iterdir()] == [name]
    assert [file.name for file in path.parent.iterdir()] == ["splits"]


def test_a_failed_block_leaves_the_old_folder(workspace: Path) -> None:
    path = workspace / "splits"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), files.atomic_folder(path) as partial:
        (partial / "half").write_text("half")
        raise KeyboardInterrupt
    assert [file.name for file in path.iterdir()] == ["old"]
    assert [file.name for file in workspace.iterdir()] == ["splits"]


def test_the_rest_of_a_killed_run_does_not_leak_into_the_folder(workspace: Path) -> None:
    leftover = workspace / ".splits.partial"
    leftover.mkdir()
    (leftover / "half").write_text("half")
    with files.atomic_folder(workspace / "splits") as partial:
        (partial / "new").write_text("new")
    assert [file.name for file in (workspace / "splits").iterdir()] == ["new"]


def test_json_has_null_for_what_is_not_finite_and_python_s_numbers(workspace: Path) -> None:
    path = workspace / "metrics" / "a.json"
    files.write_json(path, {"nan": float("nan"), "list": [np.float32(0.5), np.int64(3), float("inf")], "text": "é"})
    assert path.read_text(encoding="utf-8").endswith("}\n")
    assert files.read_json(path) == {"nan": None, "list": [0.5, 3, None], "text": "é"}


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "not found: run the stage that writes it first"),
        (b'{"a": ', "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "must hold a JSON object"),
        (b'{"a": NaN}', r"is not valid JSON \(NaN is no JSON number\)"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', r"is not valid JSON \(the key 'c' is there twice\)"),
        (b"[" * 100_000, r"is not valid JSON \(maximum recursion depth"),
        (b'{"a": ' + b"9" * 5000 + b"}", r"is not valid JSON \(Exceeds the limit"),
    ],
)
def test_unreadable_json(workspace: Path, content: bytes | None, fragment: str) -> None:
    path = workspace / "a.json"
    if content is not None:
        path.write_bytes(content)
    refuses(fragment, files.read_json, path)


def test_paths_start_at_the_main_root_in_dvc_s_temporary_workspaces(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = str(workspace / "x")
    assert (files.resolve_from_root("a/b"), files.resolve_from_root(absolute)) == (Path("a/b"), Path(absolute))
    assert files.scratch_folder("train") == Path(".resume/train")
    monkeypatch.setenv("DVC_ROOT", "/main")
    assert (files.resolve_from_root("a/b"), files.resolve_from_root(absolute)) == (Path("/main/a/b"), Path(absolute))
    assert files.scratch_folder("train") == Path("/main/.resume/train")


def test_digest(workspace: Path) -> None:
    path = workspace / "a"
    path.write_bytes(b"abc")
    assert files.file_digest(path, "sha256") == hashlib.sha256(b"abc").hexdigest()
    assert files.file_digest(path, "md5") == "900150983cd24fb0d6963f7d28e17f72"


@pytest.mark.parametrize(("path", "message"), [("a\0b", "holds a NUL character"), ("~nobody-of-that-name/x", "it without ~")])
def test_paths_that_are_none(workspace: Path, path: str, message: str) -> None:
    refuses(message, files.resolve_from_root, path)
