"""What the report and README say of how far maps can be believed, from figures whose verdicts are known."""

from __future__ import annotations

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
from tools import readme_tables

IMAGES = 24
TABLE = pd.DataFrame(
    {
        "lesion_id": [f"L{number}" for number in range(IMAGES)],
        "dx": ["mel"] * 10 + ["nv"] * 14,
        "outcome": ["wrong"] * 8 + ["correct"] * 16,
    }
)
GOOD = {
    "energy": 2.5,
    "energy_other": 1.5,
    "pointing": 1.0,
    "pointing_center": 0.0,
    "deletion": 0.25,
    "deletion_random": 0.75,
    "deletion_center": 0.5,
    "insertion": 0.875,
    "insertion_random": 0.25,
    "insertion_center": 0.5,
    "flip": 0.9375,
    "shuffled": 0.125,
}


def make_faithful(**methods: dict[str, float]) -> dict[str, object]:
    """What `metrics/gradcam.json` has under `faithfulness`, of methods whose figures are the same in every image."""
    measured = {}
    for name, values in methods.items():
        positions = np.arange(IMAGES if name != "ScoreCAM" else 12)
        figures = pd.DataFrame({figure: values.get(figure, np.nan) for figure in FIGURES}, index=range(len(positions)))
        maps = {"base-0": MemberMaps(TargetLayer("layer", "channels_first", 2, (8.0, 16.0)), np.ones((len(positions), 2, 2)))}
        measured[name] = Faithfulness(positions, maps, figures, {}, 0)
    how = resamples(1000)
    return {"split": "test", "bootstrap": describe_draws(how), **summary.summarize(measured, TABLE, how)}


def test_maps_that_beat_every_control() -> None:
    faithful = make_faithful(GradCAM=GOOD)
    assert explanations.warnings(faithful) == []
    first, second, third = explanations.reading(faithful)
    assert first.startswith("Over 24 images maps hold 2.50 (GradCAM) times the energy on the lesion")
    assert "more than the map of another lesion's image would for GradCAM, and peak on it in a share of 1.00 (GradCAM)" in first
    assert second.count("GradCAM") == 4
    assert third.endswith("so that GradCAM passes the sanity check.")
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
    ("changed", "named"),
    [
        ({"pointing_center": 1.0}, "in peak on the lesion by GradCAM"),
        ({"deletion": 0.5}, "in deletion AUC by GradCAM"),
        ({"insertion": 0.25}, "in insertion AUC by GradCAM"),
        ({"pointing": 0.0, "deletion": 0.75}, "in peak on the lesion by GradCAM; in deletion AUC by GradCAM"),
    ],
)
def test_maps_that_do_not_beat_the_centre_are_warned_about(changed: dict[str, float], named: str) -> None:
    (warning,) = explanations.warnings(make_faithful(GradCAM=GOOD | changed))
    assert warning.startswith(f"The image's centre, which knows nothing of the image, is not beaten {named}. ")


def test_what_no_method_beats_is_said_once() -> None:
    three = dict.fromkeys(("GradCAM", "LayerCAM", "XGradCAM"), GOOD | {"pointing": 0.0})
    (warning,) = explanations.warnings(make_faithful(**three))
    assert "is not beaten in peak on the lesion by any of the 3 methods. There, " in warning


def test_a_failed_sanity_check_is_warned_about() -> None:
    faithful = make_faithful(GradCAM=GOOD, LayerCAM=GOOD | {"shuffled": 0.75}, ScoreCAM=GOOD)
    (warning,) = explanations.warnings(faithful)
    assert warning.startswith("Sanity check failed: LayerCAM. ")
    assert explanations.reading(faithful)[2].endswith(
        "of 0.12 (GradCAM) to 0.75 (LayerCAM), so that GradCAM and ScoreCAM pass the sanity check."
    )
    assert "for all 3 methods" in explanations.reading(faithful)[0]
    assert explanations.reading(faithful)[0].startswith("Over 24 images (12 for ScoreCAM) maps hold ")
    same = explanations.compared_table(faithful)
    assert same is not None
    assert same.caption == "The methods on the same 12 images"
    assert [row[0] for row in same.rows] == ["GradCAM", "LayerCAM", "ScoreCAM"]


def test_fine_random_orders_are_no_merit_of_a_map() -> None:
    """Better than the centre, but no better than random maps of its own grain: not counted as better than the centre."""
    faithful = make_faithful(RefineCAM=GOOD | {"deletion_random": 0.25})
    (warning,) = explanations.warnings(faithful)
    assert "is not beaten in deletion AUC by RefineCAM" in warning


def test_the_sanity_check_is_shown_whole() -> None:
    table = explanations.sanity_table(make_faithful(GradCAM=GOOD, LayerCAM=GOOD | {"shuffled": -0.75}))
    assert [row[:2] for row in table.rows] == [["GradCAM", "passed"], ["LayerCAM", "failed"]]
    assert table.rows[1][2].startswith("0.562 ")
    assert table.rows[0][3:] == ["24", "0.0 %"]


def test_without_masks() -> None:
    unmasked = {name: value for name, value in GOOD.items() if not name.startswith(("energy", "pointing"))}
    faithful = make_faithful(GradCAM=unmasked)
    assert explanations.warnings(faithful) == []
    assert explanations.reading(faithful)[0] == "Where the maps lie was not measured, for want of lesion masks."
    assert [row[1].split(" against")[0] for row in explanations.controls_table(faithful).rows] == ["deletion AUC"] * 2 + [
        "insertion AUC"
    ] * 2


def test_readme_has_the_table_and_its_reading() -> None:
    faithful = make_faithful(GradCAM=GOOD, LayerCAM=GOOD | {"deletion": 0.5})
    of_run = {"provenance": {}, "evaluate": {}, "threshold_sweep": {}, "reading": [], "has_report": False}
    record = readme_tables.Record(name="mine", gradcam={"faithfulness": faithful}, **of_run)
    older = readme_tables.Record(name="older", gradcam={}, **of_run)
    assert readme_tables.faithfulness_lines([older]) == []
    text = "\n".join(readme_tables.faithfulness_lines([older, record])).replace("\xa0", " ")
    assert text.startswith("[mine](results/mine/): faithfulness by method, test; 95 % intervals")
    assert "| LayerCAM | 24 | 2.500 [2.500, 2.500] |" in text
    assert "faster than going from the centre outwards for GradCAM;" in text.replace("\n", " ")
