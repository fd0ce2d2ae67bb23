"""What a user does on the demo's page, in the page's own words."""

from mimetypes import guess_type
from typing import Protocol

from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from app.words import TITLE

PATIENCE = 30_000  # milliseconds: the first page waits for torch to be imported


class Open(Protocol):
    """Opens the demo's page."""

    def __call__(self, *, width: int = 1366, height: int = 768, dark: bool = False) -> Page: ...


def open_page(browser: Browser, url: str, *, width: int, height: int, dark: bool) -> tuple[Page, list[str]]:
    """A page of a context of its own, and the addresses that it asks for."""
    size, scheme = {"width": width, "height": height}, "dark" if dark else "light"
    context = browser.new_context(viewport=size, color_scheme=scheme, accept_downloads=True)
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if not request.url.startswith(("data:", "blob:")) else None)
    page.on("websocket", lambda socket: requests.append(socket.url))
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    expect(page.get_by_role("heading", name=TITLE)).to_be_visible()
    expect(page.get_by_text("What is this, and what do the numbers mean?")).to_be_visible()
    return page, requests


def hand_in(page: Page, *files: tuple[str, bytes]) -> None:
    """Upload files, each a name and its bytes."""
    payloads: list[FilePayload] = [{"name": name, "mimeType": guess_type(name)[0] or "", "buffer": data} for name, data in files]
    page.locator("input[type=file]").set_input_files(payloads)


def case(page: Page, name: str) -> Locator:
    """The card of an image, once it is there."""
    found = page.locator("[class*='st-key-case-']").filter(has=page.get_by_role("heading", name=name, exact=True)).last
    expect(found).to_be_visible()
    return found


def choose(page: Page, label: str, option: str) -> None:
    """Choose in a list by typing, as a long one does not draw all of its options."""
    box = page.get_by_role("combobox", name=label, exact=True)
    box.click()
    box.fill(option)
    page.get_by_role("option", name=option).first.click()
    expect(box).to_have_value(option)


def settled(page: Page) -> None:
    """Wait until nothing is being computed."""
    page.wait_for_timeout(300)
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=PATIENCE)
