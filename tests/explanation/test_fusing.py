"""Folding batch norms: the same network, faster, its layers under their names, and nothing folded that must not be."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from skinlesion.artifacts.patients import WIDTH
from skinlesion.explanation.cam.fusing import fuse_batch_norms, fuse_members
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.model.classifier import Classifier
from skinlesion.model.network import SkinNetwork
from tests.model.classifier_cases import make_config, make_network

SIZE = 64


def norms(model: nn.Module) -> int:
    """How many batch norms a network has."""
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def trained(backbone: str, **spec: object) -> SkinNetwork:
    """A network whose batch norms have constants of their own."""
    model = make_network(make_config(backbone, size=SIZE, **spec))
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 10)
    return model


@pytest.mark.parametrize(
    ("backbone", "left"),
    [
        *((name, 0) for name in ("resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x0_5", "regnet_y_400mf")),
        ("densenet121", 62),  # those before a convolution, not behind one
        ("squeezenet1_1", 0),  # it has none
    ],
)
def test_the_same_logits_without_batch_norms(backbone: str, left: int) -> None:
    model = trained(backbone)
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = fuse_batch_norms(model, size=SIZE)
    assert norms(fused) == left
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(fused(images), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert dict(fused.named_modules()).keys() == dict(model.named_modules()).keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in fused.modules())


@pytest.mark.parametrize("layer", ["auto", "layer2.0.conv2", "layer2.0.bn2"])
def test_maps_are_the_same(layer: str) -> None:
    config = make_config("resnet18", size=SIZE)
    model = trained("resnet18")
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    options = MapOptions("GradCAM", torch.device("cpu"), layer)
    maps = partial(compute_maps, config=config, images=images, class_indices=[0, 5], options=options)
    ((fused, _),) = fuse_members({"base-0": Classifier(model, config)}, keep=layer).values()
    assert norms(fused) < norms(model)
    np.testing.assert_allclose(maps(fused), maps(model), atol=1e-4)


def test_attention_and_metadata_stay() -> None:
    model = trained("resnet18", attention="se", metadata=True)
    images, metadata = torch.randn(2, 3, SIZE, SIZE), torch.rand(2, WIDTH)
    fused = fuse_batch_norms(model, size=SIZE)
    with torch.no_grad():
        torch.testing.assert_close(fused(images, metadata), model(images, metadata), rtol=1e-3, atol=1e-3)


class Branching(nn.Module):
    """Reads a convolution's output before and behind its batch norm: folding would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 7)
        self.norm.running_mean.fill_(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, size, size) to (N, 7)."""
        features = self.convolution(images)
        return self.head((features * self.norm(features)).mean(dim=(2, 3)))


def test_a_network_that_folding_would_change_is_left_as_it_is() -> None:
    model = SkinNetwork(Branching(), nn.Identity()).eval()
    fused = fuse_batch_norms(model, size=SIZE)
    assert norms(fused) == 1
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(fused(images), model(images))
