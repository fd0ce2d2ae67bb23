"""Networks by name: a head for our classes, and weights that are loaded whole or refused."""

import re
import urllib.error
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torchvision import models

from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest
from skinlesion.config.training import WITH_DROPOUT, find_size_problem, list_backbones
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
@pytest.mark.parametrize(("name", "suffix"), [("mobilenet_v2", ".pth"), ("mnasnet0_5", ".safetensors"), ("googlenet", ".bin")])
def test_a_checkpoint_of_1000_classes_fills_all_but_the_head(tmp_path: Path, name: str, suffix: str, with_head: bool) -> None:
    extra = {"init_weights": False} if name == "googlenet" else {}
    source = torchvision.models.get_model(name, **extra).state_dict()  # GoogLeNet's with its auxiliary heads
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else safetensors.torch.save_file)(source, path)  # which of the two it is, its content says
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
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "training.pth")
    wrong = model.state_dict() | {"conv1.weight": torch.zeros(64, 3, 5, 5)}
    torch.save(wrong, tmp_path / "shape.pth")
    refusals = {
        "resnet34.pth": r"does not fit backbone 'resnet18': the file has besides layer1\.2",
        "list.pth": "must hold a plain state dict",
        "training.pth": r"must hold a plain state dict .*, and holds model, epoch: save the state dict among them alone",
        "damaged.pth": "is not a readable state dict",
        "damaged.safetensors": "is not a readable state dict",
        "shape.pth": r"has other shapes in conv1.weight \(64, 3, 5, 5\) for \(64, 3, 7, 7\)",
        "absent.pth": "no file .*absent.pth",
    }
    for name, message in refusals.items():
        refuses(message, load_pretrained, model, str(tmp_path / name), backbone="resnet18")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "changed", "difference"),
    [
        ("mnasnet0_5", {"layers.0.weight": (32, 3, 3, 3)}, r"layers.0.weight \(32, 3, 3, 3\) for \(16, 3, 3, 3\)"),  # version 1
        ("vit_b_32", {"encoder.pos_embedding": (1, 4, 768)}, r"encoder.pos_embedding \(1, 4, 768\) for \(1, 5, 768\)"),
        ("vit_b_32", {"encoder.pos_embedding": (5, 768)}, r"encoder.pos_embedding \(5, 768\) for \(1, 5, 768\)"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, name: str, changed: dict[str, tuple[int, ...]], difference: str) -> None:
    model = build_backbone(name, num_classes=7, size=64)
    torch.save(model.state_dict() | {key: torch.zeros(shape) for key, shape in changed.items()}, tmp_path / "w.pth")
    refuses(f"has other shapes in {difference}$", load_pretrained, model, str(tmp_path / "w.pth"), backbone=name)


def uncounted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As files from before batch norm counted its batches."""
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        del state[name]
    return state


def dotted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As DenseNet's published files, whose layers are called norm.1."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor for name, tensor in uncounted(state).items()}


def of_mlp_block(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As ViT's published files, whose layers have the names of torchvision 0.12."""
    return {name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t for name, t in state.items()}


def as_it_is(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state


# The layout of each family's published file, by torchvision's source and the files' dates.
PUBLISHED = {
    **dict.fromkeys(("resnet18", "resnet34", "vgg11_bn", "inception_v3", "googlenet"), uncounted),
    "densenet121": dotted,
    "vit_b_32": of_mlp_block,
    **dict.fromkeys(("alexnet", "convnext_tiny", "efficientnet_b0", "maxvit_t", "mnasnet0_5", "mnasnet1_0"), as_it_is),
    **dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnext50_32x4d", "shufflenet_v2_x0_5"), as_it_is),
    **dict.fromkeys(("squeezenet1_1", "swin_t", "swin_v2_t"), as_it_is),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_params_hold_of_a_family_is_so(name: str) -> None:
    sizes = {size: find_size_problem(name, size) for size in (32, 62, 63, 74, 75, 96, 224)}
    taken = [size for size, problem in sizes.items() if problem is None]
    refused = [size for size in sizes if size not in taken]
    if refused:
        refuses(f"cannot take images of {max(refused)} x", build_backbone, name, num_classes=7, size=max(refused))
    model = build_backbone(name, num_classes=7, size=min(taken))
    assert (remove_head(model)[1] > 0) == name.startswith(WITH_DROPOUT)
    assert isinstance(model, models.VisionTransformer) == name.startswith("vit_")  # which has no map for attention to gate


def cache_weights(monkeypatch: pytest.MonkeyPatch, home: Path, backbone: str, content: object) -> Path:
    """Put a file where torch looks for a backbone's ImageNet weights before it downloads them."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    cached = home / "hub" / "checkpoints" / Path(models.get_model_weights(backbone).DEFAULT.url).name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content) if isinstance(content, bytes) else torch.save(content, cached)
    return cached


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_familys_published_file_loads_by_name_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    source = models.get_model(name, **({"init_weights": False} if name in ("googlenet", "inception_v3") else {})).state_dict()
    wanted, published = dict(source), PUBLISHED[name](source)
    files = [cache_weights(monkeypatch, tmp_path, name, published)]
    if PUBLISHED[name] is not as_it_is:
        files.append(tmp_path / "published.safetensors")
        safetensors.torch.save_file(published, files[1])
    model = build_backbone(name, num_classes=7, size=224)
    remove_head(model)
    for weights in ("imagenet", *map(str, files)):
        for tensor in model.state_dict().values():
            tensor.fill_(2)
        load_pretrained(model, weights, backbone=name)
        assert all(torch.equal(wanted[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04 cut"])
def test_a_damaged_file_in_torchs_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    cached = cache_weights(monkeypatch, tmp_path, "resnet18", content)
    model = build_backbone("resnet18", num_classes=7, size=32)
    refuses(f"'resnet18': {cached} is damaged .*: delete it", load_pretrained, model, "imagenet", backbone="resnet18")


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
def test_imagenet_weights_by_our_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, cause: str | None) -> None:
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
            message = rf"ImageNet weights of 'resnet18' .*{cause}.*{way_out}"
            refuses(message, load_pretrained, model, "imagenet", backbone="resnet18")
            assert list((tmp_path / "hub/checkpoints").iterdir()) == []


def test_a_failed_download_is_no_random_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(PipelineError, match=r"ImageNet weights of 'resnet18' could not be downloaded .*no route to host"):
        load_pretrained(build_backbone("resnet18", num_classes=7, size=32), "imagenet", backbone="resnet18")
