"""Chromium, and the demo that it opens."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.pages import PATIENCE, Open, open_page
from tests.browser.server import Served, serve

NAMES = ("chromium", "chromium-browser", "google-chrome")  # as in ci/browser.sh
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the tests are skipped, or fail where BROWSER_REQUIRED is set."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = "needs Chromium: `ci/browser.sh` installs it where it can, otherwise `sudo apt-get install chromium`"
        if os.environ.get("BROWSER_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=PATIENCE)  # the machine can be busy with other tests
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def running(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The demo, running."""
    folder: Path = tmp_path_factory.mktemp("demo")
    with serve(folder, folder.with_name(f"{folder.name}-home")) as served:
        yield served


@pytest.fixture
def served(running: Served) -> Served:
    """The demo with a classifier of one member, trained on drawn images."""
    running.train()
    return running


@pytest.fixture
def open_demo(browser: Browser, running: Served) -> Iterator[Open]:
    """Opens the demo's page; afterwards it must have asked nobody else for anything."""
    pages: list[tuple[Page, list[str]]] = []

    def open_one(*, width: int = 1366, height: int = 768, dark: bool = False) -> Page:
        page, requests = open_page(browser, running.url, width=width, height=height, dark=dark)
        pages.append((page, requests))
        return page

    yield open_one
    for page, requests in pages:
        page.context.close()
        assert [url for url in requests if not url.startswith((running.url, running.url.replace("http", "ws")))] == []
