"""An operating point and its rates in words."""

from dataclasses import replace

import pytest

from skinlesion.serving.operating_point import OperatingPoint, Rate


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (Rate(0.9955, 0.98, 1.0), "> 99 % (98 to 100 %)"),  # one missed of 223
        (Rate(1.0, 0.984, 1.0), "100 % (98 to 100 %)"),
        (Rate(0.004, 0.0, 0.013), "< 1 % (0 to 1 %)"),
        (Rate(0.85), "85 %"),
    ],
)
def test_a_rate_is_not_rounded_to_what_it_is_not(rate: Rate, message: str) -> None:
    assert str(rate) == message


def test_a_point_says_what_was_measured_of_it() -> None:
    point = OperatingPoint("p", "mel", ("mel",), 0.0004, Rate(0.5), Rate(0.9), "test", None)
    start = "An image is flagged when the probability of melanoma is at least 0.04 %. On the test images"
    assert point.sentence.startswith(start)
    assert replace(point, sensitivity=None).sentence.endswith("On the test images, it left 90 % of the others unflagged.")
    assert replace(point, specificity=None).sentence.endswith("On the test images, it flagged 50 % of those with melanoma.")
    assert replace(point, sensitivity=None, specificity=None).sentence.endswith("What that achieves was not measured.")
    assert replace(point, threshold=0.0).sentence.startswith("Every image is flagged, since no threshold for melanoma keeps")
    group = replace(point, target="malignant", classes=("mel", "bcc"))
    assert "malignant (melanoma, basal cell carcinoma) is at least" in group.sentence
    assert "those with one of these" in group.sentence
