"""Every family of torchvision's networks as ONNX in float32 and int8; most of them by `make drills` alone."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from skinlesion.artifacts.patients import WIDTH
from skinlesion.model.classifier import Classifier
from skinlesion.serving.export.onnx_export import export_network, quantize_network
from skinlesion.serving.export.onnx_network import OnnxNetwork
from tests.model.classifier_cases import make_config, make_network

pytestmark = pytest.mark.operations

RICH: dict[str, Any] = {"head": "mlp", "metadata": True, "dropout": 0.3, "dropout_samples": 3}
# Networks of other options than none, and of another size than 64 px.
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"attention": "se"} for name in ("convnext_tiny", "mobilenet_v3_small")},
    **{name: {"attention": "cbam", **RICH} for name in ("efficientnet_b0", "resnet18")},
    "swin_t": {"attention": "cbam"},
    "swin_v2_t": RICH,
}
SIZES = {"alexnet": 96, "inception_v3": 96, "maxvit_t": 224}
NETWORKS = (
    *(*OPTIONS, *SIZES, "densenet121", "efficientnet_v2_s", "googlenet", "mnasnet0_5", "mobilenet_v2", "regnet_y_400mf"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "vgg11", "vit_b_32"),
)
# One of each kind of network; the others take minutes, and `make drills` runs them.
ALWAYS = ("convnext_tiny", "efficientnet_b0", "mobilenet_v2", "swin_t")
LATER = (pytest.mark.drills, pytest.mark.skipif(os.environ.get("DRILLS") != "full", reason="only by make drills: minutes"))


@pytest.mark.parametrize("backbone", [pytest.param(each, marks=() if each in ALWAYS else LATER) for each in NETWORKS])
def test_a_family_says_in_onnx_what_it_says_in_torch(tmp_path: Path, backbone: str) -> None:
    size = SIZES.get(backbone, 64)
    config = make_config(backbone, size=size, **OPTIONS.get(backbone, {}))
    model = make_network(config)
    plain, small = tmp_path / "model.onnx", tmp_path / "model-int8.onnx"
    export_network(Classifier(model, config), plain, weights_sha256="0")
    generator = torch.Generator().manual_seed(0)
    images, metadata = torch.randn(8, 3, size, size, generator=generator), torch.rand(8, WIDTH, generator=generator)
    inputs = {"images": images.numpy()} | ({"metadata": metadata.numpy()} if config.needs_metadata else {})
    quantize_network(plain, small, [inputs], name=config.name, float32_layers=2, weights_sha256="0")
    exact, rough = OnnxNetwork(plain, threads=2), OnnxNetwork(small, threads=2)
    for batch in (1, 3, 8):
        with torch.inference_mode():
            expected = model(images[:batch], metadata[:batch])
        scale = float(expected.abs().max())
        assert float((exact(images[:batch], metadata[:batch]) - expected).abs().max()) < 1e-4 * scale
        assert rough(images[:batch], metadata[:batch]).isfinite().all()
    assert small.stat().st_size < 0.4 * plain.stat().st_size
