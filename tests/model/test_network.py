"""The network: every family behind one door, and every option a difference in what is computed."""

from dataclasses import asdict

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from skinlesion.artifacts.patients import MISSING, WIDTH
from skinlesion.config.params import load_params
from skinlesion.model.network import NetworkSpec, build_network
from tests.conftest import WriteParams
from tests.model.network_cases import build, images, wake

# Backbone, size that it takes, width of its embedding, torchvision's dropout before its last layer.
FAMILIES = [
    *(("alexnet", 64, 4096, 0.0), ("inception_v3", 75, 2048, 0.5), ("maxvit_t", 224, 512, 0.0), ("squeezenet1_1", 32, 512, 0.5)),
    *(("vgg11", 32, 4096, 0.5), ("regnet_y_400mf", 32, 440, 0.0), ("resnet18", 32, 512, 0.0), ("resnext50_32x4d", 32, 2048, 0.0)),
    *((name, 32, 768, 0.0) for name in ("convnext_tiny", "swin_t", "swin_v2_t", "vit_b_32")),
    *((name, 32, 1024, dropout) for name, dropout in {"densenet121": 0.0, "shufflenet_v2_x0_5": 0.0, "googlenet": 0.2}.items()),
    *((name, 32, 1280, 0.2) for name in ("efficientnet_b0", "efficientnet_v2_s", "mnasnet0_5", "mobilenet_v2")),
    ("mobilenet_v3_small", 32, 1024, 0.2),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "size", "width", "dropout"), FAMILIES)
def test_every_family_gives_an_embedding_and_seven_logits(name: str, size: int, width: int, dropout: float) -> None:
    network = build(size, backbone=name)
    assert network.training and not network.needs_metadata and network.attention is None
    assert network.head.layers[0].p == dropout
    network.eval()
    batch = images(size, count=1)
    embedding, logits = network.backbone(batch), network(batch)
    assert embedding.shape == (1, width)
    assert logits.shape == (1, 7) and logits.dtype == torch.float32
    # As a safetensors file brings it: without torch's tags of versions.
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for tensor in network.state_dict().values():
        tensor.zero_()
    assert not torch.equal(network(batch), logits) or name == "vit_b_32"  # whose head starts at zero
    network.load_state_dict(state)
    assert torch.equal(network(batch), logits)
    assert torch.equal(network.backbone(batch), embedding)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenet_v3_small", "googlenet"])
def test_without_options_it_computes_what_torchvisions_network_does(name: str) -> None:
    extra = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, num_classes=7, **extra)
    network = build(backbone=name)
    torch.manual_seed(3)
    wanted = reference.train()(images())
    torch.manual_seed(3)
    assert torch.equal(network(images()), wanted)


@torch.no_grad()
def test_squeezenets_last_convolution_is_a_linear_layer_on_the_mean_of_the_map() -> None:
    torch.manual_seed(0)
    reference = torchvision.models.get_model("squeezenet1_1", num_classes=7).eval()
    wanted = reference.classifier[1](reference.features(images(64))).mean((2, 3))
    torch.testing.assert_close(build(64, backbone="squeezenet1_1").eval()(images(64)), wanted)


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
    chosen = {"backbone": "efficientnet_b0", "head": "mlp", "hidden": 33, "hidden_dropout": 0.11, "dropout": 0.12}
    chosen |= {"dropout_samples": 3, "attention": "se", "metadata": True, "metadata_dropout": 0.13}
    spec = NetworkSpec.of(load_params(write_params({f"train.{name}": value for name, value in chosen.items()})).train)
    assert asdict(spec) == chosen
    assert NetworkSpec(**asdict(spec)) == spec
    network = build_network(spec, num_classes=5, size=32).eval()
    assert network(images(), torch.zeros(4, WIDTH)).shape == (4, 5)
    assert network.metadata_encoder[0].probability == 0.13
