"""The predictor: the stages' own numbers for any image, from several threads, and nothing claimed that was not measured."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.patients import SITES, Patient
from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.raw import RAW
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.config.contents import Calibration
from skinlesion.data.preparing import write_prepared
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.conformal import class_scores
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.evaluation.inference.inference import Member, predict_ensemble
from skinlesion.evaluation.inference.predictions import prediction_table, vote
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.decisions import CALIBRATION, CONFORMAL, OPERATING_POINTS
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.explanation.cam.placing import map_to_original
from skinlesion.explanation.cam.targets import find_target
from skinlesion.model.classifier import load_ensemble
from skinlesion.serving.prediction import chance_of
from skinlesion.serving.predictor import load_predictor
from skinlesion.serving.uploads import decode_upload
from tests.conftest import refuses
from tests.serving.predictor_cases import FITTED, SET_SCALE, encoded, lesion_image, make_workspace, write_measured

IDS = [f"I{number}" for number in range(5)]
TWO = ({}, {"metadata": True, "member": "b"})


def as_the_stages(root: Path, test_time: Any) -> pd.DataFrame:
    """The prediction table that `prepare` and `evaluate` make of the images in `data/raw`."""
    raw, prepared = root / RAW, root / PREPARED
    config = next(iter(load_ensemble(root / CLASSIFIER).values())).config
    how = {"size": config.size, "fit": config.fit, "color_constancy": config.color_constancy}
    write_prepared(IDS, **how, workers=2, raw=raw, folder=prepared)
    listed = pd.DataFrame({"image_id": IDS, "lesion_id": IDS, "dx": "nv", "dx_type": "histo"})
    listed["age"] = [None, 40.0, 55.0, 70.0, 85.0]
    listed["sex"], listed["localization"] = ["unknown", "male", "female", "male", "female"], ["unknown", *SITES[:4]]
    ensemble, options = load_ensemble(root / CLASSIFIER), {"batch_size": 2, "test_time": test_time}
    predicted = predict_ensemble(ensemble, read_prepared(prepared), listed, device=torch.device("cpu"), **options)
    return prediction_table(listed, vote(predicted, test_time), Calibrator.of(Calibration(**FITTED, test_time=test_time)))


@pytest.mark.parametrize(
    ("members", "test_time"),
    [
        pytest.param(({},), "none", id="one network"),
        pytest.param(TWO, "flips", id="two, one with metadata, four views"),
        pytest.param(({"fit": "pad", "color_constancy": "shades_of_gray"},), "multi_crop", id="padded, colours corrected"),
    ],
)
def test_an_image_gets_the_numbers_of_the_prediction_table(tmp_path: Path, members: Any, test_time: Any) -> None:
    make_workspace(tmp_path, members, test_time=test_time)
    (tmp_path / "data/raw/images").mkdir(parents=True)
    for seed, image_id in enumerate(IDS):
        image = lesion_image(seed, width=90 + 7 * seed)
        (tmp_path / "data/raw/images" / f"{image_id}.jpg").write_bytes(encoded(image))
    table = as_the_stages(tmp_path, test_time)
    predictor = load_predictor(tmp_path)
    images = [decode_upload((tmp_path / "data/raw/images" / f"{image_id}.jpg").read_bytes()).image for image_id in IDS]
    rows = table[["age", "sex", "localization"]].itertuples(index=False)
    known = [Patient(*(None if pd.isna(value) or value == "unknown" else value for value in row)) for row in rows]
    given = np.array([list(each.probabilities.values()) for each in predictor.predict(images, known)])
    expected = table[list(PROBABILITY_COLUMNS)].to_numpy()
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5)
    assert len({tuple(row) for row in expected.round(4)}) == len(IDS)  # or any image would do
    alone = [predictor.predict([image], [patient])[0] for image, patient in zip(images, known, strict=True)]
    np.testing.assert_allclose([list(each.probabilities.values()) for each in alone], expected, rtol=0, atol=1e-5)


def test_metadata_count_where_a_member_takes_them(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path, TWO))
    image = lesion_image()
    unknown, old = predictor.predict([image, image], [Patient(), Patient(80, "male", "face")])
    assert predictor.needs_metadata and unknown.probabilities != old.probabilities
    assert predictor.predict([image])[0].probabilities == pytest.approx(unknown.probabilities, abs=1e-6)


def test_threads_get_what_one_would(tmp_path: Path) -> None:
    """While maps are made, whose hooks must not see other images."""
    predictor = load_predictor(make_workspace(tmp_path, TWO))
    images = [lesion_image(seed) for seed in range(12)]
    probabilities = [predictor.predict([image])[0].probabilities for image in images]
    maps = [predictor.explain(image, diagnosis="mel") for image in images]
    with ThreadPoolExecutor(8) as pool:
        mapped = [pool.submit(predictor.explain, image, diagnosis="mel") for image in images]
        predicted = [pool.submit(predictor.predict, [image]) for image in images]
        for expected, done in zip(probabilities, predicted, strict=True):
            assert done.result()[0].probabilities == pytest.approx(expected, abs=1e-6)
        for expected_map, done_map in zip(maps, mapped, strict=True):
            np.testing.assert_allclose(done_map.result(), expected_map, rtol=0, atol=1e-5)


def test_the_operating_point_flags_and_says_what_it_is_worth(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path))
    image = lesion_image()
    default, everything, nothing = (predictor.predict([image], point=name)[0] for name in (None, "everything", "nothing"))
    assert default.point is not None and default.point.name == predictor.default_point == "recall_0.90"
    assert (everything.flagged, nothing.flagged) == (True, False)
    assert default.score == default.probabilities["mel"] and default.flagged == (default.score >= 0.1)
    predictor.points["exact"] = replace(default.point, threshold=default.score)
    assert predictor.predict([image], point="exact")[0].flagged
    assert default.point.sentence == (
        "An image is flagged when the probability of melanoma is at least 10.0 %. On the validation images, on which it was "
        "chosen, it flagged 92 % of those with melanoma and left 61 % of the others unflagged."
    )


def test_test_figures_come_with_their_interval_if_they_are_of_the_same_threshold(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    rates = {"sensitivity": 0.85, "specificity": 0.6}
    ends = {"sensitivity": {"low": 0.7, "high": 0.95}, "specificity": {"low": 0.55, "high": 0.65}}
    points = {name: {"threshold": 0.1, "test": rates, "intervals": ends} for name in ("recall_0.90", "nothing")}
    audited = {"target": "mel", "classes": ["mel"], "bootstrap": {"confidence": 0.9}, "points": points}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/threshold_sweep.json").write_text(json.dumps(audited))
    found = load_predictor(tmp_path).points
    assert (found["recall_0.90"].measured_on, found["recall_0.90"].confidence) == ("test", 0.9)
    said = "On the test images, it flagged 85 % (70 to 95 %) of those with melanoma and left 60 % (55 to 65 %)"
    assert said in found["recall_0.90"].sentence
    assert (found["nothing"].measured_on, found["nothing"].confidence) == ("val", None)  # another run's threshold


def test_sets_are_those_of_the_conformal_calibration(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path))
    image = lesion_image(3)
    prediction, again = (predictor.predict([image])[0] for _ in range(2))
    assert prediction.sets == again.sets and prediction.sets["0.99"] is None
    square = predictor.square(image)
    probabilities, chance = softmax(SET_SCALE * predictor.logits(square[None]), axis=1), chance_of(square)
    scores = class_scores(probabilities, np.array([chance]), method="raps", penalty=0.01, free=2)[0]
    expected = {dx for dx, score in zip(CLASSES, scores, strict=True) if score <= 0.8} | {prediction.top(1)[0][0]}
    assert set(prediction.sets["0.9"] or ()) == expected


def test_chances_of_sets_are_spread_evenly() -> None:
    generator = np.random.default_rng(0)
    chances = [chance_of(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(2000)]
    counts = np.histogram(chances, bins=10, range=(0, 1))[0]
    assert counts.min() > 150 and counts.max() < 250


def test_one_member_of_several_is_not_calibrated_and_says_so(tmp_path: Path) -> None:
    make_workspace(tmp_path, ({}, {}))
    predictor = load_predictor(tmp_path, model="base-1")
    image = lesion_image()
    prediction = predictor.predict([image])[0]
    logits = predictor.logits(predictor.square(image)[None])
    assert list(prediction.probabilities.values()) == pytest.approx(list(softmax(logits, axis=1)[0]))
    assert (prediction.point, prediction.flagged, prediction.sets) == (None, None, {})
    assert "not calibrated" in prediction.warnings[-1]
    message = r"'recall_0\.90' was chosen for the ensemble and says nothing of member 'base-1'"
    refuses(message, predictor.predict, [image], point="recall_0.90")


def test_the_only_member_is_the_ensemble(tmp_path: Path) -> None:
    make_workspace(tmp_path)
    whole, member = (load_predictor(tmp_path, model=name).predict([lesion_image()])[0] for name in ("ensemble", "base-0"))
    assert member == whole


def test_a_map_is_the_one_of_the_method(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path))
    image = lesion_image(1)
    heat = predictor.explain(image, diagnosis="bcc", method="LayerCAM", layer="layer2")
    assert heat.shape == (70, 90) and heat.min() >= 0 and heat.max() <= 1
    model, config = load_ensemble(tmp_path / CLASSIFIER)["base-0"]
    options = MapOptions("LayerCAM", torch.device("cpu"), "layer2")
    values = compute_maps(model, config, predictor.square(image)[None], [CLASSES.index("bcc")], options)[0]
    centers = find_target(model, "LayerCAM", "layer2", size=32).centers
    np.testing.assert_allclose(heat, map_to_original(values, 90, 70, size=32, fit="squash", centers=centers), atol=1e-6)


def test_methods_that_a_network_has_not_are_not_offered(tmp_path: Path) -> None:
    usable = load_predictor(make_workspace(tmp_path)).usable_methods()
    assert "GradCAM" in usable and "LeGrad" not in usable


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "base-2"}, r"no model 'base-2'; did you mean 'base-0'\?; known: ensemble, base-0"),
        ({"engine": "onnx-int4"}, r"no engine 'onnx-int4'; did you mean 'onnx-int8'\?; known: torch, onnx, onnx-int8"),
        ({"engine": "onnx", "device": "cuda"}, r"engine 'onnx' runs on the CPU alone, not on 'cuda'"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, options: dict[str, str], message: str) -> None:
    make_workspace(tmp_path)
    refuses(message, lambda: load_predictor(tmp_path, **options))


def test_no_model_names_the_command_that_makes_one(tmp_path: Path) -> None:
    refuses(r"models/classifier not found, so there is no trained classifier: `make run` trains one", load_predictor, tmp_path)


def test_names_of_people_are_checked(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path))
    message = r"no operating point 'recall_0.9'; did you mean 'recall_0.90'\?; known: everything"
    refuses(message, predictor.predict, [lesion_image()], point="recall_0.9")
    refuses(r"no diagnosis 'melanoma'; .*known: akiec", lambda: predictor.explain(lesion_image(), diagnosis="melanoma"))
    refuses("no method 'GradCam'; did you mean 'GradCAM'", predictor.explain, lesion_image(), diagnosis="mel", method="GradCam")
    for wrong, message in (
        ({"age": 121}, "age must be from 0 to 120 years, not 121"),
        ({"age": float("nan")}, "age must be from 0 to 120 years, not nan"),
        ({"sex": "mail"}, r"no sex 'mail'; did you mean 'male'\?"),
        ({"localization": "lower extremty"}, r"no localization 'lower extremty'; did you mean 'lower extremity'\?"),
    ):
        refuses(message, Patient, **wrong)


def test_the_card_says_what_it_is(tmp_path: Path) -> None:
    card = load_predictor(make_workspace(tmp_path)).card()
    text = {"model": "ensemble", "engine": "torch", "fingerprint": "f00d", "calibration": "temperature"}
    assert {name: card[name] for name in text} == text
    assert card["data"] == {"source": "sample", "synthetic": True} and card["classes"] == list(CLASSES) and card["test"] is None
    json.dumps(card)


@pytest.mark.parametrize("file", [CALIBRATION, OPERATING_POINTS, CONFORMAL])
def test_what_belongs_to_another_classifier_is_refused(tmp_path: Path, file: Path) -> None:
    """As after a training whose `dvc repro` was interrupted."""
    load_predictor(make_workspace(tmp_path))
    before = (tmp_path / file).read_bytes()
    make_workspace(tmp_path, ({"seed": 0, "hidden": 16, "head": "mlp"},))
    load_predictor(tmp_path)
    (tmp_path / file).write_bytes(before)
    refuses(f"{file} is of another classifier than the one in models/classifier: run `dvc repro`", load_predictor, tmp_path)


def test_the_network_runs_for_one_at_a_time(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path))
    (name, (network, config)), inside, most = next(iter(predictor.members.items())), [0], [0]

    def counted(images: torch.Tensor, metadata: torch.Tensor | None) -> torch.Tensor:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        inside[0] -= 1
        return network(images, metadata)

    predictor.members = {name: Member(counted, config)}
    squares = np.stack([predictor.square(lesion_image())])
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: predictor.logits(squares), range(12)))
    assert most[0] == 1


def test_another_classifiers_maps_are_no_explanation(tmp_path: Path) -> None:
    predictor = load_predictor(make_workspace(tmp_path))
    make_workspace(tmp_path, ({"seed": 0, "hidden": 16, "head": "mlp"},))
    message = "models/classifier was written anew since its classifier was loaded"
    refuses(message, predictor.explain, lesion_image(), diagnosis="mel")


def test_figures_of_another_run_are_not_the_classifiers(tmp_path: Path) -> None:
    """metrics/ is in git and models/ is not: a switch of branches parts them."""
    make_workspace(tmp_path)
    own = classifier_digest(tmp_path / CLASSIFIER)
    for digest, found in ((own, True), ("cafe", False), (None, False)):
        write_measured(tmp_path, digest, 0.75)
        measured = load_predictor(tmp_path).card()["test"]
        assert (measured is not None) == found
        if measured is not None:
            assert measured["accuracy"] == {"value": 0.75, "low": 0.65, "high": 0.85} and measured["images"] == 97
