"""The table and the page to print that the demo gives."""

import csv
import io
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.examples import draw_example
from app.words import NOT_FOR_CLINICAL_USE, SYNTHETIC
from skinlesion.diagnoses import CLASSES
from skinlesion.serving.prediction import ROW_COLUMNS
from tests.browser.pages import Open, case, hand_in
from tests.browser.server import Served

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>=1+1 and a rather long name that nobody would give to a file by hand.png"
A4 = {"width": 688, "height": 1000}  # CSS pixels between the margins


def download(page: Page, name: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_the_table_and_the_page_say_what_the_demo_says(served: Served, open_demo: Open, browser: Browser, tmp_path: Path) -> None:
    page = open_demo()
    hand_in(page, (HOSTILE, draw_example("mel")), ("text.jpg", b"no image"))
    for name in ("melanoma", "vascular lesion"):
        page.get_by_role("button", name=name, exact=True).click()
        case(page, f"Drawn example: {name}")
    table = download(page, "Download as CSV", tmp_path).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    names = [HOSTILE, "text.jpg", "Drawn example: melanoma", "Drawn example: vascular lesion"]
    assert tuple(rows[0]) == ROW_COLUMNS and [row["file"] for row in rows] == names
    assert [bool(row["error"]) for row in rows] == [False, True, False, False]
    assert sum(float(rows[0][f"probability_{dx}"]) for dx in CLASSES) == pytest.approx(1)
    assert rows[0]["operating_point"] == "recall_0.90" and rows[0]["flagged"] == "yes"

    context = browser.new_context(viewport=A4, java_script_enabled=True)
    printed = context.new_page()
    asked: list[str] = []
    printed.on("request", lambda request: asked.append(request.url))
    printed.on("dialog", lambda dialog: asked.append(dialog.message))
    printed.goto(download(page, "Download as a page to print", tmp_path).as_uri())
    for text in (NOT_FOR_CLINICAL_USE, SYNTHETIC, "f00d", "recall_0.90", "squeezenet1_1"):
        expect(printed.get_by_text(text).first).to_be_visible()
    expect(printed.locator("dd").first).to_have_text(re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d"))
    expect(printed.get_by_role("heading", level=2)).to_have_text(names)
    pictures = printed.locator("img")
    expect(pictures).to_have_count(9)
    assert pictures.evaluate_all("images => images.every(image => image.complete && image.naturalWidth > 0)")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []

    printed.emulate_media(media="print")
    assert printed.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = printed.locator("section, section *").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert max(boxes) <= A4["width"]
    heights = printed.locator("section").evaluate_all("all => all.map(one => one.offsetHeight)")
    assert max(heights) < A4["height"]  # so that no page break cuts one
    pages = len(re.findall(rb"/Type /Page\b", printed.pdf(prefer_css_page_size=True)))
    assert 2 <= pages <= 4
    context.close()
