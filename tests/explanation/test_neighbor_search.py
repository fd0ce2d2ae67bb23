"""Nearest training cases: the search against scikit-learn and by hand, its figures by hand, and its pages."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.neighbors import search
from skinlesion.explanation.neighbors.metrics import measure_neighbors
from skinlesion.explanation.neighbors.pages import NARROWEST, ROWS_A_PAGE, CaseWithNeighbors, Neighbor, draw_pages
from skinlesion.explanation.neighbors.search import COLUMNS, choose_errors, find_neighbors, neighbor_table, vote
from tests.conftest import resamples
from tests.explanation.workspace import grey_pixels, nothing_is_cut_off
from tests.stage_cases import predictions_of


def directions(count: int, features: int, seed: int) -> np.ndarray:
    """Random rows of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def listing(lesions: list[str], image_ids: list[str] | None = None, dx: list[str] | None = None) -> pd.DataFrame:
    """A training list."""
    ids = image_ids or [f"T{row:03d}" for row in range(len(lesions))]
    return pd.DataFrame({"image_id": ids, "lesion_id": lesions, "dx": dx or ["nv"] * len(lesions)})


# The search


def test_a_lesion_stands_by_its_nearest_image() -> None:
    wanted, searched = directions(40, 4, 3), directions(90, 4, 4)
    lesions = np.array([f"L{number:02d}" for number in np.random.default_rng(5).integers(0, 25, 90)])
    found = find_neighbors(wanted, searched, listing(lesions.tolist()), k=6)
    order = NearestNeighbors(n_neighbors=90, metric="cosine", algorithm="brute").fit(searched).kneighbors(wanted)[1]
    for row, ranked in enumerate(order):
        first_of_each = [position for place, position in enumerate(ranked) if lesions[position] not in lesions[ranked[:place]]]
        assert found.positions[row].tolist() == first_of_each[:6]


def test_equally_near_images_come_by_their_id() -> None:
    same = np.array([[1.0, 0.0]], dtype=np.float32)
    searched = np.repeat(same, 5, axis=0)
    searched[4] = [0, 1]
    listed = listing(["Z", "A", "Z", "M", "B"], image_ids=["I4", "I9", "I2", "I3", "I1"])
    found = find_neighbors(same, searched, listed, k=4)
    assert listed["image_id"].iloc[found.positions[0]].tolist() == ["I2", "I3", "I9", "I1"]
    assert found.similarities[0].tolist() == [1, 1, 1, 0]
    # Below what float32 knows, nothing is nearer than another: here by 1e-7.
    searched[3] = [0.9999999, 0.0004]
    assert find_neighbors(same, searched, listed, k=3).positions[0].tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("labels", "voted"), [([4, 5, 5], 5), ([4, 5, 5, 4], 4), ([5, 4, 4, 5, 1], 5), ([1, 2, 3], 1), ([0, 6, 6, 2, 2], 6), ([3], 3)]
)
def test_a_tied_vote_goes_to_the_nearest(labels: list[int], voted: int) -> None:
    assert vote(np.array([labels, labels[::-1]])).tolist()[0] == voted


def test_the_table_names_every_neighbour_once() -> None:
    test = predictions_of([("I1", "L1", "mel", "nv", 0.5), ("I2", "L2", "nv", "nv", 0.5)]).set_index(pd.Index([7, 3]))
    listed = listing(["A", "B", "C"], dx=["mel", "nv", "df"]).set_index(pd.Index([9, 8, 7]))
    found = search.Neighbors(np.array([[2, 0], [1, 2]]), np.array([[0.9, 0.25], [0.5, -0.125]]))
    table = neighbor_table(test, listed, found)
    assert set(table.columns) == set(COLUMNS)
    assert table[list(COLUMNS)].to_numpy().tolist() == [
        ["I1", "L1", "mel", "nv", 1, "T002", "C", "df", 0.9],
        ["I1", "L1", "mel", "nv", 2, "T000", "A", "mel", 0.25],
        ["I2", "L2", "nv", "nv", 1, "T001", "B", "nv", 0.5],
        ["I2", "L2", "nv", "nv", 2, "T002", "C", "df", -0.125],
    ]


