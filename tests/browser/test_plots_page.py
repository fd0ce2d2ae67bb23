"""DVC's own pages of plots, opened without a network: every curve is drawn and nothing is asked for."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.pipeline.clone import run
from tests.report.plot_cases import VEGA_PLOTS

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD"]], ids=lambda command: command[0])
def test_plain_dvc_draws_every_plot_offline(browser: Browser, plots_repository: Path, tmp_path: Path, command: list[str]) -> None:
    run(plots_repository, "dvc", "plots", *command, "--out", str(tmp_path / "page"))
    context = browser.new_context(offline=True)
    page, requests = context.new_page(), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "page/index.html").as_uri())
    page.wait_for_function(f"document.querySelectorAll('.vega-embed svg.marks').length == {len(VEGA_PLOTS)}")
    drawn = page.locator("svg [aria-roledescription*='mark']").count()
    assert drawn > 10 * len(VEGA_PLOTS)
    assert "Synthetic sample or real images" in page.locator(".banner").inner_text()
    assert requests == [(tmp_path / "page/index.html").as_uri()]
    context.close()
