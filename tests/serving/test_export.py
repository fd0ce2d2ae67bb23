"""The extra `export` on a tiny ensemble: graphs that say what torch says, int8 that is int8, and files that are refused."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from extras import export
from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.patients import WIDTH, Patient, encode_metadata
from skinlesion.artifacts.prepared import INDEX_COLUMNS, PREPARED, read_prepared
from skinlesion.artifacts.splits import SplitFacts, read_split, write_splits
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, labels_of, write_table
from skinlesion.audits.findings import found_extras, outdated, read_extra
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest, read_json, write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.evaluation.inference.inference import predict_batch
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.decisions import (
    CALIBRATION,
    CLASSIFIER_SHA256,
    OPERATING_POINTS,
    read_calibration,
    read_operating_points,
    write_calibration,
    write_operating_points,
)
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from skinlesion.model.classifier import Classifier, load_ensemble, normalize, save_classifier
from skinlesion.serving.engines import ENGINES
from skinlesion.serving.export import onnx_export, timing
from skinlesion.serving.export.onnx_export import check_batch, export_network, layers_with_weights, quantize_network
from skinlesion.serving.export.onnx_network import EXPORT, OnnxNetwork, load_onnx_ensemble
from skinlesion.serving.export.parity import describe_parity, predict_table
from skinlesion.serving.export.timing import describe_seconds, time_engines
from skinlesion.serving.predictor import load_predictor
from tests.conftest import ROOT
from tests.model.classifier_cases import last_linear, make_config, make_network, save_ensemble
from tests.serving.predictor_cases import lesion_image

SIZE, IMAGES, DRAWS = 32, 42, 100
SCALE = 0.8  # one over the temperature
COLUMNS = list(PROBABILITY_COLUMNS)
POINTS = {"recall_0.90": {"constraint": 0.9, "threshold": 0.12}, "youden": {"constraint": None, "threshold": 0.2}}
PARAMS = {"batch_size": 9, "calibration_images": 12, "rounds": 2, "bootstrap_draws": DRAWS}
MEMBERS = {"base-0": "squeezenet1_1", "base-1": "squeezenet1_0"}
RICH = {"attention": "cbam", "head": "mlp", "metadata": True, "dropout": 0.3, "dropout_samples": 3}  # of the second member


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they give on networks this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_listed(first: int, images: int) -> pd.DataFrame:
    """Two images a lesion, all diagnoses."""
    numbers = np.arange(first, first + images)
    dx = np.array(CLASSES)[numbers // 2 % len(CLASSES)]
    frame = pd.DataFrame({"image_id": [f"ISIC_{number:03d}" for number in numbers], "lesion_id": numbers // 2, "dx": dx})
    sex = np.where(numbers % 3 == 0, "female", "male")
    return frame.assign(
        lesion_id=frame["lesion_id"].map("L{:02d}".format), dx_type="histo", age=numbers % 80 + 5.0, sex=sex
    ).assign(localization=np.where(numbers % 2 == 0, "back", "unknown"))


def sensitive_member(seed: int) -> Classifier:
    """A random network whose logits differ between images by about 1: those of a fresh one hardly do."""
    name = f"base-{seed}"
    config = make_config(MEMBERS[name], seed=seed, size=SIZE, **(RICH if seed else {}))
    model = make_network(config, seed=seed)
    prepared, listed = read_prepared(), read_split("val")
    images = torch.from_numpy(prepared.images[prepared.rows_of(listed["image_id"])])
    with torch.inference_mode():
        logits = model(normalize(images, config), torch.from_numpy(encode_metadata(listed)))
    layer = last_linear(model)
    with torch.no_grad():
        layer.weight /= logits.std(dim=0)[:, None]
        layer.bias.copy_((layer.bias - logits.mean(dim=0)) / logits.std(dim=0))
    return Classifier(model, config)


def votes(listed: pd.DataFrame) -> np.ndarray:
    """Log of the mean probability of members and flips, by torch and NumPy alone."""
    prepared = read_prepared()
    images = torch.from_numpy(prepared.images[prepared.rows_of(listed["image_id"])])
    probabilities = []
    for model, config in load_ensemble().values():
        batch = normalize(images, config)
        for view in (batch, batch.flip(-1), batch.flip(-2), batch.flip(-1, -2)):
            with torch.inference_mode():
                logits = model(view, torch.from_numpy(encode_metadata(listed))).double().numpy()
            probabilities.append(softmax(logits, axis=1))
    return np.log(np.mean(probabilities, axis=0))


def write_inputs(params: dict[str, Any]) -> None:
    """Everything that the stage reads."""
    document = copy.deepcopy(params)
    document["export"] |= PARAMS
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(document, file)
    generator, lists = np.random.default_rng(0), {"test": make_listed(0, IMAGES), "val": make_listed(IMAGES, 28)}
    lists["train"] = make_listed(IMAGES + 28, 28)
    everything = pd.concat(list(lists.values())).sample(frac=1, random_state=0, ignore_index=True)
    colors = generator.uniform(40, 215, (len(everything), 3)) + 20 * labels_of(everything)[:, None] / 7
    images = colors[:, None, None] + generator.normal(0, 25, (len(everything), SIZE, SIZE, 3))
    PREPARED.mkdir(parents=True)
    np.save(PREPARED / "images.npy", np.clip(images, 0, 255).astype(np.uint8))
    index = everything[["image_id"]].assign(width=40, height=30, fit="squash", color_constancy="none")
    write_table(index, PREPARED / "index.csv", INDEX_COLUMNS)
    write_splits(lists, SplitFacts("f00d", "sample", True))
    save_ensemble([sensitive_member(seed) for seed in range(len(MEMBERS))])
    calibration = {"method": "temperature", "scale": [SCALE] * 7, "bias": [0.0] * 7, "temperature": 1 / SCALE, "fitted_on": "val"}
    write_calibration(calibration | {"test_time": "flips"})
    described = {"target": "mel", "classes": ["mel"], "score": "probability", "rule": ">=", "chosen_on": "val", "points": POINTS}
    write_operating_points(described)
    tables = {}
    for name in ("val", "test"):
        logits = votes(lists[name])
        numbers = np.hstack([logits, softmax(SCALE * logits, axis=1)])
        tables[name] = lists[name].join(pd.DataFrame(numbers, columns=[*LOGIT_COLUMNS, *COLUMNS]))
    write_predictions(tables)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, repository_params: dict[str, Any]) -> Path:
    """A workspace in which the stage was run once; tests that change it copy it. `seen.txt` names the images of calibration."""
    folder, seen = tmp_path_factory.mktemp("exported"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        write_inputs(repository_params)
        inputs = export.graph_inputs
        patch.setattr(export, "graph_inputs", lambda *given: seen.append(given[2]) or inputs(*given))
        export.main()
    (folder / "seen.txt").write_text("\n".join(pd.concat(seen)["image_id"]), encoding="utf-8")
    return folder


@pytest.fixture
def here(exported: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is the exported workspace, which the test leaves as it is."""
    monkeypatch.chdir(exported)
    return exported


