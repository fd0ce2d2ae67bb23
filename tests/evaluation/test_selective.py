"""Abstaining and sets of diagnoses: hand-made cases, coverage by simulation, and the stage on made tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score

from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis import conformal
from skinlesion.evaluation.analysis.abstention import (
    area_under_risk_coverage,
    audit_abstention,
    confidence_threshold,
    risk_coverage_curve,
)
from skinlesion.evaluation.metrics.bootstrap import point_estimate
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.decisions import write_calibration
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from stages import selective
from tests.conftest import WriteParams, refuses
from tests.stage_cases import PATIENT, Run, probabilities_of, stage_runner, with_logits

MEL, NV = CLASSES.index("mel"), CLASSES.index("nv")
RAPS: dict[str, Any] = {"method": "raps", "penalty": 0.01, "free": 2}
APS: dict[str, Any] = {"method": "aps", "penalty": 0.0, "free": 0}


def draw(generator: np.random.Generator, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and overconfident probabilities of independent images."""
    labels = generator.choice(7, images, p=[0.05, 0.06, 0.12, 0.03, 0.14, 0.55, 0.05])
    logits = 1.5 * generator.normal(size=(images, 7))
    logits[np.arange(images), labels] += 2.0
    return labels, softmax(1.7 * logits, axis=1)


def make_predictions(split: str, *, seed: int, images: int = 600) -> pd.DataFrame:
    """A prediction table, two images a lesion."""
    generator = np.random.default_rng(seed)
    labels, _ = draw(generator, images // 2)
    labels = np.repeat(labels, 2)
    logits = generator.normal(size=(images, 7))
    logits[np.arange(images), labels] += 2.0
    ids = [(f"{split}_{row}", f"{split}_L{row // 2}") for row in range(images)]
    frame = pd.DataFrame(ids, columns=["image_id", "lesion_id"]).assign(dx=np.array(CLASSES)[labels], **PATIENT)
    return with_logits(frame, logits)


@pytest.fixture
def run_stage(workspace: Path, write_params: WriteParams) -> Run:
    """Run the stage with overrides; its metrics."""
    write_predictions({split: make_predictions(split, seed=seed) for seed, split in enumerate(("val", "test"))})
    write_calibration(Calibrator("temperature", np.ones(7), np.zeros(7)).content() | {"test_time": "none"})
    return stage_runner(write_params, selective.main, "selective", **{"bootstrap.draws": 150})


def test_the_area_under_risk_and_coverage_by_hand() -> None:
    # Sorted by confidence: right, wrong, right, right. Risks 0, 1/2, 1/3, 1/4 at equal steps of coverage.
    wrong, confidence = np.array([False, False, True, False]), np.array([0.4, 0.9, 0.8, 0.6])
    assert point_estimate(area_under_risk_coverage(wrong, confidence), 4)["aurc"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)
    curve = risk_coverage_curve(wrong, confidence, most=10)
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert curve["risk"].tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    assert curve["confidence"].tolist() == [0.9, 0.8, 0.6, 0.4]
    assert point_estimate(area_under_risk_coverage(wrong, np.full(4, 0.5)), 4)["aurc"] == pytest.approx(1 / 4)


def test_weights_count_images_several_times() -> None:
    generator = np.random.default_rng(0)
    wrong, confidence = generator.random(60) < 0.3, np.round(generator.random(60), 1)
    weights = generator.integers(0, 4, 60)
    repeated = [np.repeat(values, weights) for values in (wrong, confidence)]
    expected = point_estimate(area_under_risk_coverage(*repeated), weights.sum())["aurc"]
    assert area_under_risk_coverage(wrong, confidence)(weights[None].astype(float))["aurc"][0] == pytest.approx(expected)


def test_at_least_the_asked_share_is_answered_and_no_smaller_one_would_do() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.5, 0.3])
    thresholds = [confidence_threshold(confidence, share) for share in (0.1, 0.2, 0.21, 0.6, 0.61, 1.0)]
    assert thresholds == [0.9, 0.9, 0.8, 0.8, 0.5, 0.3]


