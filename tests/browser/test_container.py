"""The demo by the command of its container: that the server answers does not say that the page can be drawn."""

from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser

from tests.browser.pages import open_page
from tests.browser.server import serve
from tests.conftest import ROOT

pytestmark = pytest.mark.browser


def test_the_containers_command_draws_the_page(browser: Browser, tmp_path: Path) -> None:
    command = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]["app"]["command"]
    folder = tmp_path / "served"
    folder.mkdir()
    with serve(folder, tmp_path / "home", command) as served:
        served.train()
        page, _ = open_page(browser, served.url, width=1366, height=768, dark=False)
        page.get_by_label("Images of skin lesions").first.wait_for()
        page.context.close()