@pytest.fixture
def own(exported: Path, workspace: Path) -> Path:
    """The working directory is a copy of it."""
    shutil.copytree(exported, workspace, dirs_exist_ok=True)
    return workspace


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


def test_the_figures_can_be_recomputed_by_onnx_runtime_and_scikit_learn(here: Path) -> None:
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


def test_what_the_stage_leaves(here: Path) -> None:
    found, said = read_metrics(), json.loads((EXPORT / "export.json").read_text(encoding="utf-8"))
    assert (found["images"], found["lesions"], found["side"], found["test_time"]) == (IMAGES, IMAGES // 2, SIZE, "flips")
    assert found["backbones"] == MEMBERS and list(said["members"]) == list(MEMBERS)
    for name, member in said["members"].items():
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


def test_int8_takes_its_ranges_from_validation_alone(here: Path) -> None:
    seen = Path("seen.txt").read_text(encoding="utf-8").split()
    once = seen[: PARAMS["calibration_images"]]
    assert seen == once * len(MEMBERS) and len(set(once)) == len(once)  # of each member the same ones
    assert set(once) < set(read_split("val")["image_id"])
    assert read_metrics()["int8"] == {"calibrated_on": "val", "calibration_images": 12, "float32_layers": 2}


@pytest.mark.parametrize("name", MEMBERS)
def test_graphs_are_whole_small_and_tell_nothing_of_this_machine(here: Path, name: str) -> None:
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
def test_any_number_of_images_gives_what_torch_gives(here: Path, images: int) -> None:
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


def test_threads_share_a_network(here: Path) -> None:
    network, config = load_onnx_ensemble(EXPORT, "int8")["base-0"]
    batches = [torch.randint(0, 256, (5, SIZE, SIZE, 3), dtype=torch.uint8) for _ in range(24)]

    def predict(batch: torch.Tensor) -> np.ndarray:
        return predict_batch(network, config, batch, None, test_time="none").logits

    alone = [predict(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(predict, batches))
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))


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
    ("spoil", "said"),
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
def test_what_is_not_of_this_classifier_is_refused(own: Path, spoil: Any, said: str) -> None:
    assert list(load_onnx_ensemble(EXPORT, "int8")) == list(MEMBERS)
    spoil()
    with pytest.raises(PipelineError, match=said):
        load_onnx_ensemble(EXPORT, "int8")


def test_an_unknown_precision_is_refused_with_the_nearest(here: Path) -> None:
    with pytest.raises(PipelineError, match=r"unknown precision 'float23' of an export; did you mean 'float32'\?"):
        load_onnx_ensemble(EXPORT, "float23")


