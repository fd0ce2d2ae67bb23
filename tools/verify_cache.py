"""Hold every file of DVC's cache against its name, which is its MD5: `python -m tools.verify_cache [--remove]` (`make verify`).

Reads   DVC's cache, the runs that it remembers too; dvc.lock and extras/dvc.lock, to say what an altered file is
Writes  nothing; with --remove it takes altered files away, from the cache and from where the workspace links to them

DVC makes the files of its cache read-only and from then on takes them for whole. An edit in place of a linked file in the
workspace by root, or a failing disk, changes a file behind its back: `dvc repro` and `dvc checkout` then bring the altered one
back and call everything up to date. After --remove, `dvc pull` or `dvc repro` makes what is missing anew.
"""

import argparse
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tqdm import tqdm

from skinlesion.base.errors import PipelineError, name_some, run_stage
from skinlesion.base.files import file_digest
from tools.dvc_commands import run_dvc
from tools.mend import LOCK_FILES

OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")  # the MD5 without the two digits of its folder; anything else is DVC's scratch
RUN = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


def digest_in_name(path: Path) -> str:
    """The MD5 that a cached file must have; that of a folder's list has a suffix besides."""
    return path.parent.name + path.name.removesuffix(".dir")


def find_altered(cache: Path) -> tuple[int, list[Path]]:
    """How many files the cache holds, and those that are not what their names say, or of the remembered runs no such thing."""
    files = sorted(path for path in cache.glob("files/md5/[0-9a-f][0-9a-f]/*") if OBJECT.fullmatch(path.name))
    runs = sorted(path for path in cache.glob("runs/*/*/*") if RUN.fullmatch(path.name))
    progress = tqdm(files, desc="verify", unit=" files", disable=None)
    altered = [path for path in progress if file_digest(path, "md5") != digest_in_name(path)]
    return len(files) + len(runs), [*altered, *(path for path in runs if not is_run(path))]


def is_run(path: Path) -> bool:
    """Whether a file of DVC's run cache says which outputs a command had; on one that does not DVC gives up, naming a key."""
    try:
        run = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        return isinstance(run["cmd"], str) and all(out["path"] and out["md5"] for out in run["outs"])
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return False


def name_outputs(cache: Path) -> dict[str, str]:
    """Path in the workspace of every file and folder that a lock file names, by MD5 (of a folder with `.dir` behind it)."""
    names: dict[str, str] = {}
    for out in locked_outputs():
        digest, path = str(out.get("md5", "")), str(out["path"])
        names.setdefault(digest, path)
        if digest.endswith(".dir"):
            for entry in read_folder_list(cache / "files/md5", digest):
                names.setdefault(entry["md5"], f"{path}/{entry['relpath']}")
    return names


def locked_outputs() -> Iterator[dict[str, Any]]:
    """Every output of the lock files."""
    for file in LOCK_FILES:
        try:
            lock = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8")) if file.is_file() else None
            for stage in ((lock or {}).get("stages") or {}).values():
                yield from stage.get("outs", [])
        except (YAMLError, AttributeError) as error:
            raise PipelineError(f"{file} is damaged ({error}): `git checkout {file}` restores it") from None


def read_folder_list(objects: Path, digest: str) -> list[dict[str, str]]:
    """The files of a cached folder; none where the list is missing or itself altered, which is found elsewhere."""
    path = objects / digest[:2] / digest[2:]
    if not path.is_file() or file_digest(path, "md5") != digest_in_name(path):
        return []
    return json.loads(path.read_text(encoding="utf-8"))


def links_to(altered: list[Path], outputs: set[Path]) -> list[Path]:
    """The files of the workspace's outputs that are the altered ones themselves, by a hard or a symbolic link."""
    identities = {(status.st_dev, status.st_ino) for status in map(os.stat, altered)}
    files = [file for output in outputs for file in (output.rglob("*") if output.is_dir() else [output]) if file.is_file()]
    return sorted(file for file in set(files) if (status := file.stat()) and (status.st_dev, status.st_ino) in identities)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.verify_cache", description=__doc__.partition("\n")[0])
    parser.add_argument("--remove", action="store_true", help="take altered files away, from cache and workspace")
    options = parser.parse_args(arguments)
    cache = Path(run_dvc("cache", "dir").strip())
    count, altered = find_altered(cache)
    if not altered:
        logger.info("%s: %d files, each as its name says", cache, count)
        return
    names = name_outputs(cache)
    paths = name_some(
        names.get(path.parent.name + path.name, f"{path.relative_to(cache)}, of no current output") for path in altered
    )
    if not options.remove:
        raise PipelineError(
            f"{len(altered)} of {count} files in {cache} were altered: {paths}. DVC would take them for whole: remove them by "
            "`python -m tools.verify_cache --remove`, then run `dvc pull` if there is a remote, and `dvc repro`"
        )
    linked = links_to(altered, {Path(out["path"]) for out in locked_outputs()})
    for path in [*linked, *altered]:
        path.unlink()
        if path.is_relative_to(cache / "runs") and not any(path.parent.iterdir()):
            path.parent.rmdir()  # DVC takes a folder for a run, and fails on one that is empty
    logger.info(
        "removed %d of %d files: %s; now run `dvc pull` if there is a remote, and `dvc repro`", len(altered), count, paths
    )


if __name__ == "__main__":
    run_stage(main)
