"""The choices at the side, without a browser."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import opening, sidebar
from tests.serving.predictor_cases import make_workspace

pytestmark = pytest.mark.browser


def test_only_what_was_chosen_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workspace(tmp_path, [{}, {"seed": 1}])
    loaded: list[tuple[str, str]] = []

    def open_one(root: Path, model: str, engine: str, stamped: str) -> opening.Opened:
        loaded.append((model, engine))
        return opening.open_predictor(root, model, engine, stamped)

    monkeypatch.setattr(sidebar, "open_once", open_one)

    script = f"from pathlib import Path\nfrom app.sidebar import choose\nchoose(Path({str(tmp_path)!r}))"
    page = AppTest.from_string(script, default_timeout=60).run()
    page.selectbox[0].select("base-1").run()
    assert not page.exception and loaded == [("ensemble", "torch"), ("base-1", "torch")]
