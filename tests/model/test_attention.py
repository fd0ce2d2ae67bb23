"""Attention on the last feature map, against the formulas of both papers, in every family that has a map."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, update_bn

from skinlesion.artifacts.patients import WIDTH
from skinlesion.model.network import SkinNetwork
from tests.conftest import refuses
from tests.model.network_cases import build, images, wake

# Every family that has a map, but for the largest.
FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2"),
    *("regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1"),
)


def reference_attention(network: SkinNetwork, kind: str, maps: torch.Tensor) -> torch.Tensor:
    """Both papers' formulas with a gate of 2 * sigmoid, from the weights by the order in which they were made."""
    weights = [parameter.detach() for parameter in network.attention.parameters()]
    if kind == "cbam":
        places, places_bias, *weights = weights[4:] + weights[:4] if weights[0].shape[1] != 2 else weights
    down, down_bias, up, up_bias = (weight.flatten(1) if weight.ndim > 1 else weight for weight in weights)

    def perceptron(pooled: torch.Tensor) -> torch.Tensor:
        return (pooled @ down.T + down_bias).clamp(min=0) @ up.T + up_bias

    average, largest = maps.flatten(2).mean(2), maps.flatten(2).max(2).values
    logits = perceptron(average) + (perceptron(largest) if kind == "cbam" else 0)
    maps = maps * (2 / (1 + (-logits).exp()))[:, :, None, None]
    if kind == "se":
        return maps
    pooled = torch.stack([maps.mean(1), maps.max(1).values], dim=1)
    logits = functional.conv2d(pooled, places, places_bias, padding=3)
    return maps * (2 / (1 + (-logits).exp()))


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [("se", "resnet18", 64), ("cbam", "resnet18", 96), ("se", "mobilenet_v3_small", 64), ("cbam", "swin_t", 64)],
)
def test_attention_gates_the_last_feature_map(kind: str, name: str, size: int) -> None:
    plain = build(size, backbone=name)
    update_bn([images(size)], plain.backbone)
    network = build(size, backbone=name, attention=kind)
    network.backbone.load_state_dict(plain.backbone.state_dict())  # the names of the backbone's layers are the same
    network.head.load_state_dict(plain.head.state_dict())
    plain.eval()
    network.eval()
    torch.testing.assert_close(network(images(size)), plain(images(size)))  # no change at first
    wake(network.attention)
    layers = {"resnet18": "layer4", "swin_t": "norm", "mobilenet_v3_small": "features"}
    layer = plain.backbone.get_submodule(layers[name])

    def by_hand(_: nn.Module, __: Any, maps: torch.Tensor) -> torch.Tensor:
        if name == "swin_t":
            return reference_attention(network, kind, maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return reference_attention(network, kind, maps)

    before = plain(images(size))
    layer.register_forward_hook(by_hand)
    wanted = plain(images(size))
    assert not torch.allclose(before, wanted, rtol=0.01)
    torch.testing.assert_close(network(images(size)), wanted, rtol=1e-4, atol=1e-5)


def test_attention_without_a_feature_map_is_refused() -> None:
    message = r"train.attention is 'se', .* VisionTransformer passes on tokens .*: set train.attention=none"
    refuses(message, build, backbone="vit_b_32", attention="se")


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_works_with_every_family_that_has_a_map(name: str) -> None:
    size = 64
    network = build(size, backbone=name, attention="cbam", metadata=True)
    batch, known = images(size, count=2), torch.zeros(2, WIDTH)
    update_bn([batch], network.backbone)  # or the features of a random network all but vanish
    network.eval()
    before = network(batch, known)
    wake(network.attention)
    after = network(batch, known)
    assert not torch.equal(before, after)
    after.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_copy_has_its_own_attention() -> None:
    network = build(attention="se").eval()
    averaged = AveragedModel(network)
    twin = copy.deepcopy(network)
    before = network(images())
    for copied in (twin, averaged.module):
        wake(copied.attention)
        assert not torch.allclose(copied(images()), before)
        assert torch.equal(network(images()), before)
    wake(network.attention)
    torch.testing.assert_close(network(images()), twin(images()))
    averaged.update_parameters(network)
    torch.testing.assert_close(averaged(images()), network(images()))
