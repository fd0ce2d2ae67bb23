"""Bring from the default remote the results of stages that somebody ran with the same inputs; run nothing.

`dvc repro --pull` does this as it goes, but it also runs stages, and a step with credentials must not run the code of a branch.
This does the first half alone: as long as a stage's inputs are here and the run cache knows them, its outputs are brought and
checked out. Where the run cache knows nothing, a later stage's inputs are not known either, and `dvc repro` takes over.

Runs with DVC as only package; uses `Repo.stage_cache`, which DVC does not document, at the version that requirements.txt pins.
"""

import argparse

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.stage.cache import RunCacheNotFoundError

PIPELINE = "dvc.yaml"
REMOTE = "ci"
COMPARED = ("data/predictions", "plots/")


def bring_results(repo: Repo) -> None:
    """Restore stage after stage, in the order in which they would run."""
    stages = [stage for stage in repo.index.stages if stage.path_in_repo == PIPELINE]
    for stage in plan_repro(get_active_graph(repo.index.graph), stages):
        if not stage.changed(allow_missing=True):  # what `dvc pull` could bring of it is here
            continue
        if not all(dependency.exists for dependency in stage.deps):
            print(f"{stage.addressing}: waits for an earlier stage")
            continue
        stage.remove_outs()  # as `dvc repro` does: metrics of another run, from git, are not overwritten
        try:
            repo.stage_cache.restore(stage, pull=True)
        except RunCacheNotFoundError:
            print(f"{stage.addressing}: nobody has run it with these inputs yet")


def bring_for_comparison(repo: Repo, revision: str) -> None:
    """Bring into the cache what a report shows of another commit: predictions and plots."""
    outs = [out.def_path for stage in repo.index.stages if stage.path_in_repo == PIPELINE for out in stage.outs]
    try:
        repo.fetch([path for path in outs if path.startswith(COMPARED)], revs=[revision], workspace=False, remote=REMOTE)
    except DvcException as error:  # a commit without results, or with other stages: the report says what it lacks
        print(f"not everything of {revision[:10]} is in the remote ({error})")


def main() -> None:
    """Bring both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compare-with", metavar="COMMIT", required=True, help="of which predictions and plots are brought too")
    revision = parser.parse_args().compare_with
    with Repo() as repo:
        with lock_repo(repo):
            bring_results(repo)
        bring_for_comparison(repo, revision)


if __name__ == "__main__":
    main()
