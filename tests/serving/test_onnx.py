"""Networks as ONNX graphs without a stage around them: what cannot be exported, which layers are quantised, and the clock."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from skinlesion.base.errors import PipelineError
from skinlesion.model.classifier import Classifier
from skinlesion.serving.export import onnx_export, timing
from skinlesion.serving.export.onnx_export import check_batch, export_network, layers_with_weights, quantize_network
from skinlesion.serving.export.onnx_network import OnnxNetwork
from skinlesion.serving.export.timing import describe_seconds, time_engines
from tests.conftest import refuses
from tests.model.classifier_cases import make_config

SIZE = 32


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
    message = r"torch 2\.\S+ cannot export classifier 'base-0' \(resnet18\) to ONNX \(.*\): take another train\.backbone, or stay"
    refuses(message, export_network, Classifier(network, make_config()), Path("model.onnx"), weights_sha256="0")
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
