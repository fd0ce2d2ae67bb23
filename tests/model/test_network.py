"""The network: every family behind one door, and every option a difference in what is computed."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, update_bn

from skinlesion.artifacts.patients import MISSING, WIDTH
from skinlesion.base.errors import PipelineError
from skinlesion.config.params import load_params
from skinlesion.model.network import NetworkSpec, SkinNetwork, build_network
from tests.conftest import WriteParams
from tests.model.classifier_cases import build, images


def wake(module: nn.Module) -> None:
    """Give layers that start at zero, and so do nothing yet, weights."""
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_a_number_replaces_torchvisions_dropout(name: str) -> None:
    network = build(backbone=name, dropout=0.75)
    assert not any(isinstance(module, nn.Dropout) for module in network.backbone.modules())
    network.backbone.eval()
    embedding = network.backbone(images())
    torch.manual_seed(5)
    mask = functional.dropout(torch.ones_like(embedding), 0.75)
    torch.manual_seed(5)
    torch.testing.assert_close(network(images()), network.head.layers[1](embedding * mask))
    network = build(backbone=name, dropout=0.0)
    network.backbone.eval()
    assert torch.equal(network(images()), network(images()))


def test_mlp_is_dropout_linear_relu_norm_dropout_linear() -> None:
    network = build(head="mlp", hidden=24, hidden_dropout=0.3, dropout=0.5)
    kinds = [nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in network.head.layers] == kinds
    assert [network.head.layers[index].p for index in (0, 4)] == [0.5, 0.3]
    assert network.head.layers[1].weight.shape == (24, 512)
    assert build(head="mlp", backbone="efficientnet_b0").head.layers[0].p == 0.2
    network(images())  # so that the averages of batch norm are not 0 and 1
    network.eval()
    first, norm, last = (network.head.layers[index] for index in (1, 3, 5))
    hidden = (network.backbone(images()) @ first.weight.T + first.bias).clamp(min=0)
    normed = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(network(images()), normed @ last.weight.T + last.bias)


@torch.no_grad()
def test_dropout_samples_average_the_logits_over_masks() -> None:
    eight, embedding = build(dropout=0.5, dropout_samples=8), torch.randn(3, 512)
    torch.manual_seed(5)
    masks = functional.dropout(torch.ones(8 * 3, 512), 0.5).view(8, 3, 512)
    torch.manual_seed(5)
    wanted = torch.stack([eight.head.layers[1](embedding * mask) for mask in masks]).mean(0)
    torch.testing.assert_close(eight.head(embedding), wanted)
    rows: list[int] = []
    eight.eval().head.layers.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    assert torch.equal(eight.head(embedding), eight.head.layers[1](embedding))
    assert rows == [3]  # one pass


def test_dropout_samples_without_dropout_are_refused() -> None:
    with pytest.raises(
        PipelineError, match=r"dropout_samples is 4, .*'resnet18' having none of its own: set train.dropout above 0"
    ):
        build(dropout_samples=4)
    assert build(dropout_samples=4, backbone="mobilenet_v3_small").head.samples == 4
    assert build(dropout_samples=4, head="mlp", hidden_dropout=0.3).head.samples == 4


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
    with pytest.raises(PipelineError, match=message):
        build(backbone="vit_b_32", attention="se")


SMALL_FAMILIES = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 googlenet mnasnet0_5 mobilenet_v2 regnet_y_400mf shufflenet_v2_x0_5 "
    "squeezenet1_1"
)


@pytest.mark.parametrize("name", SMALL_FAMILIES.split())
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


def test_metadata_reaches_the_logits() -> None:
    network = build(metadata=True).eval()
    assert network.needs_metadata
    unknown = torch.from_numpy(MISSING).repeat(4, 1)
    base = network(images(), unknown)
    for column in range(WIDTH):
        changed = unknown.clone()
        changed[0, column] += 1
        different = (network(images(), changed) != base).any(dim=1).tolist()
        assert different == [True, False, False, False], column
    with pytest.raises(ValueError, match="built with metadata: pass encode_metadata"):
        network(images())
    plain = build().eval()
    assert torch.equal(plain(images(), unknown), plain(images()))


def test_metadata_dropout_acts_in_training_alone() -> None:
    known = torch.rand(4, WIDTH)
    for probability, training, same in ((0.9, True, False), (0.9, False, True), (0.0, True, True)):
        network = build(metadata=True, metadata_dropout=probability).train(training)
        network.backbone.eval()
        torch.manual_seed(0)
        assert torch.equal(network(images(), known), network(images(), known)) == same


@torch.no_grad()
def test_memory_order_and_compilation_change_nothing() -> None:
    network = build(64, attention="cbam", metadata=True, head="mlp").eval()
    wake(network.attention)
    known = torch.rand(4, WIDTH)
    wanted = network(images(64), known)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images(64), known), wanted)
    network = network.to(memory_format=torch.channels_last)
    given = images(64).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(given, known), wanted, rtol=1e-4, atol=1e-5)


def test_a_spec_is_what_params_say(write_params: WriteParams) -> None:
    chosen = {
        "backbone": "efficientnet_b0",
        "head": "mlp",
        "hidden": 33,
        "hidden_dropout": 0.11,
        "dropout": 0.12,
        "dropout_samples": 3,
        "attention": "se",
        "metadata": True,
        "metadata_dropout": 0.13,
    }
    spec = NetworkSpec.of(load_params(write_params({f"train.{name}": value for name, value in chosen.items()})).train)
    assert asdict(spec) == chosen
    assert NetworkSpec(**asdict(spec)) == spec
    network = build_network(spec, num_classes=5, size=32).eval()
    assert network(images(), torch.zeros(4, WIDTH)).shape == (4, 5)
    assert network.metadata_encoder[0].probability == 0.13
