"""Operating points as users see them: figures of the right run, and sentences that say no more than was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from skinlesion.serving.operating_point import OperatingPoint, Rate
from skinlesion.serving.predictor import load_predictor
from tests.serving.predictor_cases import lesion_image, make_workspace


def test_the_operating_point_flags_and_says_what_it_is_worth(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path))
    image = lesion_image()
    default, everything, nothing = (predictor.predict([image], point=name)[0] for name in (None, "everything", "nothing"))
    assert default.point is not None and default.point.name == predictor.default_point == "recall_0.90"
    assert (everything.flagged, nothing.flagged) == (True, False)
    assert default.score == default.probabilities["mel"] and default.flagged == (default.score >= 0.1)
    predictor.points["exact"] = replace(default.point, threshold=default.score)
    assert predictor.predict([image], point="exact")[0].flagged
    assert default.point.sentence == (
        "An image is flagged when the probability of melanoma is at least 10.0 %. On the validation images, on which it was "
        "chosen, it flagged 92 % of those with melanoma and left 61 % of the others unflagged."
    )


def test_test_figures_come_with_their_interval_if_they_are_of_the_same_threshold(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    rates = {"sensitivity": 0.85, "specificity": 0.6}
    ends = {"sensitivity": {"low": 0.7, "high": 0.95}, "specificity": {"low": 0.55, "high": 0.65}}
    points = {name: {"threshold": 0.1, "test": rates, "intervals": ends} for name in ("recall_0.90", "nothing")}
    audited = {"target": "mel", "classes": ["mel"], "bootstrap": {"confidence": 0.9}, "points": points}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/threshold_sweep.json").write_text(json.dumps(audited))
    found = load_predictor(tmp_path).points
    assert (found["recall_0.90"].measured_on, found["recall_0.90"].confidence) == ("test", 0.9)
    assert "On the test images, it flagged 85 % (70 to 95 %) of those with melanoma and left 60 % (55 to 65 %)" in (
        found["recall_0.90"].sentence
    )
    assert (found["nothing"].measured_on, found["nothing"].confidence) == ("val", None)  # another run's threshold


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Rate(0.9955, 0.98, 1.0), "> 99 % (98 to 100 %)"),  # one missed of 223
        (Rate(1.0, 0.984, 1.0), "100 % (98 to 100 %)"),
        (Rate(0.004, 0.0, 0.013), "< 1 % (0 to 1 %)"),
        (Rate(0.85), "85 %"),
    ],
)
def test_a_rate_is_not_rounded_to_what_it_is_not(rate: Rate, text: str) -> None:
    assert str(rate) == text


def test_a_point_says_what_was_measured_of_it() -> None:
    point = OperatingPoint("p", "mel", ("mel",), 0.0004, Rate(0.5), Rate(0.9), "test", None)
    assert point.sentence.startswith(
        "An image is flagged when the probability of melanoma is at least 0.04 %. On the test images"
    )
    assert replace(point, sensitivity=None).sentence.endswith("On the test images, it left 90 % of the others unflagged.")
    assert replace(point, specificity=None).sentence.endswith("On the test images, it flagged 50 % of those with melanoma.")
    assert replace(point, sensitivity=None, specificity=None).sentence.endswith("What that achieves was not measured.")
    assert replace(point, threshold=0.0).sentence.startswith("Every image is flagged, since no threshold for melanoma keeps")
    group = replace(point, target="malignant", classes=("mel", "bcc"))
    assert "malignant (melanoma, basal cell carcinoma) is at least" in group.sentence
    assert "those with one of these" in group.sentence
