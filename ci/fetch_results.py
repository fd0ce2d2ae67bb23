"""Bring from the default remote the results of stages that somebody ran with the same inputs; run nothing.

`dvc repro --pull` does this as it goes, but it also runs stages, and a step with credentials must not run the code of a branch.
This does the first half alone: as long as a stage's inputs are here and the run cache knows them, its outputs are brought and
checked out. Where the run cache knows nothing, a later stage's inputs are not known either, and `dvc repro` takes over.

Runs with DVC as only package; uses `Repo.stage_cache`, which DVC does not document, at the version that requirements.txt pins.
"""

from __future__ import annotations

from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.stage.cache import RunCacheNotFoundError

PIPELINE = "dvc.yaml"


def main() -> None:
    """Restore stage after stage, in the order in which they would run."""
    with Repo() as repo, lock_repo(repo):
        stages = [stage for stage in repo.index.stages if stage.path_in_repo == PIPELINE]
        for stage in plan_repro(get_active_graph(repo.index.graph), stages):
            if not stage.changed():
                continue
            if not all(dependency.exists for dependency in stage.deps):
                print(f"{stage.addressing}: waits for an earlier stage")
                continue
            try:
                repo.stage_cache.restore(stage, pull=True)
            except RunCacheNotFoundError:
                print(f"{stage.addressing}: nobody has run it with these inputs yet")


if __name__ == "__main__":
    main()
