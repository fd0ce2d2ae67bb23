"""The stage `robustness` on a tiny ensemble: what it writes, that it can be recomputed, and what it refuses."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from sklearn import metrics as sklearn_metrics

from extras import robustness
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS, labels_of
from skinlesion.audits.findings import outdated, read_extra
from skinlesion.audits.robustness import predictions
from skinlesion.audits.robustness.corruptions import STRENGTHS, Condition
from skinlesion.audits.robustness.measures import METRIC_COLUMNS, POINT_COLUMNS, calibration_error, summarize, worst_of
from skinlesion.config.params import load_params
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import Measured, lesion_weights
from skinlesion.evaluation.metrics.calibration_scores import expected_calibration_error, reliability_table
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from tests.conftest import WriteParams, refuses
from tests.data.download_cases import encoded
from tests.model.classifier_cases import POINTS, SCALE, make_config, make_sensitive, save_ensemble, votes, write_decisions
from tests.stage_cases import PATIENT, Run, probabilities_of, stage_runner, with_logits, write_prepared

CPU = torch.device("cpu")
SIZE, IMAGES, DRAWS = 32, 48, 100
COLUMNS = list(PROBABILITY_COLUMNS)


def make_listed() -> pd.DataFrame:
    """Two images a lesion, all diagnoses; their order is not that of the prepared images."""
    labels = np.arange(IMAGES) // 2 % len(CLASSES)
    ids = [(f"ISIC_{number:03d}", f"L{number // 2:02d}") for number in range(IMAGES)]
    frame = pd.DataFrame(ids, columns=["image_id", "lesion_id"]).assign(dx=np.array(CLASSES)[labels], **PATIENT)
    return frame.sample(frac=1, random_state=0, ignore_index=True)


def write_inputs(*, seeds: tuple[int, ...] = (0,), test_time: str = "none") -> None:
    """Everything that the stage reads but params."""
    listed, generator = make_listed(), np.random.default_rng(0)
    prepared_ids = listed["image_id"].sample(frac=1, random_state=1).tolist()
    labels = pd.Index(CLASSES).get_indexer(listed.set_index("image_id").loc[prepared_ids, "dx"])
    colors = generator.uniform(70, 190, (len(CLASSES), 3))[labels] + generator.normal(0, 15, (IMAGES, 3))
    images = colors[:, None, None] + generator.normal(0, 15, (IMAGES, SIZE, SIZE, 3))
    write_prepared(prepared_ids, images)
    prepared = read_prepared()
    clean = np.array(prepared.images[prepared.rows_of(listed["image_id"])])
    configs = [make_config("shufflenet_v2_x0_5", seed=seed, size=SIZE) for seed in seeds]
    save_ensemble([(make_sensitive(config, clean), config) for config in configs])
    logits = votes(clean, flips=test_time == "flips")
    table = with_logits(listed, logits, softmax(SCALE * logits, axis=1))
    write_predictions({"val": table.head(10), "test": table})
    write_decisions(test_time)


@pytest.fixture
def run_stage(workspace: Path, write_params: WriteParams) -> Run:
    """Run the stage with a few images a batch; the content of its metrics."""
    small = {"machine.device": "cpu", "machine.batch_size": 16, "bootstrap.draws": DRAWS, "severities": [1, 5]}
    small["evaluate.test_time"] = "none"
    return stage_runner(write_params, robustness.main, "robustness", metrics="extras/robustness", **small)


def read_tables() -> list[pd.DataFrame]:
    """The tables that the plots are drawn from, of metrics and of operating points."""
    return [pd.read_csv(f"plots/extras/robustness/{name}.csv") for name in ("metrics", "operating_points")]


def predictor() -> predictions.CorruptedPredictions:
    """The predictions that the stage makes with the params of now."""
    params = load_params()
    return predictions.CorruptedPredictions(read_predictions("test"), params.robustness, params.machine, test_time="none")


def cell(table: pd.DataFrame, corruption: str, severity: int, **where: str) -> pd.Series:
    """The one row of a condition and a metric or a point."""
    for name, value in {"corruption": corruption, "severity": severity, **where}.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded(Image.fromarray(image), "JPEG", quality=quality))))


@pytest.mark.parametrize(("seeds", "test_time"), [((0,), "none"), ((0, 1), "flips")])
def test_a_condition_recomputed_by_torch_pillow_and_scikit_learn(run_stage: Run, seeds: tuple[int, ...], test_time: str) -> None:
    write_inputs(seeds=seeds, test_time=test_time)
    found = run_stage(corruptions=["jpeg"], **{"evaluate.test_time": test_time})
    metrics, points = read_tables()
    table = read_predictions("test")
    prepared = read_prepared()
    images = np.stack([jpeg(prepared.images[row], STRENGTHS["jpeg"][4]) for row in prepared.rows_of(table["image_id"])])
    probabilities = softmax(SCALE * votes(images, flips=test_time == "flips"), axis=1)
    labels = labels_of(table)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, probabilities.argmax(axis=1)),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, probabilities.argmax(axis=1)),
        "macro_auc": sklearn_metrics.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "ece": expected_calibration_error(reliability_table(labels, probabilities, 15)),
    }
    for name, value in expected.items():
        assert cell(metrics, "jpeg", 5, metric=name)["value"] == pytest.approx(value, abs=1e-6), name
        assert cell(metrics, "jpeg", 0, metric=name)["value"] == pytest.approx(found["clean"][name], abs=1e-12)
    mel = CLASSES.index("mel")
    for name, point in POINTS.items():
        flagged = probabilities[:, mel] >= point["threshold"]
        row = cell(points, "jpeg", 5, point=name)
        assert row["sensitivity"] == pytest.approx(flagged[labels == mel].mean(), abs=1e-12)
        assert row["specificity"] == pytest.approx((~flagged)[labels != mel].mean(), abs=1e-12)
    # The paired interval by the weights of the bootstrap.
    hits = {"clean": probabilities_of(table).argmax(axis=1) == labels, "jpeg": probabilities.argmax(axis=1) == labels}
    weights = np.concatenate([*lesion_weights(table["lesion_id"], draws=DRAWS, seed=0)])
    drawn = [np.average(hits["jpeg"], weights=row) - np.average(hits["clean"], weights=row) for row in weights]
    row = cell(metrics, "jpeg", 5, metric="accuracy")
    assert [row["difference_low"], row["difference_high"]] == pytest.approx(list(np.quantile(drawn, [0.025, 0.975])), abs=1e-9)
    assert row["difference"] == pytest.approx(hits["jpeg"].mean() - hits["clean"].mean(), abs=1e-12)
    assert row["strength"] == 7


def test_every_condition_stands_in_the_tables_and_the_summary_is_their_mean_until_predictions_change(run_stage: Run) -> None:
    write_inputs()
    found = run_stage(severities=[5, 2])
    metrics, points = read_tables()
    assert tuple(metrics.columns) == METRIC_COLUMNS and tuple(points.columns) == POINT_COLUMNS
    assert list(metrics["corruption"].unique()) == list(found["corruptions"]) == list(STRENGTHS)
    assert set(metrics["metric"]) == {*HEADLINE, "ece"} and set(points["point"]) == set(POINTS)
    assert not metrics.duplicated(["corruption", "severity", "metric"]).any()
    assert set(metrics["severity"]) == {0, 2, 5} and found["severities"] == [2, 5]
    assert (metrics.loc[metrics["severity"] == 0, ["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    corrupted = metrics[metrics["severity"] > 0]
    assert (corrupted["value_low"] <= corrupted["value_high"]).all()
    assert (corrupted.loc[corrupted["metric"] == "accuracy", "difference"] != 0).any()
    for metric in ("accuracy", "macro_auc", "mel_sensitivity", "ece"):
        means = corrupted[corrupted["metric"] == metric].groupby("corruption", sort=False)["value"].mean()
        for name, mean in means.items():
            described = found["corruptions"][name][metric]
            assert described["mean"] == pytest.approx(mean)
            assert described["difference"] == pytest.approx(mean - found["clean"][metric])
            assert described["by_severity"] == pytest.approx([cell(metrics, name, s, metric=metric)["value"] for s in (2, 5)])
            assert described["mean_low"] <= described["mean_high"]
        assert found["mean_corruption"][metric]["mean"] == pytest.approx(means.mean())
        losses = (means - found["clean"][metric]) * (1 if metric == "ece" else -1)
        assert found["worst"][metric] == (losses.idxmax() if losses.max() > 0 else None)
    sensitivity = points[points["severity"] > 0].groupby("point")["sensitivity"].mean()
    assert found["mean_corruption"]["sensitivity@youden"]["mean"] == pytest.approx(sensitivity["youden"])
    assert found["corruptions"]["jpeg"]["strengths"] == [18, 7]
    with Image.open("plots/extras/robustness/examples.png") as page:
        assert page.format == "PNG"
    table, content = read_predictions("test"), read_extra("robustness")
    assert found["clean"]["accuracy"] == pytest.approx((probabilities_of(table).argmax(axis=1) == labels_of(table)).mean())
    assert (found["images"], found["lesions"], found["side"]) == (IMAGES, IMAGES // 2, SIZE)
    assert content is not None and outdated(content) == []
    write_predictions({"val": table.head(10), "test": table.head(20)})
    assert outdated(content) == ["predictions"]


def test_neither_batches_nor_chunks_matter_and_the_seed_does(run_stage: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs()
    noise, jpeg_only = {"corruptions": ["noise"], "severities": [1]}, {"corruptions": ["jpeg"], "severities": [1]}
    run_stage(**noise)
    first = read_tables()[0]
    monkeypatch.setattr(predictions, "CHUNK_BYTES", 1)
    run_stage(**noise | {"machine.batch_size": 7})
    assert read_tables()[0]["value"].to_numpy() == pytest.approx(first["value"].to_numpy(), abs=1e-5)
    condition, predict = Condition("noise", 1, 0.08), predictor()
    assert predict.chunk == 7
    run_stage(**noise, seed=1)
    noisy, other = (each(condition)[COLUMNS].to_numpy() for each in (predict, predictor()))
    assert np.abs(other - noisy).max() > 1e-4
    run_stage(**jpeg_only)
    values, intervals = read_tables()[0]["value"], read_tables()[0]["value_low"]
    run_stage(**jpeg_only | {"bootstrap.seed": 1})
    assert read_tables()[0]["value"].equals(values) and not read_tables()[0]["value_low"].equals(intervals)


def test_a_classifier_of_another_run_is_refused(run_stage: Run) -> None:
    write_inputs()
    table = read_predictions("test")

    def shift(by: float) -> None:
        moved = table.copy()
        moved.loc[3, COLUMNS[:2]] += np.array([-by, by])
        write_predictions({"val": table.head(10), "test": moved})

    shift(5e-4)
    message = rf"classifier and predictions are not of one run: .*{table['image_id'][3]} .* 0\.0005 .*test.csv: run `dvc repro`"
    refuses(message, run_stage, corruptions=["hue"])
    assert not Path("metrics/extras/robustness.json").exists() and not Path("plots/extras/robustness").exists()
    shift(5e-5)  # rounding
    run_stage(corruptions=["hue"], severities=[1])


MODELS = ("models/operating_points.json", "models/calibration.json", "models/classifier/ensemble.json")


@pytest.mark.parametrize("path", ["data/predictions/test.csv", *MODELS, "data/prepared/images.npy"])
def test_a_missing_input_is_named(run_stage: Run, path: str) -> None:
    write_inputs()
    Path(path).unlink()
    refuses(rf"{path} not found", run_stage, corruptions=["hue"])


def test_a_test_list_without_the_target_is_refused(run_stage: Run) -> None:
    write_inputs()
    table = read_predictions("test").replace({"dx": {"mel": "nv"}})
    write_predictions({"val": table.head(10), "test": table})
    refuses(r"test: none of the 48 images show the target \(mel\)", run_stage, corruptions=["hue"])


def test_weighted_ece_equals_that_of_copies() -> None:
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(7, size=60), softmax(2 * generator.normal(size=(60, 7)), axis=1)
    weights = generator.integers(0, 4, (3, 60))
    ours = calibration_error(labels, probabilities, 10)(weights.astype(float))["ece"]
    for value, weight in zip(ours, weights, strict=True):
        copies = reliability_table(np.repeat(labels, weight), np.repeat(probabilities, weight, axis=0), 10)
        assert value == pytest.approx(expected_calibration_error(copies), abs=1e-12)


def make_measured(accuracy: float, drawn: list[float]) -> Measured:
    names = ("accuracy", "macro_auc", "mel_sensitivity", "ece", "sensitivity@youden")
    return Measured(dict.fromkeys(names, accuracy), {name: np.array(drawn) for name in names})


def test_the_summary_by_hand() -> None:
    clean = make_measured(0.9, [0.8, 1.0])
    conditions = {
        Condition("blur", 1, 0.1): make_measured(0.8, [0.7, 0.9]),
        Condition("blur", 5, 0.2): make_measured(0.6, [0.3, 0.9]),
        Condition("hair", 1, 4): make_measured(0.5, [0.4, 0.6]),
        Condition("hair", 5, 64): make_measured(0.7, [0.6, 0.8]),
    }
    found = summarize(conditions, clean, confidence=0.9)
    blur, mean = found["corruptions"]["blur"]["accuracy"], found["mean_corruption"]["sensitivity@youden"]
    assert blur["by_severity"] == [0.8, 0.6] and blur["mean"] == pytest.approx(0.7)
    # Draws of the mean .5 and .9, of the difference from clean -.3 and -.1.
    assert (blur["mean_low"], blur["mean_high"]) == pytest.approx((0.52, 0.88))
    assert (blur["difference"], blur["difference_low"], blur["difference_high"]) == pytest.approx((-0.2, -0.29, -0.11))
    assert (mean["mean"], mean["difference"]) == pytest.approx((0.65, -0.25))
    assert found["worst"] == {"accuracy": "hair", "macro_auc": "hair", "mel_sensitivity": "hair", "ece": None}
    assert worst_of({"a": 0.5, "b": float("nan")}, 0.7, "accuracy") is None
    assert worst_of({"a": 0.5, "b": 0.5}, 0.7, "accuracy") == "a"
    assert worst_of({"a": 0.7, "b": 0.8}, 0.7, "accuracy") is None
