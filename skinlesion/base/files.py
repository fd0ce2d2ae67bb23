"""Writing files and folders so that nobody ever sees them half-written, and JSON in one dialect."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion.base.errors import PipelineError, reason_of


def scratch_folder(name: str) -> Path:
    """The folder for what must outlive a stage: downloaded archives and, of an interrupted one, partial files and checkpoints.

    It stands under the main root, also when DVC runs the stage in a temporary workspace (DVC sets DVC_ROOT), is ignored
    by git and unknown to DVC, which would delete a declared output before the next try.
    """
    return Path(os.environ.get("DVC_ROOT", ".")) / ".resume" / name


def resolve_from_root(path: str) -> Path:
    """A user's path: a relative one starts at the main project root, so that it means the same in DVC's temporary workspaces.

    Raises
    ------
    PipelineError
        No path at all: it holds a NUL character, or names the home of a user that this machine does not have.
    """
    if "\0" in path:
        raise PipelineError(f"the path {path!r} of params.yaml holds a NUL character, which no file's name does: correct it")
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise PipelineError(f"the path {path!r} of params.yaml: {error} Write it without ~") from None
    return expanded if expanded.is_absolute() else Path(os.environ.get("DVC_ROOT", ".")) / expanded


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what the block writes there takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; it takes its place, old content and all, only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def file_digest(path: Path, algorithm: str) -> str:
    """Hexadecimal digest of a file's bytes (`algorithm`: md5, sha256, ...), read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with sorted structure left as given, two-space indents, a final newline, and NaN or infinity as null."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    PipelineError
        The file is missing or holds no JSON object; NaN and Infinity, which Python would take, and a key twice are none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant, object_pairs_hook=_object)
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run the stage that writes it first, or `dvc repro`") from None
    except (ValueError, RecursionError) as error:  # broken, no UTF-8, a number of too many digits; too deep
        raise PipelineError(
            f"{path} is not valid JSON ({reason_of(error)}): delete it and run the stage that writes it again"
        ) from None
    if not isinstance(content, dict):
        raise PipelineError(f"{path} must hold a JSON object: delete it and run the stage that writes it again")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' is there twice")
    return content


def open_images(path: Path, *, stage: str) -> np.ndarray:
    """Map an `images.npy` read-only: uint8 of shape (N, size, size, 3). `stage` is who writes it, for messages.

    Raises
    ------
    PipelineError
        Missing, damaged, or of another type or shape.
    """
    try:
        # Not np.load, which would take an archive of arrays for one too.
        images = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run `{stage}` first, or `dvc repro`") from None
    except OSError:
        raise
    except Exception as error:  # of a broken header NumPy lets through what the parts say by which it reads it
        raise PipelineError(f"{path} is damaged ({reason_of(error)}): run `{stage}` again") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        found = f"not {images.dtype} {images.shape}: run `{stage}` again"
        raise PipelineError(f"{path} must be uint8 of shape (N, size, size, 3), {found}")
    return images


def _finite(value: Any) -> Any:
    """The same structure with NaN and infinities as None and NumPy scalars as Python's."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