def test_missed_melanomas_come_first_then_the_most_confident_errors() -> None:
    test = predictions_of(
        [
            ("I1", "L1", "nv", "mel", 0.99),
            ("I2", "L2", "mel", "nv", 0.5),
            ("I3", "L3", "nv", "nv", 0.9),
            ("I5", "L4", "bcc", "df", 0.6),
            ("I4", "L4", "bcc", "df", 0.6),
            ("I6", "L5", "mel", "bkl", 0.7),
            ("I7", "L6", "mel", "mel", 0.8),
        ]
    )
    shown = choose_errors(test, cases=9)
    assert shown["image_id"].tolist() == ["I6", "I2", "I1", "I4", "I5"]
    assert shown.iloc[0].tolist() == ["I6", "mel", "bkl", 0.7]
    assert choose_errors(test, cases=3)["image_id"].tolist() == ["I6", "I2", "I1"]
    assert choose_errors(test, cases=0).empty


# The figures

MEL, NV, BCC, DF = (CLASSES.index(dx) for dx in ("mel", "nv", "bcc", "df"))
# truth, prediction, its probability, neighbours' classes; vote and agreement in the comment
CASES = [
    ("mel", "mel", 0.9, [MEL, MEL, NV]),  # mel, agrees, right
    ("mel", "nv", 0.6, [NV, NV, MEL]),  # nv, agrees, wrong
    ("mel", "nv", 0.7, [MEL, NV, BCC]),  # mel, disagrees, wrong
    ("nv", "nv", 0.8, [NV, NV, NV]),  # nv, agrees, right
    ("nv", "nv", 0.5, [DF, MEL, MEL]),  # mel, disagrees, right
    ("bcc", "bcc", 0.95, [BCC, NV, MEL]),  # bcc, agrees, right
    ("df", "nv", 0.55, [DF, NV, DF]),  # df, disagrees, wrong
]


def measured_cases(**options: Any) -> dict[str, Any]:
    rows = [(f"I{row}", f"L{row // 2}", *case[:3]) for row, case in enumerate(CASES)]
    training = listing(["A", "A", "B", "C", "D"], dx=["mel", "mel", "nv", "nv", "nv"])
    labels = np.array([case[3] for case in CASES])
    return measure_neighbors(predictions_of(rows), labels, training, resamples(**{"draws": 400, "confidence": 0.9} | options))


def test_shares_and_agreement_by_hand() -> None:
    found = measured_cases()
    shares = found["share_of_truth"]
    assert shares["all"]["value"] == pytest.approx((2 + 1 + 1 + 3 + 0 + 1 + 2) / 21) and shares["all"]["images"] == 7
    assert shares["by_class"]["mel"]["value"] == pytest.approx(4 / 9)
    assert (shares["by_class"]["mel"]["images"], shares["by_class"]["mel"]["lesions"]) == (3, 2)
    assert shares["by_class"]["mel"]["training_lesions"] == 0.25 and shares["by_class"]["nv"]["training_lesions"] == 0.75
    assert shares["by_class"]["df"]["value"] == pytest.approx(2 / 3) and shares["by_class"]["df"]["training_lesions"] == 0
    assert np.isnan(shares["by_class"]["vasc"]["value"]) and shares["by_class"]["vasc"]["images"] == 0
    agreement = found["agreement"]
    agree = {name: agreement["agree"][name] for name in ("images", "lesions", "value")}
    assert agree == {"images": 4, "lesions": 3, "value": 0.75}
    assert (agreement["disagree"]["images"], agreement["disagree"]["value"]) == (3, pytest.approx(1 / 3))
    assert agreement["difference"]["value"] == pytest.approx(0.75 - 1 / 3)
    assert agreement["agree"]["low"] <= 0.75 <= agreement["agree"]["high"]