def run_again(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """The stage with the graphs that are there instead of new ones."""

    def reuse(classifier: Classifier, folder: Path, *_: Any) -> dict[str, Any]:
        shutil.copytree(source / EXPORT / classifier.config.name, folder / classifier.config.name)
        said = json.loads((source / EXPORT / "export.json").read_text(encoding="utf-8"))["members"][classifier.config.name]
        return said | {"weights_sha256": file_digest(CLASSIFIER / classifier.config.name / "weights.safetensors", "sha256")}

    monkeypatch.setattr(export, "export_member", reuse)
    export.main()


def test_predictions_of_another_run_are_refused_and_nothing_is_left(
    own: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
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


def test_a_graph_that_says_something_else_is_refused(here: Path) -> None:
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


class CountingNetwork(torch.nn.Module):
    """Takes its number of images for a constant, which only one batch then fits."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(2, -1)[:, :7]


class RandomNetwork(torch.nn.Module):
    """Does what no ONNX operator does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(images[:, 0])[:, :7].real


@pytest.mark.parametrize("network", [CountingNetwork(), RandomNetwork()])
def test_a_network_that_cannot_be_exported_gives_one_message(workspace: Path, network: torch.nn.Module) -> None:
    said = r"torch 2\.\S+ cannot export classifier 'base-0' \(resnet18\) to ONNX \(.*\): take another train\.backbone, or stay"
    with pytest.raises(PipelineError, match=said):
        export_network(Classifier(network, make_config()), Path("model.onnx"), weights_sha256="0")  # type: ignore[arg-type]
    assert not list(workspace.iterdir())


def test_a_fixed_number_of_images_is_noticed() -> None:
    value = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [2, 3])
    graph = onnx.helper.make_model(onnx.helper.make_graph([], "fixed", [value], [value]))
    with pytest.raises(ValueError, match="number of images of 'images' was fixed to 2"):
        check_batch(graph)


def test_a_layer_that_was_left_in_float32_is_not_quantized_after_all(workspace: Path) -> None:
    """A depthwise convolution between two that are quantised, whose channels differ in scale as folded batch norms make them."""
    torch.manual_seed(0)
    depthwise = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)
    with torch.no_grad():
        depthwise.weight *= torch.logspace(-3, 1, 16).view(16, 1, 1, 1)
    head = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 7))
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), depthwise, torch.nn.Conv2d(16, 16, 3), *head).eval()
    batch = torch.randn(8, 3, SIZE, SIZE)
    plain, target = Path("plain.onnx"), Path("int8.onnx")
    export_network(Classifier(model, make_config()), plain, weights_sha256="0")  # type: ignore[arg-type]
    layers = layers_with_weights(onnx.load(plain))
    assert len(layers) == 4
    with pytest.MonkeyPatch.context() as patch:
        # Of the layers that stay, the first alone is in the middle.
        patch.setattr(onnx_export, "layers_with_weights", lambda graph: [layers[1], layers[0], layers[2], layers[3]])
        quantize_network(plain, target, [{"images": batch.numpy()}], name="base-0", float32_layers=1, weights_sha256="0")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    as_written = onnxruntime.InferenceSession(target, options).run(None, {"images": batch.numpy()})[0]
    logits = OnnxNetwork(target, threads=1)(batch).numpy()
    assert np.abs(logits - as_written).max() < 0.02 * as_written.std(axis=0).max()
    with pytest.raises(PipelineError, match=r"export\.float32_layers is 3, .* of the 4 layers of classifier 'base-0' .*lower it"):
        quantize_network(plain, target, [], name="base-0", float32_layers=3, weights_sha256="0")


def test_engines_take_turns_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []
    engines = {name: lambda images, name=name: calls.append((name, len(images))) for name in "abc"}
    found = time_engines(engines, torch.zeros(4, 1), batches=[1, 4], rounds=2)
    assert list(found) == ["1", "4"] and list(found["4"]) == ["a", "b", "c"]
    assert "".join(name for name, _ in calls) == ("aaabbbccc" + "abccba") * 2
    assert [images for _, images in calls] == [1] * 15 + [4] * 15
    described = describe_seconds([0.1, 0.2, 0.4], images=8)
    assert described == pytest.approx({"p50_ms": 200, "p95_ms": 380, "images_per_second": 40, "calls": 3})
    monkeypatch.setattr(timing, "MOST_SECONDS", 0.0)  # a machine that is too busy for more
    assert found["1"]["a"]["calls"] == 2 == time_engines(engines, torch.zeros(1, 1), batches=[1], rounds=50)["1"]["c"]["calls"]


def sign(*paths: Path) -> None:
    """Let files say that they belong to the classifier that is there."""
    for path in paths:
        write_json(path, read_json(path) | {CLASSIFIER_SHA256: classifier_digest()})


def test_the_predictor_runs_on_any_engine(own: Path) -> None:
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
