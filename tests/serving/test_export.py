"""The extra `export` on a tiny ensemble: figures that can be recomputed, and files that are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from extras import export
from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.patients import Patient, encode_metadata
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS, labels_of
from skinlesion.audits.findings import found_extras, outdated, read_extra
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest, read_json, write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.decisions import (
    CALIBRATION,
    CLASSIFIER_SHA256,
    OPERATING_POINTS,
    read_calibration,
    read_operating_points,
)
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from skinlesion.model.classifier import Classifier, load_ensemble, save_classifier
from skinlesion.serving.engines import ENGINES
from skinlesion.serving.export.onnx_network import EXPORT, load_onnx_ensemble
from skinlesion.serving.export.parity import describe_parity, predict_table
from skinlesion.serving.predictor import load_predictor
from tests.model.classifier_cases import last_linear, make_config, make_network
from tests.serving.export_cases import (
    DRAWS,
    IMAGES,
    MEMBERS,
    PARAMS,
    POINTS,
    SCALE,
    SIZE,
)
from tests.serving.predictor_cases import lesion_image

pytestmark = pytest.mark.usefixtures("one_thread")


COLUMNS = list(PROBABILITY_COLUMNS)


def read_metrics() -> dict[str, Any]:
    return json.loads(Path("metrics/export.json").read_text(encoding="utf-8"))


def votes_of_graphs(file: str) -> np.ndarray:
    """`votes` by ONNX Runtime and NumPy alone, of the test list."""
    prepared, listed = read_prepared(), read_split("test")
    images = prepared.images[prepared.rows_of(listed["image_id"])].transpose(0, 3, 1, 2) / 255
    probabilities = []
    for name, backbone in MEMBERS.items():
        config = make_config(backbone)
        mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (config.mean, config.std))
        batch = ((images - mean) / std).astype(np.float32)
        session = onnxruntime.InferenceSession(EXPORT / name / file)
        for view in (batch, batch[..., ::-1], batch[..., ::-1, :], batch[..., ::-1, ::-1]):
            inputs = {"images": view, "metadata": encode_metadata(listed)}
            logits = session.run(None, {each.name: inputs[each.name] for each in session.get_inputs()})[0]
            probabilities.append(softmax(logits.astype(np.float64), axis=1))
    return np.log(np.mean(probabilities, axis=0))


def test_the_figures_can_be_recomputed_by_onnx_runtime_and_scikit_learn(exported_here: Path) -> None:
    found, test = read_metrics(), read_predictions("test")
    torchs = test[COLUMNS].to_numpy()
    labels, mel = labels_of(test), CLASSES.index("mel")
    for precision, file in (("float32", "model.onnx"), ("int8", "model-int8.onnx")):
        probabilities, parity = softmax(SCALE * votes_of_graphs(file), axis=1), found["parity"][precision]
        assert parity["largest_difference"] == pytest.approx(np.abs(probabilities - torchs).max(), abs=2e-6)
        assert parity["same_diagnosis"] == np.mean(probabilities.argmax(axis=1) == torchs.argmax(axis=1))
        for name, point in POINTS.items():
            same = (probabilities[:, mel] >= point["threshold"]) == (torchs[:, mel] >= point["threshold"])
            assert parity["same_flag"][name] == same.mean()
    assert found["parity"]["float32"]["largest_difference"] < 1e-5 < found["parity"]["int8"]["largest_difference"] < 0.5
    # `probabilities` are those of int8 now.
    compared = {name: each["macro_auc"]["value"] for name, each in found["compared"].items()}
    assert compared["int8"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-6)
    assert compared["torch"] == pytest.approx(roc_auc_score(labels, torchs, multi_class="ovr"), abs=1e-9)
    assert compared["difference"] == pytest.approx(compared["int8"] - compared["torch"], abs=1e-9)
    flagged = probabilities[:, mel] >= POINTS["youden"]["threshold"]
    assert found["compared"]["int8"]["sensitivity@youden"]["value"] == pytest.approx(flagged[labels == mel].mean())
    # The paired interval by the weights of the bootstrap.
    weights = np.concatenate([*lesion_weights(test["lesion_id"], draws=DRAWS, seed=0)])
    hits = [each.argmax(axis=1) == labels for each in (probabilities, torchs)]
    drawn = [np.average(hits[0], weights=row) - np.average(hits[1], weights=row) for row in weights]
    difference = found["compared"]["difference"]["accuracy"]
    assert [difference["low"], difference["high"]] == pytest.approx(list(np.quantile(drawn, [0.025, 0.975])), abs=1e-9)


def test_what_the_stage_leaves(exported_here: Path) -> None:
    found, described = read_metrics(), json.loads((EXPORT / "export.json").read_text(encoding="utf-8"))
    assert (found["images"], found["lesions"], found["side"], found["test_time"]) == (IMAGES, IMAGES // 2, SIZE, "flips")
    assert found["backbones"] == MEMBERS and list(described["members"]) == list(MEMBERS)
    for name, member in described["members"].items():
        assert member["weights_sha256"] == file_digest(CLASSIFIER / name / "weights.safetensors", "sha256")
        for precision, file in (("float32", "model.onnx"), ("int8", "model-int8.onnx")):
            path = EXPORT / name / file
            assert member["files"][precision] == {"bytes": path.stat().st_size, "sha256": file_digest(path, "sha256")}
    graphs = {file: sum(path.stat().st_size for path in EXPORT.rglob(file)) for file in ("model.onnx", "model-int8.onnx")}
    assert (found["bytes"]["float32"], found["bytes"]["int8"]) == tuple(graphs.values())
    assert sorted(path.name for path in EXPORT.rglob("*") if path.is_file()) == ["export.json", *sorted([*graphs] * 2)]
    assert set(found["speed"]["batches"]) == {"1", "9"}
    for engines in found["speed"]["batches"].values():
        assert list(engines) == ["torch", "float32", "int8"] and engines["torch"]["times_torch"] == 1
        assert {engine["calls"] for engine in engines.values()} == {2}
        assert all(0 < engine["p50_ms"] <= engine["p95_ms"] for engine in engines.values())
    content = read_extra("export")
    assert content is not None and outdated(content) == [] and list(found_extras()) == ["export"]


def test_int8_takes_its_ranges_from_validation_alone(exported_here: Path) -> None:
    seen = Path("seen.txt").read_text(encoding="utf-8").split()
    once = seen[: PARAMS["calibration_images"]]
    assert seen == once * len(MEMBERS) and len(set(once)) == len(once)  # of each member the same ones
    assert set(once) < set(read_split("val")["image_id"])
    assert read_metrics()["int8"] == {"calibrated_on": "val", "calibration_images": 12, "float32_layers": 2}


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_export(change: Any) -> None:
    path = EXPORT / "export.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def adopt(source: Path, target: Path) -> None:
    """Put another graph in a place, and its digest into export.json as if it belonged there."""
    shutil.copyfile(source, target)
    digest = file_digest(target, "sha256")
    precision = "int8" if "int8" in target.name else "float32"
    edit_export(lambda content: content["members"][target.parent.name]["files"][precision].update(sha256=digest))


def train_again() -> None:
    (model, config), name = load_ensemble()["base-1"], "base-1"
    with torch.no_grad():
        last_linear(model).bias += 1e-3
    save_classifier(model.state_dict(), config, CLASSIFIER / name)


AGAIN = "run `dvc repro extras/dvc.yaml:export`"
FLOAT32, INT8 = EXPORT / "base-0" / "model.onnx", EXPORT / "base-0" / "model-int8.onnx"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (train_again, rf"models/export is not of the classifier in models/classifier \(.*base-1/weights\.s.*\): {AGAIN}"),
        (lambda: edit_export(lambda content: content["members"].pop("base-1")), rf"not of the classifier .*'base-1'.*: {AGAIN}"),
        (lambda: flip_a_byte(INT8), rf"base-0/model-int8\.onnx is damaged \(its sha256 .*\): {AGAIN} again"),
        (lambda: INT8.unlink(), rf"base-0/model-int8\.onnx not found: {AGAIN} again"),
        (lambda: shutil.rmtree(EXPORT), rf"models/export/export\.json not found, the classifier was not exported: {AGAIN} first"),
        (lambda: adopt(FLOAT32, INT8), rf"model-int8\.onnx is of another network \(precision is 'float32'\): {AGAIN}"),
        (lambda: adopt(EXPORT / "base-1" / INT8.name, INT8), r"network \(member is 'base-1'; weights_sha256 .*inputs are"),
        (lambda: adopt(Path("params.yaml"), INT8), rf"model-int8\.onnx is damaged \(.*\): {AGAIN}"),
        (lambda: edit_export(lambda content: content.update(members=[1])), rf"export\.json does not name members .*: {AGAIN}"),
        (lambda: edit_export(lambda content: content["members"]["base-0"]["files"].pop("int8")), "does not name members"),
        (lambda: (EXPORT / "export.json").write_text("{", encoding="utf-8"), r"export\.json is not valid JSON"),
        (lambda: (CLASSIFIER / "base-0/weights.safetensors").unlink(), r"weights\.safetensors not found: run `train`"),
    ],
)  # fmt: skip
def test_what_is_not_of_this_classifier_is_refused(exported_copy: Path, spoil: Any, message: str) -> None:
    assert list(load_onnx_ensemble(EXPORT, "int8")) == list(MEMBERS)
    spoil()
    with pytest.raises(PipelineError, match=message):
        load_onnx_ensemble(EXPORT, "int8")


def run_again(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """The stage with the graphs that are there instead of new ones."""

    def reuse(classifier: Classifier, folder: Path, *_: Any) -> dict[str, Any]:
        shutil.copytree(source / EXPORT / classifier.config.name, folder / classifier.config.name)
        described = json.loads((source / EXPORT / "export.json").read_text(encoding="utf-8"))["members"][classifier.config.name]
        return described | {"weights_sha256": file_digest(CLASSIFIER / classifier.config.name / "weights.safetensors", "sha256")}

    monkeypatch.setattr(export, "export_member", reuse)
    export.main()


def test_predictions_of_another_run_are_refused_and_nothing_is_left(
    exported_copy: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_predictions("test")
    first = table.loc[3, COLUMNS].to_numpy(dtype=np.float64, copy=True)
    table.loc[3, COLUMNS] = first + np.array([-1, 1, 0, 0, 0, 0, 0]) * 5e-4 * np.sign(0.5 - first[1])
    write_predictions({"val": read_predictions("val"), "test": table})
    shutil.rmtree(EXPORT)
    Path("metrics/export.json").unlink()
    with pytest.raises(
        PipelineError, match=r"classifier and predictions are not of one run: .*ISIC_003 .* 0\.0005 .*`dvc repro`"
    ):
        run_again(monkeypatch, exported)
    assert not list(EXPORT.parent.glob("*export*")) and not Path("metrics/export.json").exists()


def test_a_graph_that_says_something_else_is_refused(exported_here: Path) -> None:
    members, test, prepared = load_ensemble(), read_predictions("test"), read_prepared()
    options = {"prepared": prepared, "calibrator": Calibrator.of(read_calibration())}
    options |= {"batch_size": 8, "test_time": "flips"}
    parity = describe_parity(test, test, read_operating_points())
    assert parity["largest_difference"] == 0 and parity["same_flag"] == {"recall_0.90": 1, "youden": 1}
    export.check_parity(parity | {"largest_difference": 9e-5}, members, test, **options)
    with pytest.raises(PipelineError, match=r"float32 network gives image ISIC_005 .* 0\.0002 .*cannot be exported faithfully"):
        export.check_parity({"largest_difference": 2e-4, "image_id": "ISIC_005"}, members, test, **options)
    again = predict_table(members, listed=test, **options)
    assert np.abs(again[COLUMNS].to_numpy() - test[COLUMNS].to_numpy()).max() < 1e-5


def sign(*paths: Path) -> None:
    """Let files say that they belong to the classifier that is there."""
    for path in paths:
        write_json(path, read_json(path) | {CLASSIFIER_SHA256: classifier_digest()})


def test_the_predictor_runs_on_any_engine(exported_copy: Path) -> None:
    sign(CALIBRATION, OPERATING_POINTS)
    images, patients = [lesion_image(seed) for seed in range(6)], [Patient(age=20.0 + seed, sex="male") for seed in range(6)]
    given = {name: load_predictor(engine=name).predict(images, patients, point="youden") for name in ENGINES}
    values = {engine: np.array([list(each.probabilities.values()) for each in all_of]) for engine, all_of in given.items()}
    assert np.abs(values["onnx"] - values["torch"]).max() < 1e-4 < np.abs(values["onnx-int8"] - values["torch"]).max() < 0.3
    assert [each.flagged for each in given["onnx"]] == [each.flagged for each in given["torch"]]
    assert given["onnx"][0].warnings == given["torch"][0].warnings
    assert "The network ran in 8 bits" in given["onnx-int8"][0].warnings[-1]
    eight_bits, stated = load_predictor(engine="onnx-int8"), read_metrics()["compared"]["int8"]
    sensitivity = eight_bits.points["youden"].sensitivity
    assert sensitivity is not None and asdict(sensitivity) == stated["sensitivity@youden"]
    assert eight_bits.card()["test"]["accuracy"] == stated["accuracy"]
    write_json(Path("metrics/export.json"), read_metrics() | {CLASSIFIER_SHA256: "cafe"})
    another = load_predictor(engine="onnx-int8")
    assert another.points["youden"].sensitivity is None and another.card()["test"] is None
    save_classifier(make_network(load_ensemble()["base-1"].config, seed=9).state_dict(), load_ensemble()["base-1"].config,
                    CLASSIFIER / "base-1")  # fmt: skip
    sign(CALIBRATION)
    with pytest.raises(PipelineError, match=r"models/export is not of the classifier in .*extras/dvc.yaml:export"):
        load_predictor(engine="onnx")