def test_abstention_by_counting() -> None:
    generator = np.random.default_rng(1)
    labels, probabilities = draw(generator, 400)
    answered, predicted = probabilities.max(axis=1) >= 0.8, probabilities.argmax(axis=1)
    values = point_estimate(audit_abstention(labels, probabilities, 0.8), 400)
    assert values["coverage"] == pytest.approx(answered.mean())
    assert values["accuracy"] == pytest.approx((predicted == labels)[answered].mean())
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels[answered], predicted[answered]))
    mel = labels == MEL
    assert values["mel_sensitivity"] == pytest.approx((predicted == MEL)[mel & answered].mean())
    assert values["melanomas_answered"] == pytest.approx(answered[mel].mean())
    assert values["melanomas_missed"] == pytest.approx((answered & (predicted != MEL))[mel].mean())
    nobody = point_estimate(audit_abstention(labels, probabilities, 1.1), 400)
    assert nobody["coverage"] == 0 and np.isnan(nobody["accuracy"]) and nobody["melanomas_missed"] == 0


def test_scores_and_sets_by_hand() -> None:
    probabilities = np.array([[0.1, 0.0, 0.0, 0.2, 0.6, 0.1, 0.0]])
    aps = conformal.class_scores(probabilities, np.array([0.5]), **APS)[0]
    # mel first, then df, then akiec before nv, which are equal: the class's own probability counts half.
    assert aps[[4, 3, 0, 5]] == pytest.approx([0.3, 0.7, 0.85, 0.95])
    raps = conformal.class_scores(probabilities, np.array([0.5]), method="raps", penalty=0.1, free=1)[0]
    assert raps[[4, 3, 0, 5]] == pytest.approx([0.3, 0.8, 1.05, 1.25])
    assert conformal.prediction_sets(aps[None], 0.7).nonzero()[1].tolist() == [3, 4]
    assert conformal.prediction_sets(aps[None], 0.1).nonzero()[1].tolist() == [4], "never empty"
    assert conformal.prediction_sets(aps[None], float("inf")).all()


def test_the_quantile_counts_the_case_to_come() -> None:
    scores = np.arange(1, 100) / 100
    assert conformal.conformal_quantile(scores, 0.9) == 0.9
    assert conformal.conformal_quantile(scores, 0.29) == 0.29
    assert conformal.conformal_quantile(scores[:8], 0.9) == float("inf") > conformal.conformal_quantile(scores[:9], 0.9) == 0.09


@pytest.mark.parametrize("options", [APS, RAPS], ids=["aps", "raps"])
def test_sets_cover_as_often_as_they_promise(options: dict[str, Any]) -> None:
    generator = np.random.default_rng(2)
    covered = []
    for _ in range(300):
        (labels, probabilities), (new_labels, new) = draw(generator, 200), draw(generator, 100)
        true = conformal.class_scores(probabilities, generator.random(200), **options)[np.arange(200), labels]
        sets = conformal.prediction_sets(
            conformal.class_scores(new, generator.random(100), **options), conformal.conformal_quantile(true, 0.9)
        )
        covered.append(sets[np.arange(100), new_labels].mean())
    # Sets that are never empty cover a little more than was asked.
    assert 0.895 < np.mean(covered) < 0.925


def test_the_audit_of_sets_by_counting() -> None:
    labels = np.array([MEL, MEL, NV, NV])
    sets = np.zeros((4, 7), bool)
    sets[0, [MEL, NV]] = sets[1, NV] = sets[2, NV] = sets[3, [0, 1, NV]] = True
    values = point_estimate(conformal.audit_sets(labels, sets), 4)
    assert (values["coverage"], values["size"], values["singletons"]) == (0.75, 7 / 4, 0.5)
    assert (values["coverage_mel"], values["coverage_nv"]) == (0.5, 1) and np.isnan(values["coverage_df"])


