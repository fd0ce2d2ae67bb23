"""The stage `subgroups`: every cell against scikit-learn, what is small, who is worst, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from skinlesion.artifacts.tables import METADATA_COLUMNS, PROBABILITY_COLUMNS, write_table
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.subgroups import COLUMNS, METRICS, age_bands, flag_small, worst_groups
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.results.predictions import write_predictions
from stages import subgroups
from tests.conftest import WriteParams
from tests.stage_cases import predicted_of, stage_runner, with_logits

DRAWS = 150


def make_predictions(images: int = 400) -> pd.DataFrame:
    """Two images a lesion; the men's are harder, follow-up is nevi alone, some values are missing."""
    generator = np.random.default_rng(0)
    lesions = np.arange(images) // 2
    labels = generator.choice(7, images // 2, p=[0.05, 0.06, 0.12, 0.04, 0.2, 0.48, 0.05])[lesions]
    sex = np.array(["female", "male", "unknown"])[generator.choice(3, images // 2, p=[0.5, 0.47, 0.03])[lesions]]
    logits = generator.normal(size=(images, 7))
    logits[np.arange(images), labels] += np.where(sex == "male", 0.7, 2.0)
    ages = np.where(lesions % 20 == 3, np.nan, 5.0 * (lesions % 18))
    frame = pd.DataFrame(
        {
            "image_id": [f"I{number:05d}" for number in range(images)],
            "lesion_id": [f"L{lesion:05d}" for lesion in lesions],
            "dx": np.array(CLASSES)[labels],
            "age": ages,
            "sex": sex,
            "localization": np.array(["back", "face"])[lesions % 2],
            "dx_type": np.where((labels == CLASSES.index("nv")) & (lesions % 3 > 0), "follow_up", "histo"),
        }
    )
    return with_logits(frame, logits)


def write_inputs(predictions: pd.DataFrame, source: pd.Series | None = None) -> None:
    """The prediction tables and the raw metadata, with the column `dataset` if `source` is given."""
    write_predictions({"val": predictions.head(20), "test": predictions})
    metadata = predictions[list(METADATA_COLUMNS)]
    columns = list(METADATA_COLUMNS)
    if source is not None:
        metadata, columns = metadata.assign(dataset=source), [*columns, "dataset"]
    Path("data/raw").mkdir(parents=True, exist_ok=True)
    write_table(metadata.sample(frac=1, random_state=0), Path("data/raw/metadata.csv"), columns)


@pytest.fixture
def run_stage(workspace: Path, write_params: WriteParams) -> Callable[..., tuple[dict[str, Any], pd.DataFrame]]:
    """Run the stage with overrides; metrics and the table of groups."""

    run = stage_runner(write_params, subgroups.main, "subgroups", **{"bootstrap.draws": DRAWS})
    return lambda **overrides: (run(**overrides), pd.read_csv("plots/subgroups/groups.csv"))


Run = Callable[..., tuple[dict[str, Any], pd.DataFrame]]


def cell(table: pd.DataFrame, attribute: str, group: str, metric: str) -> pd.Series:
    """The one row of a group and metric."""
    (row,) = table.query("attribute == @attribute and group == @group and metric == @metric").itertuples(index=False)
    return pd.Series(row._asdict())


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_every_cell_is_what_scikit_learn_gives_for_its_images(run_stage: Run) -> None:
    predictions = make_predictions()
    write_inputs(predictions)
    metrics, table = run_stage()
    assert tuple(table.columns) == COLUMNS and not table.duplicated(["attribute", "group", "metric"]).any()
    assert table.groupby("attribute")["group"].unique().map(list).to_dict() == {
        "age": ["below 30", "30 to below 50", "50 to below 70", "70 and over", "unknown"],
        "sex": ["female", "male", "unknown"],
        "localization": ["back", "face"],
        "dx_type": ["follow_up", "histo"],
    }
    counted = table.drop_duplicates(["attribute", "group"]).groupby("attribute")["images"].sum()
    assert (counted == len(predictions)).all()
    chosen = {
        ("sex", "male"): predictions["sex"] == "male",
        ("age", "30 to below 50"): predictions["age"].ge(30) & predictions["age"].lt(50),
        ("dx_type", "histo"): predictions["dx_type"] == "histo",
    }
    for (attribute, group), rows in chosen.items():
        part = predictions[rows]
        expected = {
            "accuracy": accuracy_score(part["dx"], predicted_of(part)),
            "balanced_accuracy": balanced_accuracy_score(part["dx"], predicted_of(part)),
            "macro_auc": np.mean([roc_auc_score(part["dx"] == dx, part[f"probability_{dx}"]) for dx in part["dx"].unique()]),
            "mel_auc": roc_auc_score(part["dx"] == "mel", part["probability_mel"]),
            "mel_sensitivity": (predicted_of(part)[part["dx"] == "mel"] == "mel").mean(),
        }
        for metric, value in expected.items():
            row = cell(table, attribute, group, metric)
            assert row["value"] == pytest.approx(value, abs=1e-9), (group, metric)
            assert (row["images"], row["lesions"]) == (len(part), part["lesion_id"].nunique())
            assert row["melanoma_lesions"] == part.loc[part["dx"] == "mel", "lesion_id"].nunique()
    men = predictions[predictions["sex"] == "male"]
    hits = (predicted_of(men) == men["dx"]).to_numpy()
    drawn = [np.average(hits, weights=row) for row in np.concatenate([*lesion_weights(men["lesion_id"], draws=DRAWS, seed=0)])]
    row = cell(table, "sex", "male", "accuracy")
    assert [row["low"], row["high"]] == pytest.approx(list(np.quantile(drawn, [0.025, 0.975])), abs=1e-9)
    histology = cell(table, "dx_type", "histo", "accuracy")
    assert metrics["histology_only"]["accuracy"] == pytest.approx(histology["value"], abs=1e-12)
    assert metrics["histology_only"]["intervals"]["accuracy"]["low"] == pytest.approx(histology["low"], abs=1e-12)
    assert metrics["all"]["accuracy"] == pytest.approx(accuracy_score(predictions["dx"], predicted_of(predictions)), abs=1e-12)


def test_the_worst_group_is_named_and_neither_small_nor_unknown_nor_a_way_of_diagnosis(run_stage: Run) -> None:
    predictions = make_predictions()
    # The acquisition source of a few images, all wrong, would be the worst group by far, as would the images of unknown sex.
    wrong = predictions["lesion_id"].isin(predictions["lesion_id"].unique()[:12])
    source = pd.Series(np.where(wrong, "tiny", "vidir"), predictions.index)
    poor = wrong | (predictions["sex"] == "unknown")
    columns = list(PROBABILITY_COLUMNS)
    predictions.loc[poor, columns] = np.roll(np.eye(7)[pd.Index(CLASSES).get_indexer(predictions.loc[poor, "dx"])], 1, axis=1)
    write_inputs(predictions, source)
    metrics, table = run_stage(min_lesions=13, min_melanomas=5)
    assert cell(table, "dataset", "tiny", "accuracy")["value"] == 0 and cell(table, "dataset", "tiny", "accuracy")["small"]
    assert cell(table, "sex", "unknown", "accuracy")["value"] == 0
    worst = metrics["worst"]["accuracy"]
    assert (worst["attribute"], worst["group"]) == ("sex", "male")
    row = cell(table, "sex", "male", "accuracy")
    assert all(worst[name] == row[name] for name in ("value", "low", "high", "lesions"))
    metrics, table = run_stage(min_lesions=12, min_melanomas=5)
    assert (metrics["worst"]["accuracy"]["attribute"], metrics["worst"]["accuracy"]["group"]) == ("dataset", "tiny")


def test_a_group_without_melanoma_has_no_melanoma_figures_and_is_not_hidden(run_stage: Run) -> None:
    write_inputs(make_predictions())
    metrics, table = run_stage()
    row = cell(table, "dx_type", "follow_up", "mel_auc")
    assert row[["value", "low", "high"]].isna().all() and row["small"] and row["melanoma_lesions"] == 0
    assert not cell(table, "dx_type", "follow_up", "accuracy")["small"]
    assert set(metrics["worst"]) == set(METRICS)


def test_without_histology_its_headline_is_null(run_stage: Run) -> None:
    write_inputs(make_predictions().assign(dx_type="consensus"))
    assert run_stage()[0]["histology_only"] is None


def test_bands_begin_where_params_say(run_stage: Run) -> None:
    bands = age_bands(pd.Series([0.0, 29.9, 30.0, 64.5, 65.0, 100.0, np.nan]), [30, 65])
    assert list(bands) == ["below 30", "below 30", "30 to below 65", "30 to below 65", "65 and over", "65 and over", "unknown"]
    write_inputs(make_predictions())
    ages = run_stage(age_bands=[62.5])[1].query("attribute == 'age'")
    assert list(ages["group"].unique()) == ["below 62.5", "62.5 and over", "unknown"]


def test_small_depends_on_melanomas_in_their_metrics_alone() -> None:
    rows = pd.DataFrame({"metric": ["accuracy", "mel_auc"] * 2, "lesions": [30, 30, 29, 29], "melanoma_lesions": [9, 9, 10, 10]})
    assert flag_small(rows, min_lesions=30, min_melanomas=10).tolist() == [False, True, True, True]
    assert flag_small(rows, min_lesions=29, min_melanomas=9).tolist() == [False] * 4


def test_where_every_group_is_small_none_is_the_worst(run_stage: Run) -> None:
    write_inputs(make_predictions())
    metrics, table = run_stage(min_lesions=1000)
    assert set(metrics["worst"].values()) == {None}
    assert table["small"].all() and worst_groups(table) == metrics["worst"]


def test_seed_and_confidence_change_intervals_alone(run_stage: Run) -> None:
    write_inputs(make_predictions())
    changes: list[dict[str, Any]] = [{}, {"bootstrap.confidence": 0.6}, {"bootstrap.seed": 1}]
    first, narrow, other = (run_stage(**each)[1] for each in changes)
    for table in (narrow, other):
        assert table["value"].equals(first["value"]) and not table["low"].equals(first["low"])
    width = (first["high"] - first["low"]).sum()
    assert (narrow["high"] - narrow["low"]).sum() < 0.6 * width
