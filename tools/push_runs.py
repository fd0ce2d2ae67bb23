"""Push to the DVC remote what another clone needs to train nothing again: `python -m tools.push_runs [--remote NAME]`.

It runs `dvc push`, which sends data and models of the workspace, and then sends the record of every run in this clone's cache
(what `--run-cache` adds) with the files that these records name. `dvc push --run-cache` leaves most of those out: it sends those
that `dvc.lock` names, and never metrics of `cache: false`. But a run comes back from its record only if all of its files do, so
that in a clone whose `dvc.lock` does not have the run yet `dvc repro --pull` would train again.
"""

import argparse
import logging
import subprocess
import sys
from pathlib import Path, PurePosixPath

from dvc.exceptions import CollectCacheError, DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo

from skinlesion.base.errors import PipelineError, run_stage

logger = logging.getLogger(__name__)

Run = tuple[str, str]
HASH_LENGTH = 64  # of a record's name; what else lies there is a record half-written by a killed DVC


def push_workspace(remote: str | None) -> None:
    """`dvc push`, which shows its progress and says itself what is wrong with the remote or the credentials."""
    command = ["push", *(["--remote", remote] if remote else [])]
    ended = subprocess.run([sys.executable, "-P", "-m", "dvc", *command], check=False)
    if ended.returncode:
        raise PipelineError(
            f"`dvc {' '.join(command)}` failed, see above, and no run was pushed; docs/remotes.md has the ways out"
        )


def list_remote_runs(repo: Repo, remote: str | None) -> list[Run]:
    """The runs that a remote has records of."""
    storage = repo.cloud.get_remote_odb(remote, "push --run-cache", hash_name="md5-dos2unix")
    folder = storage.fs.join(storage.path, "runs")
    names = storage.fs.find(folder) if storage.fs.exists(folder) else []
    return [(PurePosixPath(name).parent.name, PurePosixPath(name).name) for name in names]


def files_of(repo: Repo, runs: list[Run]) -> tuple[set[HashInfo], int]:
    """The files that the records of some runs name, and how many runs lost the list of a folder's files.

    Such a record is what `dvc gc`, or a push that was cut, leaves. `dvc pull --run-cache` brings it to everybody, and it must not
    keep anybody from sharing what is whole.
    """
    files: set[HashInfo] = set()
    lost = 0
    for run in runs:
        try:
            files.update(*repo.stage_cache.get_used_objs([run]).values())
        except CollectCacheError:
            lost += 1
    return files, lost


def push_runs(repo: Repo, *, remote: str | None) -> tuple[int, int, int]:
    """Send the files of all runs and, behind them, the records.

    Returns
    -------
    How many files were new, how many runs are at the remote, and how many of them have lost files and are of no use.
    """
    records, new = Path(repo.cache.legacy.path).glob("runs/??/*/*"), 0
    # As DVC names them: the hash of what went in, and of what came out as well.
    runs = sorted((record.parent.name, record.name) for record in records if len(record.name) == HASH_LENGTH)
    with repo.lock:
        files, lost = files_of(repo, runs)
        if files:
            sent = repo.cloud.push(files, remote=remote)
            if sent.failed:
                raise PipelineError(f"{len(sent.failed)} files of runs were not pushed, see above: run the same command again")
            new = len(sent.transferred)
        repo.stage_cache.push(remote)
    # DVC goes on after a record that it could not send, with a line on standard error alone.
    missing = set(runs) - set(list_remote_runs(repo, remote))
    if missing:
        raise PipelineError(
            f"{len(missing)} of {len(runs)} records of runs did not arrive, see above: run the same command again"
        )
    return new, len(runs), lost


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.push_runs", description="Push data, models and all runs.")
    parser.add_argument("--remote", help="a name of `dvc remote list`; without it the default remote")
    remote = parser.parse_args().remote
    for library in ("aiobotocore", "asyncssh"):  # they tell of every connection
        logging.getLogger(library).setLevel(logging.WARNING)
    push_workspace(remote)
    try:
        with Repo() as repo:
            files, runs, lost = push_runs(repo, remote=remote)
    except DvcException as error:
        raise PipelineError(f"the runs were not pushed: {error}") from error
    logger.info("%d runs are at the remote, %d of their files new there", runs, files)
    if lost:
        logger.info("%d of them cannot be brought back: some of their files are neither here nor at the remote", lost)


if __name__ == "__main__":
    run_stage(main)
