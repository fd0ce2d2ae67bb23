"""An image is answered as the predictor answers it, and the page follows every choice."""

import re
import shutil

import pytest
from playwright.sync_api import Locator, Page, expect

from app.examples import draw_example
from app.words import NOT_FOR_CLINICAL_USE, SYNTHETIC, in_percent
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.serving.predictor import load_predictor
from skinlesion.serving.uploads import decode_upload
from tests.browser.pages import Open, case, choose, hand_in, settled
from tests.browser.server import Served

pytestmark = pytest.mark.browser

NEVUS = draw_example("nv")


def hand_in_nevus(page: Page) -> Locator:
    """The card of a drawn nevus."""
    hand_in(page, ("mole.png", NEVUS))
    return case(page, "mole.png")


def test_an_image_is_answered_as_the_predictor_answers_it(served: Served, open_demo: Open) -> None:
    page = open_demo()
    expect(page.get_by_text(SYNTHETIC)).to_be_visible()
    card = hand_in_nevus(page)
    [prediction] = load_predictor(served.folder).predict([decode_upload(NEVUS).image])
    rows = card.locator("table.bars tbody tr")
    expect(rows).to_have_count(7)
    for row, (dx, share) in zip(rows.all(), prediction.probabilities.items(), strict=True):
        expect(row).to_contain_text(DIAGNOSES[dx])
        expect(row.locator(".number")).to_have_text(in_percent(share))
    expect(card).to_contain_text(f"Most probable of seven: {DIAGNOSES[prediction.top(1)[0][0]]}")
    expect(card).to_contain_text("not a diagnosis")
    expect(card.get_by_text("Set for 90")).to_be_visible()
    expect(card.get_by_text("Set for 99 %: none can be given")).to_be_visible()
    for alt in ("The image that was handed in", "Heat map (GradCAM): evidence", "Heat map over the image: evidence"):
        picture = card.get_by_alt_text(alt)
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.complete && image.naturalWidth") == 400
    page.get_by_text("How good is this classifier?").click()
    expect(page.get_by_text("On 97 test images of 73 lesions")).to_be_visible()
    expect(page.get_by_role("row", name="Macro AUC")).to_contain_text("0.800 (0.700 to 0.900)")


def test_another_operating_point_changes_the_sentence(served: Served, open_demo: Open) -> None:
    page = open_demo()
    card = hand_in_nevus(page)
    expect(card).to_contain_text("Flagged for melanoma: its probability")
    expect(page.get_by_text("it flagged 92 % of those with melanoma")).to_be_visible()
    choose(page, "Operating point", "nothing")
    expect(card).to_contain_text(re.compile(r"Not flagged for melanoma: .* is below the threshold of 100\.0\s%"))
    expect(card).to_contain_text("Not flagged does not mean harmless.")
    expect(page.get_by_text("it flagged 0 % of those with melanoma")).to_be_visible()


def test_the_map_follows_method_diagnosis_and_opacity(served: Served, open_demo: Open) -> None:
    page = open_demo()
    card = hand_in_nevus(page)
    over = card.get_by_alt_text("Heat map over the image")
    seen = {over.get_attribute("src")}
    choose(page, "What the heat map shows: evidence for", "vascular lesion")
    expect(card.get_by_alt_text("Heat map over the image: evidence for vascular lesion")).to_be_visible()
    settled(page)
    seen.add(over.get_attribute("src"))
    page.get_by_role("slider").focus()
    page.keyboard.press("End")
    expect(page.get_by_role("slider")).to_have_value("100")
    settled(page)
    seen.add(over.get_attribute("src"))
    assert len(seen) == 3
    choose(page, "Heat map", "Occlusion (slow)")
    card.get_by_role("button", name="Draw the Occlusion map").click()
    expect(card.get_by_alt_text("Heat map (Occlusion)")).to_be_visible()


def test_several_images_each_have_their_answer(served: Served, open_demo: Open) -> None:
    page = open_demo()
    hand_in(page, ("mole.png", NEVUS), ("<b>__mole__</b> ![](x).png", draw_example("mel")), ("text.jpg", b"no image"))
    page.get_by_role("button", name="dermatofibroma", exact=True).click()
    names = ["mole.png", "<b>__mole__</b> ![](x).png", "text.jpg", "Drawn example: dermatofibroma"]
    for name in names:
        case(page, name)
    expect(case(page, names[-1]).get_by_text("Drawn image")).to_be_visible()
    overview = page.get_by_role("table", name="All images")
    expect(overview.locator("tbody th")).to_have_text(names)
    expect(overview.get_by_role("row", name="text.jpg")).to_contain_text("Not answered: This is not an image")
    expect(page.locator("table.bars")).to_have_count(3)


def test_of_too_many_images_twenty_are_answered(served: Served, open_demo: Open) -> None:
    page = open_demo()
    hand_in(page, *[(f"text{number}.jpg", b"no image") for number in range(21)])
    expect(page.get_by_text("21 files were handed in, and 20 are answered at a time")).to_be_visible()
    expect(page.locator("[class*='st-key-case-']")).to_have_count(20)


def test_a_classifier_with_metadata_asks_and_uses_it(served: Served, open_demo: Open) -> None:
    page = open_demo()
    expect(page.get_by_text("This classifier sees the image alone")).to_be_visible()
    expect(page.get_by_label("Age in years")).to_have_count(0)
    served.train({"metadata": True}, {"metadata": True, "seed": 1}, synthetic=False)
    page = open_demo()
    expect(page.get_by_text(SYNTHETIC)).to_have_count(0)
    numbers = hand_in_nevus(page).locator(".number")
    shown = [numbers.all_text_contents()]
    page.get_by_label("Age in years").fill("85")
    page.get_by_label("Age in years").press("Enter")
    expect(numbers).not_to_have_text(shown[-1])
    for label, option in (("Sex", "female"), ("Site of the lesion", "scalp")):
        shown.append(numbers.all_text_contents())
        choose(page, label, option)
        expect(numbers).not_to_have_text(shown[-1])
    choose(page, "Model", "base-1")
    expect(page.get_by_text("probabilities of one member alone are not calibrated")).to_be_visible()
    expect(page.get_by_text("Operating points were chosen for the ensemble")).to_be_visible()
    expect(page.get_by_text("Flagged for melanoma")).to_have_count(0)


def test_without_a_classifier_the_page_says_which_command_makes_one(served: Served, open_demo: Open) -> None:
    page = open_demo()
    numbers = hand_in_nevus(page).locator(".number")
    before = numbers.all_text_contents()
    shutil.rmtree(served.folder / "models")
    empty = open_demo()
    expect(empty.get_by_test_id("stAlert")).to_contain_text("make run")
    expect(empty.get_by_text(NOT_FOR_CLINICAL_USE)).to_be_visible()
    expect(empty.get_by_text("Traceback")).to_have_count(0)
    # A training puts another one there: an open page takes it up at the next touch.
    served.train({"size": 48})
    page.get_by_role("button", name="vascular lesion", exact=True).click()
    case(page, "Drawn example: vascular lesion")
    expect(numbers).not_to_have_text(before)
    (served.folder / "models/calibration.json").write_text("{")
    damaged = open_demo()
    expect(damaged.get_by_test_id("stAlert")).to_contain_text("calibration.json")
    assert any("calibration.json" in line for line in served.log)
