"""Which cases `gradcam` shows, and how they are drawn."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam import cases, pages, panels
from tests.explanation import workspace

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
    table = cases.judge_predictions(workspace.make_predictions())
    assert list(table["predicted"]) == [row[3] for row in workspace.PREDICTED]
    np.testing.assert_allclose(table["probability"], [row[4] for row in workspace.PREDICTED])
    # What the predicted class leaves is shared by the six others.
    expected = [row[4] if row[2] == row[3] else (1 - row[4]) / 6 for row in workspace.PREDICTED]
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


def test_pages_are_named_by_truth_in_the_order_of_the_cases() -> None:
    names = pages.name_pages(pd.Series(["mel"] * 8 + ["nv", "mel", "nv"]))
    assert list(names) == ["mel_1.png"] * 8 + ["nv_1.png", "mel_2.png", "nv_1.png"]
    table = pd.DataFrame({"dx": ["nv", "akiec", "mel", "akiec", "mel"], "position": [1, 2, 3, 4, 5]})
    assert list(pages.in_page_order(table)["position"]) == [3, 5, 2, 4, 1]


def drawn(case: panels.Case) -> Figure:
    """A case alone on a figure."""
    figure = Figure(figsize=(panels.CASE_WIDTH, panels.CASE_HEIGHT))
    panels.draw_case(figure, case, top=panels.CASE_HEIGHT, height=panels.CASE_HEIGHT)
    return figure


def texts(figure: Figure) -> list[str]:
    """What is written on a figure, its axes' texts included."""
    return [text.get_text() for text in (*figure.texts, *(text for axes in figure.axes for text in axes.texts))]


def test_overlay_keeps_geometry_and_shows_the_map() -> None:
    case = workspace.make_case()
    blended = panels.overlay(case.image, case.predicted_map)
    assert (blended.shape, blended.dtype) == (case.image.shape, np.uint8)
    low, high = (np.array(panels.COLOR_MAP(value)[:3]) for value in (0.0, 1.0))
    for column, color in [(0, low), (199, high)]:
        expected = panels.MAP_WEIGHT * color * 255 + (1 - panels.MAP_WEIGHT) * 200
        np.testing.assert_allclose(blended[0, column], expected, atol=1)


def test_an_error_has_the_map_of_either_class() -> None:
    case = workspace.make_case()
    figure = drawn(case)
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    expected = [case.image, *(panels.overlay(case.image, heat) for heat in (case.predicted_map, case.true_map))]
    for one, other in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert {"map for the prediction, akiec", "map for the truth, mel"} <= set(texts(figure))
    assert "1. ISIC_0024306: missed melanoma" in texts(figure)
    assert "age 55 years, sex female, site lower extremity" in texts(figure)


def test_a_correct_case_has_one_map_and_says_so() -> None:
    figure = drawn(workspace.make_correct())
    assert sum(bool(axes.images) for axes in figure.axes) == 2
    assert "prediction = truth, mel:\nthe map on the left\nis the map for both" in texts(figure)


def test_what_is_unknown_and_a_map_of_zeros_are_said() -> None:
    case = workspace.make_case(age=float("nan"), sex="unknown", localization="unknown", predicted_map=np.zeros((150, 200)))
    message = texts(drawn(case))
    assert "age unknown, sex unknown, site unknown" in message
    assert "map for the prediction, akiec: all zero" in message


@pytest.mark.parametrize("case", [workspace.make_case(), workspace.make_correct()], ids=["error", "correct"])
def test_bars_are_the_probabilities_and_tell_truth_and_prediction_without_colour(case: panels.Case) -> None:
    (bars,) = (axes for axes in drawn(case).axes if axes.patches)
    np.testing.assert_allclose([patch.get_width() for patch in bars.patches], case.probabilities)
    assert [tick.get_text() for tick in bars.get_yticklabels()] == list(CLASSES)
    assert bars.yaxis_inverted()  # in the order of the classes from above
    assert [bool(patch.get_hatch()) for patch in bars.patches] == [dx == case.dx for dx in CLASSES]
    message = {dx: text.get_text() for dx, text in zip(CLASSES, bars.texts, strict=True)}
    wrong = {"akiec": "0.97 predicted", "mel": "0.02 true"}
    expected = wrong if case.predicted == "akiec" else {"mel": "1.00 predicted and true"}
    assert {dx: text for dx, text in message.items() if " " in text} == expected


