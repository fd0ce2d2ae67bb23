"""A small random classifier for the API's tests, loaded once a module, and served in this process."""

from collections.abc import Iterator

import pytest

from skinlesion.serving.predictor import Predictor, load_predictor
from tests.api.cases import Served, serve
from tests.serving.predictor_cases import make_workspace


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_predictor(make_workspace(tmp_path_factory.mktemp("served")), device="cpu")


@pytest.fixture
def predictor(loaded: Predictor) -> Iterator[Predictor]:
    """The predictor, whose `logits` a test may replace."""
    yield loaded
    vars(loaded).pop("logits", None)


@pytest.fixture(scope="module")
def served(loaded: Predictor) -> Iterator[Served]:
    with serve(loaded, rate_limit=0) as one:
        yield one