def test_lesions_are_dealt_whole_and_one_image_stands_for_each() -> None:
    lesions = pd.Series([f"L{row // 3}" for row in range(300)])
    chosen = conformal.deal_lesions(lesions, 0.4, seed=0)
    assert (pd.Series(chosen).groupby(lesions).nunique() == 1).all()
    assert lesions[chosen].nunique() == 40
    assert not np.array_equal(chosen, conformal.deal_lesions(lesions, 0.4, seed=1))
    one = conformal.choose_one_image(lesions, seed=0)
    assert lesions[one].is_unique and len(one) == 100 and (np.diff(one) > 0).all()
    assert set(one % 3) == {0, 1, 2}, "not always the first"


def test_the_stage_keeps_what_it_promises_and_takes_thresholds_from_validation(run_stage: Run) -> None:
    metrics = run_stage(coverages=[0.6, 1.0], conformal_levels=[0.9, 0.97])
    confidences = {name: probabilities_of(read_predictions(name)).max(axis=1) for name in ("val", "test")}
    point = metrics["abstention"]["0.6"]
    assert point["threshold"] in confidences["val"]
    assert 0.6 <= point["val"]["coverage"] < 0.605
    assert point["test"]["coverage"] == pytest.approx((confidences["test"] >= point["threshold"]).mean())
    interval = point["test"]["intervals"]["accuracy"]
    assert interval["low"] < point["test"]["accuracy"] < interval["high"]
    assert point["test"]["accuracy"] > metrics["abstention"]["1"]["test"]["accuracy"] + 0.05
    for level, asked in (("0.9", 0.9), ("0.97", 0.97)):
        found = metrics["conformal"][level]
        assert found["lesions_of_validation"] == 150
        assert abs(found["test"]["coverage"] - asked) < 0.06
    assert metrics["conformal"]["0.9"]["test"]["size"] < metrics["conformal"]["0.97"]["test"]["size"]
    sizes = pd.read_csv("plots/selective/set_sizes.csv")
    assert sizes.groupby("level")["images"].sum().tolist() == [600, 600]
    mean = (sizes["size"] * sizes["share"]).groupby(sizes["level"]).sum()
    assert mean.tolist() == pytest.approx([metrics["conformal"][level]["test"]["size"] for level in ("0.9", "0.97")])
    curve = pd.read_csv("plots/selective/risk_coverage.csv")
    assert curve.groupby("split")["coverage"].max().tolist() == [1, 1]


def test_another_test_set_changes_no_threshold_and_no_quantile(run_stage: Run) -> None:
    first = run_stage()
    write_predictions({"val": read_predictions("val"), "test": make_predictions("test", seed=9)})
    second = run_stage()
    assert first != second
    for before, after in zip(first["abstention"].values(), second["abstention"].values(), strict=True):
        assert (before["threshold"], before["val"]) == (after["threshold"], after["val"])
    before, after = ([level["quantile"] for level in found["conformal"].values()] for found in (first, second))
    assert before == after


@pytest.mark.parametrize(
    "overrides",
    [{"seed": 1}, {"conformal_share": 0.3}, {"conformal_method": "aps"}, {"raps_penalty": 0.2}, {"raps_free": 5}],
    ids=str,
)
def test_every_option_of_the_sets_changes_them(run_stage: Run, overrides: dict[str, Any]) -> None:
    plain = {"raps_penalty": 0.1, "raps_free": 1}
    assert run_stage(**plain)["conformal"]["0.9"]["quantile"] != run_stage(**plain | overrides)["conformal"]["0.9"]["quantile"]


def test_too_few_lesions_make_every_set_whole_or_are_refused(run_stage: Run, caplog: pytest.LogCaptureFixture) -> None:
    tables = {split: read_predictions(split) for split in ("val", "test")}
    write_predictions(tables | {"val": tables["val"].head(16)})
    metrics = run_stage()
    assert metrics["conformal"]["0.9"]["quantile"] is None and metrics["conformal"]["0.9"]["test"]["size"] == 7
    assert "4 lesions are too few to promise it, so every set holds every diagnosis" in caplog.text
    write_predictions(tables | {"val": tables["val"].head(2)})
    refuses(r"validation has 1 lesion\(s\), too few to be dealt in two", run_stage)