def test_the_outline_runs_around_the_lesion() -> None:
    lesion = workspace.disc(3)
    (line,) = panels.outline(lesion)
    np.testing.assert_array_equal(line[0], line[-1])
    area = abs(np.sum(line[:-1, 0] * line[1:, 1] - line[1:, 0] * line[:-1, 1])) / 2
    assert area == pytest.approx(lesion.sum(), rel=0.05)
    rows, columns = np.nonzero(lesion)
    np.testing.assert_allclose(line.min(axis=0), [columns.min() - 0.5, rows.min() - 0.5])
    np.testing.assert_allclose(line.max(axis=0), [columns.max() + 0.5, rows.max() + 0.5])
    for nothing in (None, np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)):
        assert panels.outline(nothing) == []
    with_outline = [axes.collections for axes in drawn(workspace.make_case()).axes if axes.images]
    assert [len(found) for found in with_outline] == [2, 2, 2]  # black below white, on each of the three pictures


@pytest.mark.parametrize(("width", "height"), [(600, 450), (150, 200), (40, 200)])
def test_nothing_is_cut_off(tmp_path: Path, width: int, height: int) -> None:
    title = "SmoothGradCAMpp of layer " + " and layer ".join(["features.7.2.block", "x" * 60, "norm2"] * 3)
    one, other = workspace.make_case(width, height, position=100), workspace.make_correct(position=101, kind="missed melanoma")
    (page,) = pages.draw_pages([one, other] * (1 if width < 600 else 4), tmp_path, title=title)
    assert workspace.nothing_is_cut_off(page)
    assert page.stat().st_size < 2_000_000


def test_pages_hold_their_own_cases_and_are_drawn_one_at_a_time(tmp_path: Path) -> None:
    names = ["mel_1.png", "mel_1.png", "mel_2.png", "akiec_1.png"]
    seen = []

    def arriving() -> Iterator[panels.Case]:
        for name in names:
            seen.append((name, sorted(path.name for path in tmp_path.iterdir())))
            yield workspace.make_correct(width=40, height=30, page=name, image_id=f"ISIC_{len(seen)}")

    written = pages.draw_pages(arriving(), tmp_path, title="three pages")
    assert [page.name for page in written] == ["mel_1.png", "mel_2.png", "akiec_1.png"]
    # When the first case after the next page's first is asked for, the pages before are on disk.
    assert seen[-1] == ("akiec_1.png", ["mel_1.png"])
    assert workspace.grey_pixels(written[0]).shape[0] > 1.5 * workspace.grey_pixels(written[1]).shape[0]
    with Image.open(written[0]) as first:
        assert not {"Software", "Creation Time"} & set(first.info)
    digests = [hashlib.sha256(page.read_bytes()).hexdigest() for page in written]
    two = [workspace.make_correct(width=40, height=30, image_id=f"ISIC_{number}") for number in (1, 2)]
    (again,) = pages.draw_pages(two, tmp_path, title="three pages")
    assert hashlib.sha256(again.read_bytes()).hexdigest() == digests[0]


def test_a_page_names_the_class_in_words_and_its_texts_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    title = "a title " * 40
    pages.draw_pages([workspace.make_case(page="mel_12.png"), workspace.make_correct(page="mel_12.png")], tmp_path, title=title)
    (figure,) = figures
    assert texts(figure)[0] == "Melanoma (mel), page 12" and "".join(texts(figure)[1].split()) == "".join(title.split())
    assert any("each map on a scale of its own" in text for text in texts(figure))
    figure.draw_without_rendering()
    found = [*figure.texts, *(text for axes in figure.axes for text in (*axes.texts, axes.xaxis.label, axes.yaxis.label))]
    boxes = [text.get_window_extent() for text in found if text.get_text()]
    for position, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert not [found[position].get_text() for other in boxes[position + 1 :] if box.overlaps(other)]
