"""Which parameter learns at which rate, by hand, and frozen backbones that stay what they were, bit by bit."""

from typing import Any

import pytest
import torch

from skinlesion.config.params import load_params
from skinlesion.config.training import TrainParams
from skinlesion.model.layers import layer_groups
from skinlesion.model.network import NetworkSpec, SkinNetwork, build_network
from skinlesion.training.optimizers import parameter_groups, set_train_mode
from tests.conftest import WriteParams


@pytest.fixture
def make_params(write_params: WriteParams) -> Any:
    def make(**values: Any) -> TrainParams:
        chosen = {"backbone": "resnet18", "attention": "cbam", "metadata": True, "head": "mlp", "lr": 0.01, "weight_decay": 0.05}
        return load_params(write_params({f"train.{name}": value for name, value in (chosen | values).items()})).train

    return make


def build(params: TrainParams, size: int = 32) -> SkinNetwork:
    torch.manual_seed(0)
    return build_network(NetworkSpec.of(params), num_classes=7, size=size)


def rates(network: SkinNetwork, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Rate and weight decay of every parameter by its name; each must be in exactly one group."""
    found = {parameter: (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found) == len(list(network.parameters()))
    return {name: found[parameter] for name, parameter in network.named_parameters()}


def test_one_rate_for_all_and_no_decay_of_biases_and_norms(make_params: Any) -> None:
    network = build(params := make_params())
    groups = parameter_groups(network, params)
    assert [group["name"] for group in groups] == ["backbone", "backbone without decay", "head", "head without decay"]
    found = rates(network, groups)
    parameters = dict(network.named_parameters())
    assert found == {name: (0.01, 0.05 if parameters[name].ndim > 1 else 0.0) for name in parameters}
    assert found["backbone.bn1.weight"] == found["backbone.bn1.bias"] == found["head.layers.5.bias"] == (0.01, 0.0)
    torch.optim.AdamW(groups)


def test_backbone_lr_is_the_backbones_alone(make_params: Any) -> None:
    network = build(params := make_params(backbone_lr=0.001))
    for name, (rate, _) in rates(network, parameter_groups(network, params)).items():
        assert rate == (0.001 if name.startswith("backbone.") else 0.01), name
    parts = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert parts == {"backbone", "attention", "metadata_encoder", "head"}


def test_layer_decay_by_hand(make_params: Any) -> None:
    network = build(params := make_params(layer_decay=0.5))
    groups = parameter_groups(network, params)
    found = {name: rate for name, (rate, _) in rates(network, groups).items()}
    depth = {"conv1": 9, "bn1": 9, "layer1.0": 8, "layer1.1": 7, "layer2.0": 6, "layer2.1": 5}
    depth |= {"layer3.0": 4, "layer3.1": 3, "layer4.0": 2, "layer4.1": 1}
    for name, rate in found.items():
        wanted = 0.01
        if name.startswith("backbone."):
            (power,) = [power for layer, power in depth.items() if name.startswith(f"backbone.{layer}.")]
            wanted = 0.01 * 0.5**power
        assert rate == pytest.approx(wanted), name
    assert groups[0]["name"] == "backbone.conv1" and groups[-1]["name"] == "head without decay"
    assert len({group["name"] for group in groups}) == len(groups)


CONVNEXTS_LAST, VITS_LAST = "features.7.2.block.0.weight", "encoder.layers.encoder_layer_11.ln_1.weight"


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("mobilenet_v3_small", 14, {"features.0.0.weight"}, {"classifier.0.weight"}),
        ("densenet121", 8, {"features.conv0.weight", "features.norm0.weight"}, {"features.norm5.weight"}),
        ("convnext_tiny", 8, {"features.0.0.weight", "features.0.1.weight"}, {CONVNEXTS_LAST, "classifier.0.weight"}),
        ("swin_t", 8, {"features.0.0.weight", "features.0.2.weight"}, {"features.7.1.mlp.0.weight", "norm.weight"}),
        ("vit_b_32", 13, {"class_token", "encoder.pos_embedding", "conv_proj.weight"}, {"encoder.ln.weight", VITS_LAST}),
        ("googlenet", 12, {"conv1.conv.weight", "conv1.bn.bias"}, {"inception5b.branch1.conv.weight"}),
    ],
)
def test_layer_groups_follow_the_forward_pass(name: str, count: int, first: set[str], last: set[str], make_params: Any) -> None:
    backbone = build(make_params(backbone=name, attention="none")).backbone
    names = {parameter: key for key, parameter in backbone.named_parameters()}
    groups = [{names[parameter] for parameter in members} for members in layer_groups(backbone).values()]
    assert len(groups) == count
    assert first <= groups[0] and last <= groups[-1]
    assert sorted(key for group in groups for key in group) == sorted(names.values())
    # Where a group's first layer runs, all groups before it have begun.
    order: list[str] = []
    modules = {key: module for key, module in backbone.named_modules() if list(module.parameters(recurse=False))}
    for key, module in modules.items():
        module.register_forward_pre_hook(lambda *_, key=key: order.append(key))
    backbone.eval()(torch.zeros(1, 3, 32, 32))
    starts = [min(order.index(key.rpartition(".")[0]) for key in group if key.rpartition(".")[0] in order) for group in groups]
    assert starts == sorted(starts)


def test_a_frozen_backbone_alone_is_not_in_training_mode(make_params: Any) -> None:
    """That it then stays what it was is tested with the loop, in test_training_options.py."""
    network = build(make_params())
    set_train_mode(network, frozen=True)
    assert network.head.training and network.attention.training and network.metadata_encoder.training
    assert not any(module.training for module in network.backbone.modules())
    set_train_mode(network.eval(), frozen=False)
    assert all(module.training for module in network.modules())
