"""Push the results of the workspace so that nobody has to compute them again: `python -m extras.push_results [--remote NAME]`.

Reads   dvc.yaml, dvc.lock, the cache
Writes  to the remote: what `dvc push --run-cache` brings there, and the metrics that the run cache names

Metrics are in git (`cache: false`), and DVC never pushes what is. But a stage is restored from the run cache only with all of
its outputs, so that after `dvc push --run-cache` alone another machine trains again, unless dvc.lock and metrics/ are committed
first. DVC keeps a copy of such metrics in the cache when it runs a stage; that copy is pushed as well.

Needs DVC and nothing else: continuous integration runs this file with credentials, where no other code of a branch may run. DVC
documents `Repo` for reading alone; what is used of it is tried by the tests at the version that requirements.txt pins.
"""

from __future__ import annotations

import argparse
import sys

from dvc.cli import main as dvc
from dvc.repo import Repo, lock_repo

PIPELINE = "dvc.yaml"


def push_metrics(remote: str | None) -> int:
    """Push the cache's copies of what is in git; how many there were. Ends the program if some could not be pushed."""
    with Repo() as repo, lock_repo(repo):
        cache = repo.cache.local
        objects = {
            out.hash_info
            for stage in repo.index.stages
            if stage.path_in_repo == PIPELINE
            for out in stage.outs
            if not out.use_cache and out.hash_info and cache.exists(out.hash_info.value)
        }
        failed = repo.cloud.push(objects, remote=remote).failed if objects else set()
    if failed:
        sys.exit(
            f"error: {len(failed)} of {len(objects)} metrics files could not be pushed, see above; run the same command again"
        )
    return len(objects)


def main() -> None:
    """Push both, and say what was pushed."""
    parser = argparse.ArgumentParser(prog="python -m extras.push_results", description=__doc__.partition("\n")[0])
    parser.add_argument("--remote", metavar="NAME", help="a remote that `dvc remote list` names (default: the default one)")
    remote = parser.parse_args().remote
    if code := dvc(["push", "--run-cache", *(["--remote", remote] if remote else []), PIPELINE]):
        sys.exit(code)
    print(f"{push_metrics(remote)} metrics files for the run cache")


if __name__ == "__main__":
    main()
