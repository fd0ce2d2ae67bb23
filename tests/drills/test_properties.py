"""Drill: what a user can hand in, made up by the thousand; it works, or one message names what is wrong with it."""

from pathlib import Path

import pytest

from tests.conftest import WriteParams
from tests.drills.conftest import wants_full
from tests.drills.ledger import Ledger
from tests.properties.registry import PROPERTIES

SHORT, FULL = 40, 400  # examples of the properties that cost least


@pytest.mark.parametrize("name", PROPERTIES)
def test_holds_for_many_examples(name: str, workspace: Path, write_params: WriteParams, ledger: Ledger) -> None:
    PROPERTIES[name].prepare(write_params)
    with ledger.round("fuzz", f"made-up input in {name}") as facts:
        facts["examples"] = PROPERTIES[name].hold(examples=FULL if wants_full() else SHORT, derandomize=False)
