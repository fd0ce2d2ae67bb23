"""The stages that read prediction tables, on tables in which something cannot be measured: a value, a null, or one message."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.decisions import OPERATING_POINTS, write_calibration
from skinlesion.evaluation.results.predictions import PREDICTIONS, write_predictions
from stages import failures, selective, subgroups, threshold_sweep
from tests.conftest import WriteParams, refuses
from tests.evaluation.test_subgroups import make_predictions, write_inputs
from tests.stage_cases import read_metrics

TEST = PREDICTIONS / "test.csv"
STAGES = (threshold_sweep, selective, subgroups, failures)
NEVUS = {"threshold_sweep.target": "nv"}


def without(table: pd.DataFrame, *dx: str) -> pd.DataFrame:
    return table[~table["dx"].isin(dx)]


def one_lesion(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["dx"] == "mel"].head(2).assign(lesion_id="L")


def undecided(table: pd.DataFrame) -> pd.DataFrame:
    """Every class as probable as any other, in every image."""
    return table.assign(**dict.fromkeys(LOGIT_COLUMNS, 0.0), **dict.fromkeys(PROBABILITY_COLUMNS, 1 / len(CLASSES)))


@pytest.fixture
def write_tables(workspace: Path, write_params: WriteParams) -> Callable[..., None]:
    """Write params with `overrides`, raw metadata, a calibration that changes nothing, and the tables of validation and test."""

    def write(val: pd.DataFrame, test: pd.DataFrame, overrides: dict[str, Any] | None = None) -> None:
        write_params({"bootstrap.draws": 100} | (overrides or {}))
        write_inputs(make_predictions(300))
        calibration = {"method": "temperature", "scale": [1.0] * 7, "bias": [0.0] * 7, "fitted_on": "val"}
        write_calibration(calibration | {"test_time": "none"})
        write_predictions({"val": val, "test": test})

    return write


@pytest.fixture
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Validation and test with every class, of other lesions each."""
    test = make_predictions(300)
    val = test.assign(image_id="V" + test["image_id"], lesion_id="V" + test["lesion_id"])
    return val, test


WriteTables = Callable[..., None]
Tables = tuple[pd.DataFrame, pd.DataFrame]


def run(stage: ModuleType) -> dict[str, Any]:
    """Run a stage, any warning of a division by nothing being an error; its metrics."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stage.main()
    return read_metrics(stage.__name__.rpartition(".")[2])


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_is_absent_leaves_every_other_figure(tables: Tables, write_tables: WriteTables, split: str) -> None:
    val, test = tables
    write_tables(without(val, "df") if split == "val" else val, without(test, "df") if split == "test" else test)
    message = {stage.__name__: run(stage) for stage in STAGES}
    sets = message["stages.selective"]["conformal"]["0.9"]["test"]
    assert (sets["coverage_df"] is None) == (split == "test")
    assert sets["coverage_mel"] is not None
    assert 0 < message["stages.subgroups"]["all"]["macro_auc"] <= 1


@pytest.mark.parametrize("split", ["val", "test"])
def test_without_melanoma_no_operating_point_and_the_rest_null(tables: Tables, write_tables: WriteTables, split: str) -> None:
    val, test = tables
    write_tables(*(without(table, "mel") if name == split else table for name, table in (("val", val), ("test", test))))
    refuses(f"{split}: none of the .* choose another threshold_sweep.target", run, threshold_sweep)
    grouped, answered = run(subgroups)["all"], run(selective)["abstention"]["0.9"]["test"]
    assert (grouped["mel_sensitivity"] is None) == (answered["melanomas_answered"] is None) == (split == "test")


def test_without_melanoma_none_is_missed(tables: Tables, write_tables: WriteTables) -> None:
    val, test = tables
    write_tables(val, without(test, "mel"), NEVUS)
    run(threshold_sweep)
    counted = run(failures)
    assert counted["melanomas"] == {"images": 0, "lesions": 0} and counted["missed_melanomas"]["images"] == 0


def test_one_lesion_has_intervals_of_no_width_and_no_operating_point(tables: Tables, write_tables: WriteTables) -> None:
    val, test = tables
    write_tables(val, one_lesion(test))
    refuses("test: all of the 2 images show the target", run, threshold_sweep)
    measured = run(subgroups)["all"]
    assert measured["lesions"] == 1 and measured["macro_auc"] is None and measured["mel_specificity"] is None
    assert measured["intervals"]["accuracy"] == {"low": measured["accuracy"], "high": measured["accuracy"]}
    assert run(selective)["conformal"]["0.9"]["test"]["coverage"] is not None


def test_equal_scores_are_flagged_together_and_answered_together(tables: Tables, write_tables: WriteTables) -> None:
    val, test = (undecided(table) for table in tables)
    write_tables(val, test, {"threshold_sweep.specificity_constraints": []})
    swept = run(threshold_sweep)
    for point in swept["points"].values():
        assert (point["test"]["sensitivity"], point["test"]["specificity"], point["test"]["flagged"]) == (1, 0, 1)
    assert swept["test"]["auc"] == 0.5
    answered = run(selective)
    assert all(point["test"]["coverage"] == 1 for point in answered["abstention"].values())
    assert run(subgroups)["all"]["macro_auc"] == 0.5
    assert run(failures)["confident_errors"]["images"] == 0


def test_a_constraint_that_equal_scores_cannot_meet_is_named(tables: Tables, write_tables: WriteTables) -> None:
    val, test = (undecided(table) for table in tables)
    write_tables(val, test)
    refuses(r"specificity_constraints: no threshold reaches a specificity of 0\.9 .*ask for less", run, threshold_sweep)
    assert not OPERATING_POINTS.exists()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_number_that_is_missing_stops_every_stage(tables: Tables, write_tables: WriteTables, stage: ModuleType) -> None:
    write_tables(*tables)
    run(threshold_sweep)
    damaged = pd.read_csv(TEST, dtype="str", keep_default_na=False)
    damaged.loc[3, "probability_mel"] = "nan"
    damaged.to_csv(TEST, index=False)
    refuses(r"test\.csv: logits must be finite .* offending: I00003", run, stage)


def test_columns_in_another_order_are_read_by_their_names(tables: Tables, write_tables: WriteTables) -> None:
    write_tables(*tables)
    before = [run(stage) for stage in STAGES]
    table = pd.read_csv(TEST, dtype="str", keep_default_na=False)
    table[sorted(table.columns, reverse=True)].to_csv(TEST, index=False)
    assert [run(stage) for stage in STAGES] == before


def test_numbers_under_the_name_of_another_class_are_noticed(tables: Tables, write_tables: WriteTables) -> None:
    write_tables(*tables)
    header, rows = TEST.read_text(encoding="utf-8").split("\n", 1)
    names = [{"probability_mel": "probability_nv", "probability_nv": "probability_mel"}.get(x, x) for x in header.split(",")]
    TEST.write_text(",".join(names) + "\n" + rows, encoding="utf-8")
    refuses(r"test\.csv: the probabilities of I00000.* another order than", run, selective)
