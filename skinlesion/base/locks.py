"""One process at a time where two would spoil each other's scratch files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from skinlesion.base.errors import PipelineError

RUNNING = Path(".resume/running")  # of this workspace, also in DVC's temporary ones: each has outputs of its own
LOCK_TIMEOUT = 20.0  # seconds; the loading processes of a killed training need about 5 to notice and let go


@contextmanager
def locked(path: Path, *, doing: str) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block. The system lets go of it when the process dies, however it does.

    doing : what another holder of the lock is doing, for the message.

    Raises
    ------
    PipelineError
        Another process still holds it after `LOCK_TIMEOUT`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path).acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        raise PipelineError(f"another process is {doing} ({path} is locked): wait until it ends, or end it") from None
    with held:
        yield


@contextmanager
def one_at_a_time(stage: str) -> Iterator[None]:
    """Keep a second process from running the same stage in this workspace, as a block's or, as a decorator, a function's length.

    A killed `dvc` leaves the process of its stage behind. That one and the stage of the next `dvc repro` would put the same
    temporary files in place under each other's hands, and the older one would overwrite outputs that DVC has hashed by then.
    """
    with locked(RUNNING / f"{stage}.lock", doing=f"running {stage} in this workspace"):
        yield
