"""What the drills share: their marker, how long they take, and the ledger of their rounds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BuildOnce
from tests.drills.ledger import Ledger, ledger_from_environment
from tests.drills.project import Project, copy_project, run_undisturbed

HERE = Path(__file__).parent
LEDGER = ledger_from_environment()  # now: a test may have another working directory by the time that it asks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whatever stands in this folder; the suite leaves it out unless it is asked for."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.drills)


def wants_full() -> bool:
    """Whether all rounds are wanted (`DRILLS=full`, which `make drills` sets), or the few minutes' worth of them."""
    wanted = os.environ.get("DRILLS", "short")
    if wanted not in ("short", "full"):
        raise pytest.UsageError(f"DRILLS is {wanted!r}; it can be short or full")
    return wanted == "full"


only_full = pytest.mark.skipif(not wants_full(), reason="DRILLS=full runs it")


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """Where the rounds are written down."""
    return LEDGER


def seed_of_moments() -> int:
    """`DRILLS_SEED`, from which the moments of interruptions are drawn."""
    seed = os.environ.get("DRILLS_SEED", "6")
    if not seed.isdecimal():
        raise pytest.UsageError(f"DRILLS_SEED is {seed!r}; it must be a whole number >= 0")
    return int(seed)


@pytest.fixture(scope="session")
def undisturbed(build_once: BuildOnce) -> Path:
    """The tiny project, run once without a disturbance, for all processes of this test run."""
    return build_once("undisturbed", lambda folder: run_undisturbed(folder / "project")) / "project"


@pytest.fixture
def project(undisturbed: Path, tmp_path: Path) -> Iterator[Project]:
    """A copy of it, to break."""
    copied = copy_project(undisturbed, tmp_path / "project")
    try:
        yield copied
    finally:
        copied.close()
