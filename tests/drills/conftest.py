"""What the drills share: their marker, how long they take, and the ledger of their rounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.drills.ledger import Ledger, ledger_from_environment

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whatever stands in this folder; the suite leaves it out unless it is asked for."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.drills)


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether all rounds are wanted (`DRILLS=full`, which `make drills` sets), or the few minutes' worth of them."""
    wanted = os.environ.get("DRILLS", "short")
    if wanted not in ("short", "full"):
        raise pytest.UsageError(f"DRILLS is {wanted!r}; it can be short or full")
    return wanted == "full"


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    """Where the rounds are written down."""
    return ledger_from_environment()
