"""Networks by name: a head for our classes, and weights that are loaded whole or refused."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from skinlesion.base.errors import PipelineError
from skinlesion.config.training import list_backbones
from skinlesion.model import network as networks
from skinlesion.model.backbones import build_backbone, load_pretrained, normalization, remove_head
from tests.model.classifier_cases import build, images


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "googlenet"])
def test_a_network_gives_seven_logits_and_without_its_head_an_embedding(name: str) -> None:
    model = build_backbone(name, num_classes=7, size=64)
    assert model.training
    batch = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = model.eval()(batch)
        last, dropout = remove_head(model)
        embedding = model(batch)
        assert logits.shape == (2, 7)
        assert embedding.shape == (2, last.in_features)
        if name != "squeezenet1_1":  # which rectifies its logits and pools them; see below
            torch.testing.assert_close(last(embedding), logits)
    assert dropout == {"squeezenet1_1": 0.5, "googlenet": 0.2}.get(name, 0.0)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_v2_l", "efficientnet_v2_s", "mobilenet_v2", "vit_b_16"])
def test_normalization_is_that_of_torchvisions_checkpoint(name: str) -> None:
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert normalization(name) == (tuple(preset.mean), tuple(preset.std))


def test_networks_that_transform_their_input_get_what_they_make_of_it() -> None:
    model = torchvision.models.get_model("inception_v3", weights=None, init_weights=False, transform_input=True)
    image = torch.rand(1, 3, 8, 8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalization("resnet18"))
    wanted = model._transform_input((image - mean) / std)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in normalization("inception_v3"))
    torch.testing.assert_close((image - mean) / std, wanted)


def test_unknown_name_and_impossible_size_are_refused() -> None:
    assert "efficientnet_b2" in list_backbones()
    with pytest.raises(PipelineError, match="no classification model 'resnet19'"):
        build_backbone("resnet19", num_classes=7, size=64)
    with pytest.raises(PipelineError, match=r"'vit_b_16' cannot take images of 50 x 50 pixels .* change prepare.size"):
        build_backbone("vit_b_16", num_classes=7, size=50)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_of_1000_classes_fills_everything_but_the_head(tmp_path: Path, suffix: str) -> None:
    source = torchvision.models.get_model("mobilenet_v2", num_classes=1000).state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(source, path)
    else:
        safetensors.torch.save_file(source, path)
    model = build_backbone("mobilenet_v2", num_classes=7, size=64)
    head_before = model.classifier[1].weight.clone()
    digest = load_pretrained(model, str(path), backbone="mobilenet_v2")
    assert digest is not None and len(digest) == 64
    loaded = model.state_dict()
    assert torch.equal(loaded["classifier.1.weight"], head_before)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.items() if not name.startswith("classifier"))


@pytest.mark.parametrize("name", ["mnasnet0_5", "googlenet"])
def test_a_checkpoint_fills_a_network_without_a_head(tmp_path: Path, name: str) -> None:
    extra = {"init_weights": False} if name == "googlenet" else {}
    source = torchvision.models.get_model(name, **extra).state_dict()  # GoogLeNet's with its auxiliary heads
    safetensors.torch.save_file(source, tmp_path / "weights.safetensors")
    model = build_backbone(name, num_classes=7, size=32)
    remove_head(model)
    load_pretrained(model, str(tmp_path / "weights.safetensors"), backbone=name)
    assert all(torch.equal(source[key], tensor) for key, tensor in model.state_dict().items())
    assert {key.split(".")[0] for key in source.keys() - model.state_dict().keys()} <= {"classifier", "fc", "aux1", "aux2"}


def test_relative_paths_start_at_the_main_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(torchvision.models.get_model("resnet18", num_classes=1000).state_dict(), tmp_path / "r.pth")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert load_pretrained(build_backbone("resnet18", num_classes=7, size=32), "r.pth", backbone="resnet18")


def test_position_embedding_of_a_vision_transformer_is_interpolated(tmp_path: Path) -> None:
    small = {"patch_size": 32, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
    source = torchvision.models.VisionTransformer(image_size=96, num_classes=1000, **small).state_dict()
    torch.save(source, tmp_path / "vit.pth")
    model = torchvision.models.VisionTransformer(image_size=64, num_classes=7, **small)
    load_pretrained(model, str(tmp_path / "vit.pth"), backbone="vit_b_32")
    embedding = model.state_dict()["encoder.pos_embedding"]
    assert embedding.shape == (1, 1 + 2 * 2, 8)
    assert torch.equal(embedding[:, 0], source["encoder.pos_embedding"][:, 0])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = build_backbone("resnet18", num_classes=7, size=32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(torchvision.models.get_model("resnet34", num_classes=7).state_dict(), tmp_path / "resnet34.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "damaged.pth").write_bytes(b"no checkpoint")
    (tmp_path / "damaged.safetensors").write_bytes(b"no checkpoint")
    wrong = model.state_dict() | {"conv1.weight": torch.zeros(64, 3, 5, 5)}
    torch.save(wrong, tmp_path / "shape.pth")
    refusals = {
        "resnet34.pth": r"does not fit backbone 'resnet18': the file has besides layer1\.2",
        "list.pth": "must hold a plain state dict",
        "damaged.pth": "is no readable state dict",
        "damaged.safetensors": "is no readable state dict",
        "shape.pth": r"has other shapes in conv1.weight \(64, 3, 5, 5\) for \(64, 3, 7, 7\)",
        "absent.pth": "no file .*absent.pth",
    }
    for name, message in refusals.items():
        with pytest.raises(PipelineError, match=message):
            load_pretrained(model, str(tmp_path / name), backbone="resnet18")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_imagenet_weights_come_from_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision.models.get_model("resnet18").state_dict()
    name = Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(source, tmp_path / "hub" / "checkpoints" / name)
    model = build_backbone("resnet18", num_classes=7, size=32)
    assert load_pretrained(model, "imagenet", backbone="resnet18")
    assert torch.equal(model.conv1.weight, source["conv1.weight"])


def test_a_failed_download_is_no_random_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(PipelineError, match=r"ImageNet weights of 'resnet18' could not be downloaded .*no route to host"):
        load_pretrained(build_backbone("resnet18", num_classes=7, size=32), "imagenet", backbone="resnet18")


# Backbone, size that it takes, width of its embedding, torchvision's dropout before its last layer.
FAMILIES = [
    ("alexnet", 64, 4096, 0.0),
    ("convnext_tiny", 32, 768, 0.0),
    ("densenet121", 32, 1024, 0.0),
    ("efficientnet_b0", 32, 1280, 0.2),
    ("efficientnet_v2_s", 32, 1280, 0.2),
    ("googlenet", 32, 1024, 0.2),
    ("inception_v3", 75, 2048, 0.5),
    ("maxvit_t", 224, 512, 0.0),
    ("mnasnet0_5", 32, 1280, 0.2),
    ("mobilenet_v2", 32, 1280, 0.2),
    ("mobilenet_v3_small", 32, 1024, 0.2),
    ("regnet_y_400mf", 32, 440, 0.0),
    ("resnet18", 32, 512, 0.0),
    ("resnext50_32x4d", 32, 2048, 0.0),
    ("shufflenet_v2_x0_5", 32, 1024, 0.0),
    ("squeezenet1_1", 32, 512, 0.5),
    ("swin_t", 32, 768, 0.0),
    ("swin_v2_t", 32, 768, 0.0),
    ("vgg11", 32, 4096, 0.5),
    ("vit_b_32", 32, 768, 0.0),
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


def test_pretrained_weights_fill_the_backbone_alone(tmp_path: Path) -> None:
    source = torchvision.models.get_model("mobilenet_v2").state_dict()
    safetensors.torch.save_file(source, tmp_path / "weights.safetensors")
    network = build(backbone="mobilenet_v2", attention="se", metadata=True)
    rest = {name: tensor.clone() for name, tensor in network.state_dict().items() if not name.startswith("backbone.")}
    assert networks.load_pretrained(network, "none", backbone="mobilenet_v2") is None
    digest = networks.load_pretrained(network, str(tmp_path / "weights.safetensors"), backbone="mobilenet_v2")
    assert digest is not None and len(digest) == 64
    state = network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in rest.items())
    wanted = {name: tensor for name, tensor in source.items() if not name.startswith("classifier")}
    assert network.backbone.state_dict().keys() == wanted.keys()
    assert all(torch.equal(state[f"backbone.{name}"], tensor) for name, tensor in wanted.items())
    with pytest.raises(PipelineError, match="does not fit backbone 'resnet18'"):
        networks.load_pretrained(build(), str(tmp_path / "weights.safetensors"), backbone="resnet18")
