"""Comparing two runs on the same images: the differences, how sure they are, where the tables come from, what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from skinlesion import compare as command
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.metrics.pairing import compare, p_value, pair
from skinlesion.evaluation.results.predictions import write_predictions
from tests.conftest import refuses, resamples
from tests.stage_cases import PATIENT, predicted_of, with_logits


def make_table(seed: int, *, lesions: int = 120, signal: float = 1.5, truth_seed: int = 0) -> pd.DataFrame:
    """Predictions of one or two images a lesion; the truth depends on `truth_seed`, what is predicted on `seed` too.

    Half of the noise is the lesion's, so that its images are not independent.
    """
    truth = np.random.default_rng(truth_seed)
    dx = truth.choice(CLASSES, size=lesions)
    views = np.repeat(np.arange(lesions), 1 + np.arange(lesions) % 2)
    noise = np.random.default_rng([truth_seed, seed])
    logits = noise.normal(size=(lesions, 7))[views] + noise.normal(size=(len(views), 7))
    logits += signal * (dx[views][:, None] == np.array(CLASSES))
    names = {"image_id": [f"ISIC_{row:07d}" for row in range(len(views))], "lesion_id": [f"L{lesion:04d}" for lesion in views]}
    return with_logits(pd.DataFrame(names | {"dx": dx[views]}).assign(**PATIENT), logits)


def write_folder(folder: Path, table: pd.DataFrame) -> Path:
    write_predictions({"val": table.head(40), "test": table}, folder)
    return folder


def accuracy(table: pd.DataFrame, weights: np.ndarray | None = None) -> float:
    return float(accuracy_score(table["dx"], predicted_of(table), sample_weight=weights))


def macro_auc(table: pd.DataFrame) -> float:
    return float(np.mean([roc_auc_score(table["dx"] == dx, table[f"probability_{dx}"]) for dx in CLASSES]))


def test_differences_are_those_of_scikit_learn_and_draws_are_shared() -> None:
    first, second = make_table(1), make_table(2, signal=2.0)
    table = compare(pair(first, second), resamples(150, seed=3, confidence=0.9)).set_index("metric")
    assert tuple(table.index) == (*HEADLINE, *(f"f1_{dx}" for dx in CLASSES))
    for name, metric in (("accuracy", accuracy), ("macro_auc", macro_auc)):
        expected = [metric(first), metric(second), metric(second) - metric(first)]
        np.testing.assert_allclose(table.loc[name, ["first", "second", "difference"]].astype(float), expected, atol=1e-12)
    weights = np.concatenate(list(lesion_weights(first["lesion_id"], draws=150, seed=3)))
    drawn = np.array([accuracy(second, row) - accuracy(first, row) for row in weights])
    np.testing.assert_allclose(table.loc["accuracy", ["low", "high"]].astype(float), np.quantile(drawn, [0.05, 0.95]), atol=1e-12)
    assert table.loc["accuracy", "p"] == pytest.approx(p_value(drawn))


def test_a_table_compared_with_itself_in_another_order_differs_in_nothing() -> None:
    table = make_table(1)
    same = compare(pair(table, table.sample(frac=1, random_state=0)), resamples(100))
    assert (same[["difference", "low", "high"]] == 0).all(axis=None) and (same["p"] == 1).all()


def test_p_of_hand_made_draws() -> None:
    assert p_value(np.arange(1.0, 100.0)) == pytest.approx(2 * 1 / 100)
    assert p_value(-np.arange(1.0, 100.0)) == pytest.approx(2 * 1 / 100)
    assert p_value(np.array([-1.0, 0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])) == pytest.approx(2 * 3 / 10)
    assert p_value(np.array([-1.0, 1.0, np.nan])) == 1.0
    assert np.isnan(p_value(np.full(3, np.nan)))


def test_equal_models_are_told_apart_as_often_as_p_says() -> None:
    rejected = []
    for trial in range(300):
        table = compare(pair(*(make_table(seed, truth_seed=trial) for seed in (1, 2))), resamples(100, seed=trial))
        rejected.append(table.set_index("metric").loc[["accuracy", "macro_auc"], "p"].le(0.1))
    shares = np.mean(rejected, axis=0)
    assert ((shares > 0.05) & (shares < 0.155)).all(), shares  # three standard errors around 10 %


def test_a_better_model_is_seen_and_a_class_that_is_absent_is_undefined() -> None:
    better = compare(pair(make_table(1, signal=0.5), make_table(2, signal=3)), resamples(200)).set_index("metric")
    assert better.loc["macro_auc", "low"] > 0 and better.loc["macro_auc", "p"] < 0.02
    without = [table[table["dx"] != "df"] for table in (make_table(1), make_table(2))]
    missing = compare(pair(*without), resamples(100)).set_index("metric")
    assert missing.loc["f1_df"].isna().all() and missing.drop(index="f1_df").notna().all(axis=None)


def test_the_command_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make_table(1), make_table(2, signal=2.0)
    folders = [str(write_folder(tmp_path / "a" / "predictions", first).parent), str(write_folder(tmp_path / "b", second))]
    command.main([*folders, "--draws", "200", "--json"])
    described = json.loads(capsys.readouterr().out)
    assert described["metrics"]["accuracy"]["difference"] == pytest.approx(accuracy(second) - accuracy(first), abs=1e-12)
    assert (described["images"], described["lesions"], described["split"]) == (180, 120, "test")
    assert described["bootstrap"] == {"draws": 200, "unit": "lesion", "confidence": 0.95, "seed": 0}
    command.main([*folders, "--split", "val", "--draws", "200"])
    message = capsys.readouterr().out
    assert f"A {folders[0]}\nB {folders[1]}\n" in message and "val split, 40 images of 27 lesions." in message
    row = next(line for line in message.splitlines() if line.startswith("accuracy"))
    assert row.split()[1:4] == [f"{accuracy(first.head(40)):.3f}", f"{accuracy(second.head(40)):.3f}", row.split()[3]]
    assert float(row.split()[3]) == pytest.approx(accuracy(second.head(40)) - accuracy(first.head(40)), abs=6e-4)


def test_a_table_that_a_spreadsheet_saved_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (write_folder(tmp_path / name, make_table(1)) for name in "ab")
    table = pd.read_csv(second / "test.csv", dtype=str, keep_default_na=False)
    numbers = [name for name in table if name.startswith(("logit_", "probability_", "age"))]
    table[numbers] = table[numbers].apply(lambda column: column.str.replace(".", ","))
    table.to_csv(second / "test.csv", index=False, sep=";", encoding="utf-16")
    command.main([str(first), str(second), "--draws", "100", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["metrics"]["macro_auc"]["difference"] == 0.0


def test_tables_that_cannot_be_paired_are_refused() -> None:
    table = make_table(1)
    refuses(r"2 of 180 images are in the second table alone \(ISIC_0000000, ISIC_0000001\)", lambda: pair(table.iloc[2:], table))
    refuses("1 of 180 images are in the first table alone", lambda: pair(table, table.iloc[:-1]))
    moved = table.assign(lesion_id=table["lesion_id"].where(table["image_id"] != "ISIC_0000003", "other"))
    refuses("differ in lesion_id of ISIC_0000003: they are not of one data set and split", pair, table, moved)
    refuses("differ in dx of", lambda: pair(table, table.assign(dx=np.roll(table["dx"], 1))))


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuses(r"none of main/predictions/test.csv, .* exists \(for a revision .* add --rev\)", command.main, ["main", "other"])
    (tmp_path / "empty").mkdir()
    refuses(r"none of .*empty/data/predictions/test.csv, .* exists$", command.main, ["empty", "other"])
    refuses("revision 'no-such' cannot be read", command.main, ["--rev", "no-such", "workspace"])
    refuses(r"data/predictions/test.csv not found", command.main, ["--rev", "workspace", "workspace"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--draws", "99", "argument --draws: Input should be greater than or equal to 100, not '99'"),
        ("--seed", "-1", "argument --seed: Input should be greater than or equal to 0, not '-1'"),
        ("--confidence", "95", "argument --confidence: Input should be less than 1, not '95.0'"),
        ("--confidence", "high", "argument --confidence: invalid float value: 'high'"),
        ("--split", "train", "invalid choice: 'train'"),
    ],
)
def test_impossible_options_are_refused(option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.parse_arguments(["a", "b", f"{option}={value}"])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_revision_whose_tables_are_nowhere(workspace: Path) -> None:
    """As in a fresh clone without a remote: dvc.lock names the folder, and nobody has it."""
    (workspace / "dvc.yaml").write_text("stages: {evaluate: {cmd: 'true', outs: [data/predictions]}}", encoding="utf-8")
    out = "{path: data/predictions, md5: 00000000000000000000000000000000.dir, size: 1, nfiles: 2, hash: md5}"
    lock = f"{{schema: '2.0', stages: {{evaluate: {{cmd: 'true', outs: [{out}]}}}}}}"
    (workspace / "dvc.lock").write_text(lock, encoding="utf-8")
    name = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", *name, "commit", "--quiet", "--message", "results elsewhere"], check=True)
    message = r"val.csv of revision 'HEAD' cannot be read: .* comes with `dvc pull`"
    refuses(message, command.main, ["--rev", "HEAD", "workspace", "--split", "val"])
