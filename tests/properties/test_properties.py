"""A few examples of every property of `tests/properties`, the same ones in every run."""

from pathlib import Path

import pytest

from tests.conftest import WriteParams
from tests.properties.registry import PROPERTIES

EXAMPLES = 20  # of the properties that cost least


@pytest.mark.parametrize("name", PROPERTIES)
def test_holds_for_some_examples(name: str, workspace: Path, write_params: WriteParams) -> None:
    PROPERTIES[name].prepare(write_params)
    assert PROPERTIES[name].hold(examples=EXAMPLES, derandomize=True) >= 1
