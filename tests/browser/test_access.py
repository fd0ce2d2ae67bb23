"""For everybody: by keyboard, on a laptop and on a phone, in light and in dark, and for who does not see it."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.words import NOT_FOR_CLINICAL_USE
from tests.browser.pages import Open, case, choose, hand_in, settled
from tests.browser.server import Served
from tests.serving.predictor_cases import encoded, lesion_image

pytestmark = pytest.mark.browser

LAPTOP, PHONE = (1366, 768), (390, 844)
FOCUSED = "document.activeElement.ariaLabel || document.activeElement.innerText || document.activeElement.tagName"
# Texts that are wider than what they stand in, or that stand out of the window. What is there for screen readers alone is left
# out, and so are icons, which are letters of a font.
CUT_OFF = """root => [...document.querySelectorAll(`[data-testid=${root}] *`)].filter(one => {
    const box = one.getBoundingClientRect(), style = getComputedStyle(one)
    const speaks = [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())
    return speaks && one.checkVisibility() && box.width > 1 && !one.closest('.unseen, [data-testid=stIconMaterial]')
        && (box.right > innerWidth + 1 || box.left < -1
            || (style.overflowX !== 'visible' && one.scrollWidth > one.clientWidth + 1))
    }).map(one => one.textContent)"""


def is_in_view(page: Page) -> bool:
    """Whether the line that must always be seen is what a finger would meet in its place."""
    return page.get_by_role("note").evaluate(
        """note => { const box = note.getBoundingClientRect();
        return [0.1, 0.5, 0.9].every(share => document.elementFromPoint(share * innerWidth, (box.top + box.bottom) / 2) === note)
            && box.bottom <= innerHeight && box.top >= 0 }"""
    )


def faults(page: Page) -> list[str]:
    """What axe calls serious or critical."""
    found = Axe().run(page).response["violations"]
    grave = [(one["id"], one["nodes"][0]) for one in found if one["impact"] in ("serious", "critical")]
    return [f"{name}: {node['html'][:200]} {node['failureSummary']}" for name, node in grave]


@pytest.mark.parametrize(("size", "dark"), [(LAPTOP, False), (LAPTOP, True), (PHONE, False), (PHONE, True)])
def test_the_page_is_accessible_and_nothing_cut_off(served: Served, open_demo: Open, size: tuple[int, int], dark: bool) -> None:
    served.train({"metadata": True}, {"metadata": True, "seed": 1})
    page = open_demo(width=size[0], height=size[1], dark=dark)
    name = "a-very-long-name-without-a-space-as-cameras-and-programs-make-them-0123456789.jpg"
    hand_in(page, (name, encoded(lesion_image())), ("text.jpg", b"no image"))
    case(page, "text.jpg")
    page.get_by_role("button", name="melanoma", exact=True).click()
    case(page, "Drawn example: melanoma")
    for name in ("How good", "Which classifier", "What is this"):
        page.get_by_text(name).click()
    settled(page)
    assert faults(page) == []
    assert page.evaluate(CUT_OFF, "stMain") == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.get_by_role("note")).to_have_text(NOT_FOR_CLINICAL_USE)
    for place in (0, 700, 100_000):
        page.get_by_test_id("stMain").evaluate("(main, place) => main.scrollTo(0, place)", place)
        assert is_in_view(page)
    last = page.get_by_test_id("stExpander").last.bounding_box()
    note = page.get_by_role("note").bounding_box()
    assert last and note and last["y"] + last["height"] <= note["y"]  # at the end, the line covers nothing
    if size == PHONE:
        page.get_by_test_id("stExpandSidebarButton").click()
        expect(page.get_by_role("heading", name="Settings")).to_be_visible()
        page.wait_for_timeout(500)
        assert is_in_view(page)
        assert faults(page) == []
        assert page.evaluate(CUT_OFF, "stSidebar") == []
        choose(page, "Operating point", "nothing")


def test_all_of_it_can_be_reached_and_used_by_keyboard(served: Served, open_demo: Open) -> None:
    page = open_demo()
    hand_in(page, ("mole.jpg", encoded(lesion_image())))
    case(page, "mole.jpg")
    settled(page)
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    names = "\n".join(reached)
    controls = ["Model", "Engine", "Operating point", "Heat map", "Opacity of the heat map", "Add files", "actinic keratosis"]
    controls += ["What the heat map shows", "Download as CSV", "Download as a page to print", "How good", "Which", "What is this"]
    assert [name for name in controls if name not in names] == []

    page.get_by_role("combobox", name="Operating point").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(case(page, "mole.jpg")).to_contain_text("Not flagged for melanoma")
    page.get_by_role("button", name="actinic keratosis").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    case(page, "Drawn example: basal cell carcinoma")
