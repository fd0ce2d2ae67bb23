"""What a property is, how it is tried on examples, and how a stage ends as its user sees it."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from skinlesion.base.errors import run_stage
from tests.conftest import WriteParams

LONGEST_MESSAGE = 20_000  # characters; more is no message that anybody reads


@dataclass(frozen=True)
class Property:
    """Something that holds for every example.

    prepare : writes into the workspace what the examples have in common. check : raises AssertionError where it does not hold.
    cost : how much slower than the fastest ones an example is; there are so many times fewer of them.
    """

    name: str
    prepare: Callable[[WriteParams], None]
    examples: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    cost: int = 1

    def hold(self, *, examples: int, derandomize: bool) -> int:
        """Try it on new examples, and shrink the first one for which it does not hold; returns how many were tried."""
        tried = 0

        def check(example: Any) -> None:
            nonlocal tried
            tried += 1
            self.check(example)

        number, phases = max(1, examples // self.cost), (Phase.generate, Phase.shrink)
        without = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
        profile = settings(max_examples=number, derandomize=derandomize, phases=phases, **without)
        with quiet():
            profile(given(self.examples)(check))()
        return tried


def keep(write_params: WriteParams) -> None:
    """What a property has to prepare whose examples write their file themselves."""


@contextmanager
def quiet() -> Iterator[None]:
    """No logs, progress and warnings of thousands of runs."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def message_of(main: Callable[[], object]) -> str | None:
    """Run a stage as `python -m` does; its message if it refuses, None if it works. Any other end is a defect, and raised."""
    try:
        run_stage(lambda: main() and None)
    except SystemExit as ended:
        message = ended.code
        assert isinstance(message, str), message
        assert message.startswith("error: "), message
        assert "Traceback" not in message, message
        assert 20 < len(message) < LONGEST_MESSAGE, message
        return message.removeprefix("error: ")
    return None


def refused_by_name(message: str | None, *names: str, must: bool = False) -> None:
    """Insist that a refusal names one of `names`, and, where it `must` be one, that it is."""
    if message is None:
        assert not must, f"taken silently; expected a refusal that names {' or '.join(names)}"
        return
    blamed = re.sub(r"`[^`]*`", "", message)  # without the commands that it advises, which name stages
    assert any(name in blamed for name in names), f"names none of {', '.join(names)}: {message}"