def test_vote_and_network_are_those_of_scikit_learn_and_their_difference_is_paired() -> None:
    found = measured_cases()
    truth, predicted = ([case[column] for case in CASES] for column in (0, 1))
    voted = ["mel", "nv", "mel", "nv", "mel", "bcc", "df"]
    for name, answers in (("vote", voted), ("network", predicted)):
        melanoma, flagged = np.array(truth) == "mel", np.array(answers) == "mel"
        values = {metric: each[name]["value"] for metric, each in found["metrics"].items()}
        assert values == {
            "accuracy": pytest.approx(accuracy_score(truth, answers)),
            "balanced_accuracy": pytest.approx(balanced_accuracy_score(truth, answers)),
            "mel_sensitivity": pytest.approx(recall_score(melanoma, flagged)),
            "mel_specificity": pytest.approx(recall_score(~melanoma, ~flagged)),
        }
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["difference"]["value"] == pytest.approx(1 / 7)
    # By lesion, one image is gained in the second and the fourth, one lost in the third: what four drawn lesions can give.
    drawn = np.random.default_rng(0).integers(4, size=(400, 4))
    differences = np.array([0, 1, -1, 1])[drawn].sum(axis=1) / np.array([2, 2, 2, 1])[drawn].sum(axis=1)
    assert [accuracy["difference"][end] for end in ("low", "high")] == pytest.approx(np.quantile(differences, [0.05, 0.95]))


def test_errors_are_ranked_as_by_scikit_learn() -> None:
    found = measured_cases()["error_detection"]
    right = [case[0] == case[1] for case in CASES]
    supporting = [np.mean(np.array(labels) == CLASSES.index(predicted)) for _, predicted, _, labels in CASES]
    assert found["neighbors"]["value"] == pytest.approx(roc_auc_score(right, supporting))
    assert found["confidence"]["value"] == pytest.approx(roc_auc_score(right, [case[2] for case in CASES]))
    assert found["difference"]["value"] == pytest.approx(found["neighbors"]["value"] - found["confidence"]["value"])


def test_options_reach_the_bootstrap() -> None:
    def ends(**options: Any) -> tuple[float, float]:
        difference = measured_cases(**options)["error_detection"]["difference"]
        return difference["low"], difference["high"]

    assert len({ends(), ends(seed=1, draws=101), ends(confidence=0.6)}) > 1
    assert ends() == ends() and np.subtract(*ends(confidence=0.6)) > np.subtract(*ends())


# The pages


def make_case(neighbors: int = 2) -> CaseWithNeighbors:
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    shares = ("truth", "prediction", "neither")
    return CaseWithNeighbors(pixels, "I\nt", [Neighbor(pixels, "N\nd", shares[number % 3]) for number in range(neighbors)])  # type: ignore[arg-type]


def test_pages_are_full_before_the_next_one_begins(tmp_path: Path) -> None:
    cases = (make_case() for _ in range(ROWS_A_PAGE + 1))
    written = draw_pages(cases, tmp_path, title="two pages", neighbors=2)
    assert [page.name for page in written] == ["neighbors_1.png", "neighbors_2.png"]
    with Image.open(written[0]) as first, Image.open(written[1]) as second:
        assert first.width == second.width == round(NARROWEST * 90)
        assert first.height > 5 * second.height
        assert not {"Software", "Creation Time"} & set(first.info)
    (tmp_path / "empty").mkdir()
    (empty,) = draw_pages([], tmp_path / "empty", title="nothing", neighbors=5)
    assert empty.name == "neighbors_1.png"


@pytest.mark.parametrize("neighbors", [1, 5, 20])
def test_nothing_is_cut_off(tmp_path: Path, neighbors: int) -> None:
    (page,) = draw_pages([make_case(neighbors)], tmp_path, title="a title of a hundred characters " * 3, neighbors=neighbors)
    assert nothing_is_cut_off(page)


def test_frames_differ_without_colour(tmp_path: Path) -> None:
    """How much of a frame's upper edge is drawn, and in how many pieces."""
    pixels = np.full((30, 40, 3), 255, dtype=np.uint8)
    neighbors = [Neighbor(pixels, "", shares) for shares in ("truth", "prediction", "neither")]
    (page,) = draw_pages([CaseWithNeighbors(pixels, "", neighbors)], tmp_path, title="", neighbors=3)
    inked = grey_pixels(page) < 200
    edges = []
    for start in (281, 484, 686):  # of the neighbours' cells, pixels, a little inside their frames
        cell = inked[60:, start : start + 160]
        edges.append(cell[cell.sum(axis=1).argmax()])
    drawn = [edge.mean() for edge in edges]
    pieces = [(np.diff(edge.astype(int)) == 1).sum() for edge in edges]
    assert drawn[0] == 1 and 0.6 < drawn[1] < 0.9 and 0.3 < drawn[2] < 0.9
    assert pieces[0] == 0 and 2 * pieces[1] < pieces[2]
