"""What the drills write down: a line a round, what was broken and how it ended. `python -m tests.drills.table` sums it up."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from skinlesion.base.versions import git_commit

COMMIT = git_commit()  # of the code that is drilled; some rounds may be repeated with a later one
Outcome = Literal["survived", "failed", "corrupt"]


class Corrupt(AssertionError):
    """What a drill raises when something wrong was left behind, or taken for right: the one outcome that must never be."""


class Ledger:
    """The file of rounds; several processes may write to it, since a line is appended in one call.

    path : JSON lines; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @contextmanager
    def round(self, drill: str, fault: str) -> Iterator[dict[str, object]]:
        """One round of `drill` (as "interrupted") with `fault` (as "SIGKILL in train").

        It survived if the block ends, was corrupt if the block raises `Corrupt`, and failed if it raises anything else; the
        block may add what else is worth keeping (numbers, a message) to the dictionary that it is given.
        """
        facts: dict[str, object] = {}
        outcome: Outcome = "failed"
        start = time.monotonic()
        try:
            yield facts
            outcome = "survived"
        except Corrupt:
            outcome = "corrupt"
            raise
        finally:
            line = {"drill": drill, "fault": fault, "outcome": outcome, "seconds": time.monotonic() - start, "commit": COMMIT}
            self._append(line | facts)

    def _append(self, line: dict[str, object]) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write((json.dumps(line) + "\n").encode())


def ledger_from_environment() -> Ledger:
    """The ledger that `DRILLS_LEDGER` names, or one that keeps nothing."""
    path = os.environ.get("DRILLS_LEDGER")
    return Ledger(Path(path).absolute() if path else None)
