"""Classifiers that see little: their features by hand, what they can and cannot learn, and the stage."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.baselines import color_histograms, color_model, fit_predict, metadata_model
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.results.predictions import write_predictions
from stages import baselines
from tests.conftest import WriteParams, refuses
from tests.stage_cases import PATIENT, Run, stage_runner, with_logits, write_lists, write_prepared

SIZE = 16
FOUND = ("akiec", "mel", "nv")


def make_frame(split: str, *, seed: int, images: int) -> pd.DataFrame:
    """Images of three diagnoses; melanomas are of the old, and there is nothing else in the metadata."""
    generator = np.random.default_rng(seed)
    dx = generator.choice(FOUND, images)
    ages = np.where(dx == "mel", 75.0, 40.0) + generator.integers(-2, 3, images)
    names = {"image_id": [f"{split}_{row}" for row in range(images)], "dx": dx}
    lesions = [f"{split}_L{row // 2}_{name}" for row, name in enumerate(dx)]
    return pd.DataFrame(names).assign(lesion_id=lesions, **PATIENT | {"age": ages})


def write_inputs(frames: dict[str, pd.DataFrame]) -> None:
    """Lists, prepared images in which nevi alone are brown, and predictions that are always right."""
    write_lists(frames)
    everything = pd.concat(frames.values(), ignore_index=True)
    generator = np.random.default_rng(3)
    base = np.where((everything["dx"] == "nv").to_numpy()[:, None], [150, 90, 50], [200, 150, 150])[:, None, None]
    write_prepared(everything["image_id"], base + generator.normal(0, 8, (len(everything), SIZE, SIZE, 3)))
    right = {split: 4.0 * (frames[split]["dx"].to_numpy()[:, None] == np.array(CLASSES)) for split in ("val", "test")}
    write_predictions({split: with_logits(frames[split], logits) for split, logits in right.items()})


@pytest.fixture
def frames() -> dict[str, pd.DataFrame]:
    sizes = {"train": 240, "val": 60, "test": 120}
    return {split: make_frame(split, seed=seed, images=images) for seed, (split, images) in enumerate(sizes.items())}


@pytest.fixture
def run_stage(workspace: Path, write_params: WriteParams, frames: dict[str, pd.DataFrame]) -> Run:
    """Run the stage with overrides; its metrics."""
    write_inputs(frames)
    return stage_runner(write_params, baselines.main, "baselines", **{"bootstrap.draws": 100})


def test_colours_are_counted_in_their_cells() -> None:
    images = np.zeros((3, 2, 2, 3), np.uint8)
    images[1, 0, 0] = (255, 0, 127)
    images[2] = (128, 128, 128)
    histograms = color_histograms(images, np.array([2, 1]), bins=2)
    assert histograms.shape == (2, 8)
    assert histograms[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert histograms[1].tolist() == [0.75, 0, 0, 0, 0.25, 0, 0, 0]


def test_histograms_equal_numpys_and_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
    expected = [np.histogramdd(image.reshape(-1, 3), bins=4, range=[(0, 256)] * 3)[0].ravel() / 30 for image in images]
    monkeypatch.setattr("skinlesion.evaluation.analysis.baselines.CHUNK", 3)
    np.testing.assert_allclose(color_histograms(images, np.arange(7), bins=4), expected, atol=1e-7)


def test_absent_classes_have_probability_zero() -> None:
    features = np.random.default_rng(0).normal(size=(90, 2)).astype(np.float32)
    labels = np.where(features[:, 0] > 0, CLASSES.index("mel"), CLASSES.index("nv"))
    for model in (metadata_model(seed=0), color_model()):
        probabilities = fit_predict(model, features, labels, features)
        assert probabilities.shape == (90, 7)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        assert (probabilities[:, [0, 1, 2, 3, 6]] == 0).all()
        assert (probabilities.argmax(axis=1) == labels).mean() > 0.9


def test_each_learns_what_it_sees_and_nothing_else(run_stage: Run, frames: dict[str, pd.DataFrame]) -> None:
    metrics = run_stage()
    # By age melanoma is known, and by colour the nevus; the other two cannot be told from each other.
    assert metrics["metadata"]["mel_sensitivity"] > 0.95 and metrics["metadata"]["accuracy"] < 0.9
    assert metrics["colors"]["mel_sensitivity"] < 0.9 and 0.5 < metrics["colors"]["accuracy"] < 0.9
    train, test = frames["train"], frames["test"]
    labels = pd.Index(CLASSES).get_indexer(train["dx"])
    expected = fit_predict(metadata_model(seed=0), encode_metadata(train), labels, encode_metadata(test))
    predicted = np.array(CLASSES)[expected.argmax(axis=1)]
    assert metrics["metadata"]["accuracy"] == pytest.approx(accuracy_score(test["dx"], predicted), abs=1e-12)
    interval = metrics["metadata"]["intervals"]["accuracy"]
    assert interval["low"] <= metrics["metadata"]["accuracy"] <= interval["high"]


def test_the_table_has_the_classifier_beside_them(run_stage: Run) -> None:
    metrics = run_stage()
    table = pd.read_csv("plots/baselines/models.csv")
    assert table["model"].drop_duplicates().tolist() == ["metadata", "colors", "classifier"]
    values = table.set_index(["model", "metric"])["value"]
    assert values["classifier", "accuracy"] == 1
    assert values["colors", "macro_auc"] == pytest.approx(metrics["colors"]["macro_auc"])
    assert set(table["metric"]) == set(HEADLINE)


def test_a_second_run_writes_the_same_bytes_and_bins_matter(run_stage: Run) -> None:
    first = run_stage()
    assert run_stage() == first
    assert run_stage(color_bins=2)["colors"] != first["colors"]
    other = run_stage(**{"bootstrap.confidence": 0.6})
    assert other["metadata"]["accuracy"] == first["metadata"]["accuracy"]
    assert other["metadata"]["intervals"] != first["metadata"]["intervals"]


def test_a_list_of_one_diagnosis_is_refused(run_stage: Run, frames: dict[str, pd.DataFrame]) -> None:
    write_inputs(frames | {"train": frames["train"].assign(dx="nv")})
    refuses(r"train\.csv holds one diagnosis", run_stage)
