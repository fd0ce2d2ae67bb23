"""What the report and README show of how far maps can be believed, from figures whose verdicts are known."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.explanation.cam import summary
from skinlesion.explanation.cam.faithfulness import FIGURES, Faithfulness
from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.members import MemberMaps
from skinlesion.report import explanations
from tests.conftest import resamples
from tools.readme_evidence import evidence_tables
from tools.records import Record

IMAGES = 24
TABLE = pd.DataFrame(
    {
        "lesion_id": [f"L{number}" for number in range(IMAGES)],
        "dx": ["mel"] * 10 + ["nv"] * 14,
        "outcome": ["wrong"] * 8 + ["correct"] * 16,
    }
)
GOOD = {"energy": 2.5, "energy_other": 1.5, "pointing": 1.0, "pointing_center": 0.0, "flip": 0.9375, "shuffled": 0.125}
GOOD |= {"deletion": 0.25, "deletion_random": 0.75, "deletion_center": 0.5}
GOOD |= {"insertion": 0.875, "insertion_random": 0.25, "insertion_center": 0.5}


def make_faithful(**methods: dict[str, float]) -> dict[str, object]:
    """What `metrics/gradcam.json` has under `faithfulness`, of methods whose figures are the same in every image."""
    measured = {}
    for name, values in methods.items():
        positions = np.arange(IMAGES if name != "ScoreCAM" else 12)
        figures = pd.DataFrame({figure: values.get(figure, np.nan) for figure in FIGURES}, index=range(len(positions)))
        maps = {"base-0": MemberMaps(TargetLayer("layer", "channels_first", 2, (8.0, 16.0)), np.ones((len(positions), 2, 2)))}
        measured[name] = Faithfulness(positions, maps, figures, {}, 0, 0)
    how = resamples(1000)
    return {"split": "test", "bootstrap": describe_draws(how), **summary.summarize(measured, TABLE, how)}


def test_maps_that_beat_every_control() -> None:
    faithful = make_faithful(GradCAM=GOOD)
    assert explanations.warnings(faithful) == []
    table = explanations.methods_table(faithful)
    assert table.caption == "Faithfulness by method, test; 95 % intervals by 1,000 bootstrap draws of lesions"
    (row,) = table.rows
    assert [cell.replace("\xa0", " ") for cell in row] == [
        *("GradCAM", "24", "2.500 [2.500, 2.500]", "1.000 [1.000, 1.000]", "0.250 [0.250, 0.250]", "0.875 [0.875, 0.875]"),
        *("0.938 [0.938, 0.938]", "0.125 [0.125, 0.125]"),
    ]
    assert explanations.compared_table(faithful) is None
    against = {row[1]: row[2:] for row in explanations.controls_table(faithful).rows}
    assert against["deletion AUC against image's centre"][:3] == ["better", "0.250", "0.500"]
    assert against["deletion AUC against image's centre"][3].startswith("-0.250 [-0.250,")
    assert len(against) == 6
    groups = explanations.groups_table("GradCAM", faithful["methods"]["GradCAM"])
    assert [row[:2] for row in groups.rows] == [["mel", "10"], ["nv", "14"], ["correct", "16"], ["wrong", "8"]]


@pytest.mark.parametrize(
    ("changed", "measure", "verdict"),
    [
        ({"pointing_center": 1.0}, "peak on the lesion", "no difference shown"),
        ({"deletion": 0.5}, "deletion AUC", "no difference shown"),
        ({"insertion": 0.25}, "insertion AUC", "worse"),
        # A fine order that beats the centre, but no random maps of its own grain.
        ({"deletion_random": 0.25}, "deletion AUC", explanations.BY_GRAIN),
    ],
)
def test_maps_that_do_not_beat_the_centre_are_warned_about(changed: dict[str, float], measure: str, verdict: str) -> None:
    faithful = make_faithful(GradCAM=GOOD | changed)
    assert explanations.warnings(faithful) == [explanations.CENTER_NOT_BEATEN]
    against = {row[1]: row[2] for row in explanations.controls_table(faithful).rows}
    assert against[f"{measure} against image's centre"] == verdict


def test_a_failed_sanity_check_is_warned_about_and_shown_whole() -> None:
    faithful = make_faithful(GradCAM=GOOD, LayerCAM=GOOD | {"shuffled": -0.75}, ScoreCAM=GOOD)
    assert explanations.warnings(faithful) == [explanations.NOT_SANE]
    rows = explanations.sanity_table(faithful).rows
    assert [row[:2] for row in rows] == [["GradCAM", "passed"], ["LayerCAM", "failed"], ["ScoreCAM", "passed"]]
    assert rows[1][2].startswith("0.562 ") and rows[0][3:] == ["24", "0.0 %"]
    same = explanations.compared_table(faithful)
    assert same is not None and same.caption == "The methods on the same 12 images"
    assert [row[0] for row in same.rows] == ["GradCAM", "LayerCAM", "ScoreCAM"]


def test_without_masks() -> None:
    unmasked = {name: value for name, value in GOOD.items() if not name.startswith(("energy", "pointing"))}
    faithful = make_faithful(GradCAM=unmasked)
    assert explanations.warnings(faithful) == []
    measures = [row[1].split(" against")[0] for row in explanations.controls_table(faithful).rows]
    assert measures == ["deletion AUC"] * 2 + ["insertion AUC"] * 2


def test_readme_has_the_measures_and_the_verdicts() -> None:
    faithful = make_faithful(GradCAM=GOOD, LayerCAM=GOOD | {"deletion": 0.5, "shuffled": 0.75})
    runs = {"older": {}, "mine": {"faithfulness": faithful}}
    records = [Record(name, {}, {"gradcam": found}, has_report=False) for name, found in runs.items()]
    behind, measures, judged = evidence_tables(records)
    assert len(behind.rows) == 2
    assert measures.caption.startswith("[mine](results/mine/): faithfulness by method, test; 95 % intervals")
    assert [cell.replace("\xa0", " ") for cell in measures.rows[1][:3]] == ["LayerCAM", "24", "2.500 [2.500, 2.500]"]
    assert judged.header[3] == "deletion AUC against image's centre"
    assert [(row[3], row[-1]) for row in judged.rows] == [("better", "passed"), ("no difference shown", "failed")]
