"""Networks by name: a head for our classes, and weights that are loaded whole or refused."""

import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest
from skinlesion.config.training import list_backbones
from skinlesion.model.backbones import build_backbone, load_pretrained, normalization, remove_head
from tests.conftest import refuses
from tests.data.scripted_server import Answer, serve


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
    assert list_backbones() == torchvision.models.list_models(module=torchvision.models)
    refuses("no classification model 'resnet19'", build_backbone, "resnet19", num_classes=7, size=64)
    message = r"'vit_b_16' cannot take images of 50 x 50 pixels .* change prepare.size"
    refuses(message, build_backbone, "vit_b_16", num_classes=7, size=50)


@pytest.mark.parametrize("with_head", [True, False])
@pytest.mark.parametrize(("name", "suffix"), [("mobilenet_v2", ".pth"), ("mnasnet0_5", ".safetensors"), ("googlenet", ".pth")])
def test_a_checkpoint_of_1000_classes_fills_everything_but_the_head(
    tmp_path: Path, name: str, suffix: str, with_head: bool
) -> None:
    extra = {"init_weights": False} if name == "googlenet" else {}
    source = torchvision.models.get_model(name, **extra).state_dict()  # GoogLeNet's with its auxiliary heads
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(source, path)
    model = build_backbone(name, num_classes=7, size=32)
    if not with_head:
        remove_head(model)
    heads = {key: tensor.clone() for key, tensor in model.state_dict().items() if key.startswith(("classifier.", "fc."))}
    assert bool(heads) == with_head
    digest = load_pretrained(model, str(path), backbone=name)
    assert digest is not None and len(digest) == 64
    assert all(torch.equal((source | heads)[key], tensor) for key, tensor in model.state_dict().items())


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
        "damaged.pth": "is not a readable state dict",
        "damaged.safetensors": "is not a readable state dict",
        "shape.pth": r"has other shapes in conv1.weight \(64, 3, 5, 5\) for \(64, 3, 7, 7\)",
        "absent.pth": "no file .*absent.pth",
    }
    for name, message in refusals.items():
        refuses(message, load_pretrained, model, str(tmp_path / name), backbone="resnet18")
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


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (Answer(), None),
        (Answer(status=403), r"HTTP 403 \(access is refused\)"),
        (Answer(status=202, headers={"x-amzn-waf-action": "challenge"}), r"HTTP 202 \(a firewall's challenge"),
        (Answer(status=429, headers={"cf-mitigated": "challenge"}), r"HTTP 429 \(a firewall's challenge"),
        (Answer(body=b"<html><input type=password>"), r"HTTP 200 \(a login page came instead"),
        (Answer(status=503, body=b"<title>Maintenance</title>"), r"HTTP 503 \(a maintenance page came .*'Maintenance'"),
    ],
)
def test_imagenet_weights_are_asked_for_by_our_name_and_what_comes_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, cause: str | None
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision.models.get_model("resnet18").state_dict()
    torch.save(source, tmp_path / "weights.pth")
    name = f"/resnet18-{file_digest(tmp_path / 'weights.pth', 'sha256')[:8]}.pth"
    model = build_backbone("resnet18", num_classes=7, size=32)
    with serve() as server:
        server.files[name] = (tmp_path / "weights.pth").read_bytes()
        server.always = answer
        monkeypatch.setattr(torchvision.models.ResNet18_Weights.DEFAULT.value, "url", f"{server.url}{name}")
        if cause is None:
            load_pretrained(model, "imagenet", backbone="resnet18")
            assert torch.equal(model.conv1.weight, source["conv1.weight"])
        else:
            way_out = "in a browser and name it in train.weights"
            refuses(
                rf"ImageNet weights of 'resnet18' .*{cause}.*{way_out}", load_pretrained, model, "imagenet", backbone="resnet18"
            )
            assert list((tmp_path / "hub/checkpoints").iterdir()) == []


def test_a_failed_download_is_no_random_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(PipelineError, match=r"ImageNet weights of 'resnet18' could not be downloaded .*no route to host"):
        load_pretrained(build_backbone("resnet18", num_classes=7, size=32), "imagenet", backbone="resnet18")
