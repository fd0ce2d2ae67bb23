"""The extra `export` on a tiny ensemble: graphs that say what torch says, and int8 that is int8."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.patients import WIDTH, Patient, encode_metadata
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.audits.findings import found_extras, outdated, read_extra
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest, read_json, write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.evaluation.inference.inference import predict_batch
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results import decisions
from skinlesion.evaluation.results.predictions import read_predictions
from skinlesion.model.classifier import load_ensemble, save_classifier
from skinlesion.serving.engines import ENGINES
from skinlesion.serving.export.onnx_network import EXPORT, load_onnx_ensemble
from skinlesion.serving.export.parity import check_parity, describe_parity, predict_table
from skinlesion.serving.predictor import load_predictor
from tests.conftest import ROOT, refuses
from tests.model.classifier_cases import POINTS, SCALE, make_config, make_network
from tests.serving.export_cases import COLUMNS, DRAWS, IMAGES, MEMBERS, PARAMS, SIZE, pixels_of
from tests.serving.predictor_cases import lesion_image
from tests.stage_cases import read_metrics


def votes_of_graphs(file: str) -> np.ndarray:
    """`votes` by ONNX Runtime and NumPy alone, of the test list."""
    listed = read_split("test")
    images = pixels_of(listed).transpose(0, 3, 1, 2) / 255
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


def test_the_figures_can_be_recomputed_by_onnx_runtime_and_scikit_learn(exported_here: None) -> None:
    found, test = read_metrics("export"), read_predictions("test")
    torchs = test[COLUMNS].to_numpy()
    labels, mel = pd.Index(CLASSES).get_indexer(test["dx"]), CLASSES.index("mel")
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


def test_what_the_stage_leaves(exported_here: None) -> None:
    found, message = read_metrics("export"), json.loads((EXPORT / "export.json").read_text(encoding="utf-8"))
    assert (found["images"], found["lesions"], found["side"], found["test_time"]) == (IMAGES, IMAGES // 2, SIZE, "flips")
    assert found["backbones"] == MEMBERS and list(message["members"]) == list(MEMBERS)
    for name, member in message["members"].items():
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


def test_int8_takes_its_ranges_from_validation_alone(exported_here: None) -> None:
    seen = Path("seen.txt").read_text(encoding="utf-8").split()
    once = seen[: PARAMS["calibration_images"]]
    assert seen == once * len(MEMBERS) and len(set(once)) == len(once)  # of each member the same ones
    assert set(once) < set(read_split("val")["image_id"])
    assert read_metrics("export")["int8"] == {"calibrated_on": "val", "calibration_images": 12, "float32_layers": 2}


@pytest.mark.parametrize("name", MEMBERS)
def test_graphs_are_whole_small_and_tell_nothing_of_this_machine(exported_here: None, name: str) -> None:
    paths = [EXPORT / name / file for file in ("model.onnx", "model-int8.onnx")]
    plain, small = (onnx.load(path) for path in paths)
    for graph, path in zip((plain, small), paths, strict=True):
        onnx.checker.check_model(graph)
        assert b"site-packages" not in path.read_bytes() and str(ROOT).encode() not in path.read_bytes()
    assert paths[1].stat().st_size < 0.4 * paths[0].stat().st_size
    assert "QuantizeLinear" not in [node.op_type for node in plain.graph.node]
    eight = {tensor.name for tensor in small.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    by_output = {output: node for node in small.graph.node for output in node.output}
    layers = [node for node in small.graph.node if node.op_type in ("Conv", "Gemm")]
    quantized = [by_output[node.input[1]].input[0] in eight for node in layers if node.input[1] in by_output]
    assert len(quantized) == len(layers) - 3 and all(quantized)
    ordered = [node.input[1] for node in plain.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {node.input[1] for node in layers} - by_output.keys() == {*ordered[:2], ordered[-1]}


@pytest.mark.parametrize("images", [1, 3, 32])
def test_any_number_of_images_gives_what_torch_gives(exported_here: None, images: int) -> None:
    generator = torch.Generator().manual_seed(images)
    batch, metadata = torch.randn(images, 3, SIZE, SIZE, generator=generator), torch.rand(images, WIDTH, generator=generator)
    batch = batch.contiguous(memory_format=torch.channels_last)
    loaded, torchs = load_onnx_ensemble(EXPORT, "float32"), load_ensemble()
    assert list(loaded) == list(MEMBERS)
    for name, (network, config) in loaded.items():
        assert config == torchs[name].config
        with torch.inference_mode():
            logits, expected = network(batch, metadata), torchs[name].model(batch, metadata)
        assert logits.dtype == torch.float32 and logits.shape == (images, 7)
        assert torch.allclose(logits, expected, atol=2e-5 * float(expected.abs().max()))
    with pytest.raises(ValueError, match="exported with metadata"):
        loaded["base-1"].model(batch)


def test_threads_share_a_network(exported_here: None) -> None:
    network, config = load_onnx_ensemble(EXPORT, "int8")["base-0"]
    batches = [torch.randint(0, 256, (5, SIZE, SIZE, 3), dtype=torch.uint8) for _ in range(24)]

    def predict(batch: torch.Tensor) -> np.ndarray:
        return predict_batch(network, config, batch, None, test_time="none").logits

    alone = [predict(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(predict, batches))
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


def test_a_graph_that_says_something_else_is_refused(exported_here: None) -> None:
    members, test, prepared = load_ensemble(), read_predictions("test"), read_prepared()
    options = {"prepared": prepared, "calibrator": Calibrator.of(decisions.read_calibration())}
    options |= {"batch_size": 8, "test_time": "flips"}
    parity = describe_parity(test, test, decisions.read_operating_points())
    assert parity["largest_difference"] == 0 and parity["same_flag"] == {"recall_0.90": 1, "youden": 1}
    check_parity(parity | {"largest_difference": 9e-5}, members, test, **options)
    with pytest.raises(PipelineError, match=r"float32 network gives image ISIC_005 .* 0\.0002 .*cannot be exported faithfully"):
        check_parity({"largest_difference": 2e-4, "image_id": "ISIC_005"}, members, test, **options)
    again = predict_table(members, listed=test, **options)
    assert np.abs(again[COLUMNS].to_numpy() - test[COLUMNS].to_numpy()).max() < 1e-5


def sign(*paths: Path) -> None:
    """Let files say that they belong to the classifier that is there."""
    for path in paths:
        write_json(path, read_json(path) | {decisions.CLASSIFIER_SHA256: classifier_digest()})


def test_the_predictor_runs_on_any_engine(exported_copy: Path) -> None:
    sign(decisions.CALIBRATION, decisions.OPERATING_POINTS)
    images, patients = [lesion_image(seed) for seed in range(6)], [Patient(age=20.0 + seed, sex="male") for seed in range(6)]
    given = {name: load_predictor(engine=name).predict(images, patients, point="youden") for name in ENGINES}
    values = {engine: np.array([list(each.probabilities.values()) for each in all_of]) for engine, all_of in given.items()}
    assert np.abs(values["onnx"] - values["torch"]).max() < 1e-4 < np.abs(values["onnx-int8"] - values["torch"]).max() < 0.3
    assert [each.flagged for each in given["onnx"]] == [each.flagged for each in given["torch"]]
    assert given["onnx"][0].warnings == given["torch"][0].warnings
    assert "The network ran in 8 bits" in given["onnx-int8"][0].warnings[-1]
    eight_bits, stated = load_predictor(engine="onnx-int8"), read_metrics("export")["compared"]["int8"]
    sensitivity = eight_bits.points["youden"].sensitivity
    assert sensitivity is not None and asdict(sensitivity) == stated["sensitivity@youden"]
    assert eight_bits.card()["test"]["accuracy"] == stated["accuracy"]
    write_json(Path("metrics/export.json"), read_metrics("export") | {decisions.CLASSIFIER_SHA256: "cafe"})
    another = load_predictor(engine="onnx-int8")
    assert another.points["youden"].sensitivity is None and another.card()["test"] is None
    save_classifier(make_network(load_ensemble()["base-1"].config, seed=9).state_dict(), load_ensemble()["base-1"].config,
                    CLASSIFIER / "base-1")  # fmt: skip
    sign(decisions.CALIBRATION)
    refuses(r"models/export is not of the classifier in .*extras/dvc.yaml:export", load_predictor, engine="onnx")
