"""Each file that is refused says why beside its name, in one sentence, and the others are answered."""

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.pages import Open, case, hand_in
from tests.browser.server import Served
from tests.serving.predictor_cases import encoded, lesion_image

pytestmark = pytest.mark.browser

GOOD = encoded(lesion_image())
UPSIDE_DOWN = Image.Exif()
UPSIDE_DOWN[0x0112] = 3
SEE_THROUGH = lesion_image().convert("RGBA")
SEE_THROUGH.putalpha(Image.linear_gradient("L").resize(SEE_THROUGH.size))

ANIMATION = encoded(lesion_image(), "PNG", save_all=True, append_images=[lesion_image(1)])
DEEP = encoded(Image.fromarray(np.zeros((90, 90), np.uint16)), "PNG")

REFUSED = {
    "text.jpg": (b"age,sex\n50,male\n", "This is not an image of a known kind: send a JPEG or a PNG."),
    "notes.txt": (b"a note", "This is not an image of a known kind: send a JPEG or a PNG."),
    "scan": (encoded(lesion_image(), "TIFF"), "This is a TIFF: send a JPEG or a PNG."),
    "small.png": (encoded(lesion_image(width=49), "PNG"), "The image has 49 x 70 pixels; each side must have 50: send"),
    "large.png": (encoded(Image.new("1", (5100, 5000)), "PNG"), "5100 x 5000 pixels, more than 25 megapixels: save it smaller."),
    "broken.jpg": (GOOD[:1500], "The file is damaged or incomplete: export or copy it again."),
    "animated.png": (ANIMATION, "This is an animation: send a still image."),
    "printing.jpg": (encoded(lesion_image().convert("CMYK")), "This image has printing colours (CMYK)"),
    "deep.png": (DEEP, "This image has 16 bits a channel: save it with 8."),
    "empty.png": (b"", "The file is empty: export or copy it again."),
}
NOTED = {
    "turned.jpg": (encoded(lesion_image(), exif=UPSIDE_DOWN), "The image was turned upright, as its EXIF data say."),
    "see-through.png": (encoded(SEE_THROUGH, "PNG"), "Transparent parts of the image were filled with white."),
}


def test_every_refusal_and_every_note(served: Served, open_demo: Open) -> None:
    page = open_demo()
    good = ((name, GOOD) for name in ("good.jpg", "good.jfif", "good"))
    hand_in(page, *((name, data) for name, (data, _) in (REFUSED | NOTED).items()), *good)
    for name, (_, sentence) in REFUSED.items():
        card = case(page, name)
        expect(card.get_by_test_id("stAlert")).to_have_count(1)
        expect(card.get_by_test_id("stAlert")).to_contain_text(sentence)
        expect(card.locator("table.bars")).to_have_count(0)
    for name, (_, sentence) in NOTED.items():
        expect(case(page, name).get_by_test_id("stAlert").first).to_have_text(sentence)
    for name in (*NOTED, "good.jpg", "good.jfif", "good"):
        expect(case(page, name).locator("table.bars tbody tr")).to_have_count(7)
        expect(case(page, name).get_by_alt_text("Heat map over the image")).to_be_visible()


def test_files_of_a_wrong_size_do_not_leave_the_browser(served: Served, open_demo: Open) -> None:
    page = open_demo()
    hand_in(page, ("heavy.jpg", GOOD + bytes(10_500_000)), ("good.jpg", GOOD))
    message = page.get_by_test_id("stFileChip").filter(has_text="heavy.jpg").get_by_text("File must be 10.0MB or smaller")
    box = message.bounding_box()
    assert box and box["width"] > 150 and box["height"] > 10  # for the eye too, not for screen readers alone
    case(page, "good.jpg")
    expect(page.locator("[class*='st-key-case-']")).to_have_count(1)
