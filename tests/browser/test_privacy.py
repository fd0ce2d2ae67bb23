"""What is handed in leaves no trace: no file, no line of the log, nothing for the next visitor."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.pages import Open, case, hand_in, settled
from tests.browser.server import Served
from tests.serving.predictor_cases import encoded

pytestmark = pytest.mark.browser


def files_of(*folders: Path) -> set[tuple[str, int]]:
    """Name and time of every file below some folders; links are not followed."""
    return {(str(path), path.lstat().st_mtime_ns) for folder in folders for path in folder.rglob("*") if not path.is_dir()}


def test_nothing_that_is_handed_in_is_kept(served: Served, open_demo: Open) -> None:
    page = open_demo()
    before, lines = files_of(served.folder, served.home), len(served.log)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1200, 3), dtype=np.uint8)
    large = encoded(Image.fromarray(noise), "PNG")
    assert len(large) > 3_000_000  # far more than a server likes to hold in memory
    hand_in(page, ("jane-doe.png", large), ("jane-doe-broken.jpg", b"no image"))
    # The server may write no byte to a file, or this upload would fail: see `serve`.
    expect(case(page, "jane-doe.png").get_by_alt_text("Heat map over the image")).to_be_visible()
    settled(page)
    assert files_of(served.folder, served.home) == before
    assert [line for line in served.log[lines:] if "jane" in line or "Error" in line] == []
    other = open_demo()
    expect(other.get_by_text("jane-doe")).to_have_count(0)
    expect(other.locator("[class*='st-key-case-']")).to_have_count(0)
