"""The stage `failures`: a hand-made table whose every row is known, against counts by hand, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score

from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.failures import COLUMNS
from skinlesion.evaluation.results.decisions import OPERATING_POINTS, write_operating_points
from skinlesion.evaluation.results.predictions import write_predictions
from stages import failures
from tests.conftest import WriteParams, refuses
from tests.stage_cases import PATIENT, predicted_of, read_metrics, with_logits

# image, lesion, truth, predicted, its probability, probability of melanoma (the rest is spread over the others)
ROWS = [
    ("I01", "L1", "mel", "nv", 0.90, 0.06),  # missed with confidence; its lesion's other image is right, and so is their mean
    ("I02", "L1", "mel", "mel", 0.97, 0.97),
    ("I03", "L2", "mel", "nv", 0.55, 0.40),  # missed, flagged by both points
    ("I04", "L3", "mel", "bkl", 0.85, 0.01),  # missed with confidence by everything
    ("I05", "L4", "nv", "mel", 0.80, 0.80),  # confident, just so
    ("I06", "L5", "nv", "mel", 0.79, 0.79),  # not confident enough
    ("I07", "L6", "bcc", "nv", 0.95, 0.01),
    ("I08", "L7", "nv", "nv", 0.99, 0.00),
    ("I09", "L8", "nv", "mel", 0.80, 0.80),  # equal to I05
]


def make_table() -> pd.DataFrame:
    """A prediction table of `ROWS`, shuffled."""
    probabilities = np.zeros((len(ROWS), len(CLASSES)))
    for row, (_, _, _, predicted, confidence, melanoma) in enumerate(ROWS):
        chosen = {"mel": melanoma, predicted: confidence}
        others = [dx for dx in CLASSES if dx not in chosen]
        for dx in CLASSES:
            probabilities[row, CLASSES.index(dx)] = chosen.get(dx, (1 - sum(chosen.values())) / len(others))
    frame = pd.DataFrame([row[:3] for row in ROWS], columns=["image_id", "lesion_id", "dx"]).assign(**PATIENT)
    return with_logits(frame, np.log(np.maximum(probabilities, 1e-9)), probabilities).sample(frac=1, random_state=3)


@pytest.fixture
def inputs(workspace: Path, write_params: WriteParams) -> Path:
    """The stage's inputs: two operating points of melanoma."""
    write_params()
    write_predictions({"val": make_table(), "test": make_table()})
    points = {"loose": {"threshold": 0.05}, "strict": {"threshold": 0.4}}
    described = {"target": "mel", "classes": ["mel"], "score": "sum", "rule": "flag", "chosen_on": "val", "points": points}
    write_operating_points(described)
    return workspace


def test_every_failure_is_listed_and_nothing_else(inputs: Path) -> None:
    failures.main()
    listed = pd.read_csv("data/failures/failures.csv", keep_default_na=False)
    assert tuple(listed.columns) == COLUMNS
    assert listed["image_id"].tolist() == ["I04", "I01", "I03", "I07", "I05", "I09"]
    rows = listed.set_index("image_id")
    assert rows.index[rows["missed_melanoma"]].tolist() == ["I04", "I01", "I03"]
    assert rows.index[rows["confident_error"]].tolist() == ["I04", "I01", "I07", "I05", "I09"]
    assert rows["flagged_at"].to_dict() == {
        "I04": "", "I01": "loose", "I03": "loose strict", "I07": "", "I05": "loose strict", "I09": "loose strict",
    }  # fmt: skip
    assert rows.at["I01", "lesion_predicted"] == "mel" and rows.at["I01", "lesion_images"] == 2
    assert rows.at["I03", "rank_of_truth"] == 2 and rows.at["I03", "probability_of_truth"] == pytest.approx(0.40)
    assert rows.at["I07", "predicted"] == "nv" and rows.at["I07", "confidence"] == pytest.approx(0.95)


def test_the_counts_are_those_of_the_list(inputs: Path) -> None:
    failures.main()
    counted = read_metrics("failures")
    assert (counted["images"], counted["errors"], counted["min_confidence"]) == (9, 7, 0.8)
    assert counted["melanomas"] == {"images": 4, "lesions": 3}
    assert counted["missed_melanomas"] == {
        "images": 3, "lesions": 3, "lesions_missed_by_the_mean_of_their_images": 2, "confident": 2,
        "flagged_at": {"loose": 2, "strict": 1},
    }  # fmt: skip
    assert counted["confident_errors"]["images"] == 5
    assert counted["confident_errors"]["share_of_errors"] == pytest.approx(5 / 7)
    assert counted["confident_errors"]["by_pair"][0] == {"dx": "nv", "predicted": "mel", "images": 2}
    table = make_table()
    missed_share = 1 - recall_score(table["dx"] == "mel", predicted_of(table) == "mel")
    assert counted["missed_melanomas"]["images"] / counted["melanomas"]["images"] == pytest.approx(missed_share)


def test_a_higher_bar_lists_fewer_errors_and_all_missed_melanomas(inputs: Path, write_params: WriteParams) -> None:
    write_params({"failures.min_confidence": 1.0})
    failures.main()
    assert pd.read_csv("data/failures/failures.csv")["image_id"].tolist() == ["I04", "I01", "I03"]


def test_without_an_error_the_list_is_empty_and_has_its_columns(inputs: Path) -> None:
    table = make_table()
    right = table[table["image_id"].isin(["I02", "I08"])]
    write_predictions({"val": right, "test": right})
    failures.main()
    assert Path("data/failures/failures.csv").read_text(encoding="utf-8") == ",".join(COLUMNS) + "\n"
    counted = read_metrics("failures")
    assert counted["confident_errors"]["share_of_errors"] is None and counted["missed_melanomas"]["images"] == 0


def test_missing_inputs_are_named(inputs: Path) -> None:
    OPERATING_POINTS.unlink()
    refuses(r"operating_points.json not found: run the stage", failures.main)
