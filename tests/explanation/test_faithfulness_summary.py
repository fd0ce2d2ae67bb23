"""What is said of measured maps: means with intervals over lesions, verdicts, the sanity check."""

import numpy as np
import pandas as pd
import pytest

from skinlesion.explanation.cam import energy, summary
from skinlesion.explanation.cam.faithfulness import FIGURES
from tests.conftest import resamples

LESIONS = pd.Series([f"L{number}" for number in range(12)])

HOW = resamples(1000)


def measured_figures(**columns: list[float]) -> pd.DataFrame:
    """A table of figures of twelve lesions, four values three times over, NaN where nothing is given."""
    return pd.DataFrame({name: columns.get(name.replace(" ", "_"), [np.nan] * 4) * 3 for name in FIGURES})


def test_summary_by_hand() -> None:
    energy = {"energy": [2, 4, np.nan, 6], "energy_other": [1, 1, 7, np.nan]}
    deletion = {"deletion": [0.2] * 4, "deletion_random": [0.5, 0.4, 0.5, 0.4], "deletion_center": [0.2] * 4}
    figures = measured_figures(**energy, pointing=[1, 0, 1, 1], pointing_center=[1] * 4, **deletion)
    first = np.arange(12) == 0
    groups = {"all": np.ones(12, dtype=bool), "first": first, "none": np.zeros(12, dtype=bool)}
    found = summary.summarize_groups(figures, LESIONS, groups, HOW)
    energy = found["all"]["energy"]
    assert (energy["images"], energy["lesions"], energy["value"]) == (9, 9, 4)
    assert energy["low"] < 4 < energy["high"]
    # The control is compared where both are defined; six lesions are too few for a verdict.
    against = energy["other"]
    assert (against["images"], against["value"], against["difference"], against["verdict"]) == (6, 1, 2, "undecided")
    # One lesion, drawn again and again, has no interval.
    assert found["first"]["energy"] == {
        "images": 1,
        "lesions": 1,
        "value": 2,
        "low": None,
        "high": None,
        "other": dict.fromkeys(("images", "value", "difference"), 1)
        | {"difference_low": None, "difference_high": None, "verdict": "undecided"},
    }
    assert found["all"]["pointing"]["center"]["verdict"] == "undecided"
    assert found["all"]["deletion"]["random"]["verdict"] == "better"  # less is better
    assert found["all"]["deletion"]["random"]["difference"] == pytest.approx(-0.25)
    assert found["all"]["deletion"]["center"]["verdict"] == "undecided"
    assert found["none"]["energy"]["images"] == 0
    assert {found["none"]["energy"][name] for name in ("value", "low", "high")} == {None}
    assert found["none"]["energy"]["other"]["verdict"] is None
    assert found["all"]["flip"]["value"] is None


def test_intervals_are_over_lesions_not_images() -> None:
    """One lesion with ten images has no spread over lesions, however much its images differ."""
    table = pd.DataFrame({"lesion_id": "L", "dx": "nv", "outcome": "correct", "energy_ratio": np.arange(10.0)})
    tables = (table, table.assign(lesion_id=[f"L{number}" for number in range(10)]))
    one, ten = (summary.mean_intervals(each[["energy_ratio"]].to_numpy(), each["lesion_id"], HOW)[0] for each in tables)
    one_ratio, ten_ratio = (energy.summarize_energy(each, HOW)["energy_ratio"] for each in tables)
    assert one == {"images": 10, "lesions": 1, "value": 4.5, "low": None, "high": None}
    assert one_ratio == dict.fromkeys(("mean", "median", "low", "high"), 4.5)
    for spread in (ten, ten_ratio):
        # The mean of 10 of 0..9 has a standard error of 0.91: about 4.5 +- 1.78.
        assert (spread["low"], spread["high"]) == (pytest.approx(2.7, abs=0.25), pytest.approx(6.3, abs=0.25))


@pytest.mark.parametrize(
    ("correlations", "passed"),
    [
        ([0.1, 0.0, -0.1, 0.2], True),
        ([0.9, 0.8, 0.9, 0.7], False),
        ([0.9, -0.9, 0.9, -0.9], False),  # turned upside down is not forgotten, though the mean is 0
        ([0.8, 0.1, 0.2, 0.3], False),  # the mean square lies below the limit, but its interval does not
        ([0.1, np.nan, np.nan, np.nan], None),  # three maps in four rank nothing
        ([np.nan] * 4, None),
    ],
)
def test_sanity_check(correlations: list[float], passed: bool | None) -> None:
    figures = measured_figures(shuffled=correlations, shuffled_head=[0.9] * 4)
    found = summary.judge_sanity(figures, LESIONS, HOW)
    assert (found["passed"], found["limit"]) == (passed, 0.25)
    assert list(found["by_depth"]) == ["head", "last quarter", "last half", "last three quarters", "all layers"]
    assert found["by_depth"]["head"]["value"] == pytest.approx(0.9)
    assert found["by_depth"]["head"]["shared"]["value"] == pytest.approx(0.81)
    assert found["by_depth"]["all layers"]["without_ranks"] == np.isnan(correlations).mean()
    assert found["by_depth"]["last half"]["value"] is None


def test_few_lesions_pass_no_sanity_check() -> None:
    six = pd.Series([f"L{number // 2}" for number in range(12)])
    assert summary.judge_sanity(measured_figures(shuffled=[0.1] * 4), six, HOW)["passed"] is None
