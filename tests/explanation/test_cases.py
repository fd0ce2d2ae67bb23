"""Which predictions `gradcam` shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from skinlesion.explanation.cam import cases
from tests.explanation.workspace import (
    PREDICTED,
    make_predictions,
)

NOTHING_ELSE = {"confident_errors": 0, "unsure_correct": 0, "typical_correct": 0}


def judged(rows: list[tuple[str, str, str, float]]) -> pd.DataFrame:
    """A judged table from image_id, truth, prediction and its probability."""
    table = pd.DataFrame(rows, columns=["image_id", "dx", "predicted", "probability"])
    return table.assign(outcome=np.where(table["dx"] == table["predicted"], "correct", "wrong"))


def chosen(table: pd.DataFrame, **numbers: int) -> list[tuple[str, str]]:
    """Image and kind of the chosen cases; in whatever order the table comes, they are the same."""
    found = cases.choose_cases(table, **NOTHING_ELSE | numbers)
    assert list(found["position"]) == list(range(1, len(found) + 1))
    shuffled = cases.choose_cases(table.sample(frac=1, random_state=0), **NOTHING_ELSE | numbers)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), shuffled.reset_index(drop=True))
    return list(zip(found["image_id"], found["kind"], strict=True))


def test_predictions_are_judged() -> None:
    table = cases.judge_predictions(make_predictions())
    assert list(table["predicted"]) == [row[3] for row in PREDICTED]
    np.testing.assert_allclose(table["probability"], [row[4] for row in PREDICTED])
    # What the predicted class leaves is shared by the six others.
    expected = [row[4] if row[2] == row[3] else (1 - row[4]) / 6 for row in PREDICTED]
    np.testing.assert_allclose(table["probability_true"], expected)
    assert list(table["outcome"][:4]) == ["correct", "wrong", "wrong", "correct"]


def test_every_missed_melanoma_comes_first_the_most_confident_before() -> None:
    misses = [(f"M{number:02d}", "mel", "nv", 0.3 + number / 100) for number in range(40)]
    table = judged([("A", "nv", "mel", 0.99), ("B", "mel", "mel", 0.98), *misses])
    assert chosen(table) == [(row[0], "missed melanoma") for row in reversed(misses)]
    assert chosen(table, confident_errors=5)[40:] == [("A", "confident error")]


def test_ties_go_by_image() -> None:
    rows = [(f"{name}{number}", *case) for number in (2, 1) for name, *case in (("E", "bkl", "nv", 0.6), ("C", "nv", "nv", 0.7))]
    table = judged([*rows, ("M2", "mel", "nv", 0.5), ("M1", "mel", "bkl", 0.5)])
    expected = ["M1", "M2", "E1", "C1", "C2"]
    assert [image_id for image_id, _ in chosen(table, confident_errors=1, unsure_correct=1, typical_correct=1)] == expected


def test_unsure_are_the_least_confident_correct_ones_of_all_classes() -> None:
    table = judged([("A", "nv", "nv", 0.9), ("B", "df", "df", 0.35), ("C", "mel", "mel", 0.5), ("D", "nv", "df", 0.2)])
    assert chosen(table, unsure_correct=2) == [("B", "unsure correct"), ("C", "unsure correct")]
    assert len(chosen(table, unsure_correct=9)) == 3


def test_typical_is_nearest_to_the_median_of_its_class_and_not_yet_shown() -> None:
    nevi = [("A", 0.30), ("B", 0.80), ("C", 0.86), ("D", 0.90), ("E", 0.99)]  # median 0.86
    rows = [(name, "nv", "nv", probability) for name, probability in nevi]
    assert [name for name, _ in chosen(judged(rows), typical_correct=3)] == ["C", "D", "B"]
    # The median is that of all correct predictions, also where some are shown already.
    kinds = dict(chosen(judged(rows), unsure_correct=3, typical_correct=2))
    assert kinds == dict.fromkeys("ABC", "unsure correct") | dict.fromkeys("DE", "typical correct")
    # Errors have no part in it, and melanoma stands before the others.
    more = [("F", "nv", "df", 0.1), ("G", "nv", "df", 0.1), ("H", "akiec", "akiec", 0.5), ("I", "mel", "mel", 0.6)]
    assert [name for name, _ in chosen(judged(rows + more), typical_correct=1)] == ["I", "H", "C"]


@pytest.mark.parametrize("step", [0.1, 0.07, 0.013])
def test_the_two_middle_ones_of_an_even_number_tie(step: float) -> None:
    """Their distances to the median are equal but for rounding, which must not choose."""
    for names in ("AB", "BA"):
        rows = [(name, "nv", "nv", 0.3 + step * number) for number, name in enumerate(names)]
        assert chosen(judged(rows), typical_correct=1) == [("A", "typical correct")]
