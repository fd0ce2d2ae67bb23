"""Every method by its name: planted evidence, torchcam's own numbers, who is refused and why, and what is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchcam.methods
from PIL import Image
from torch import nn
from torch.nn import functional
from torchvision.models import SwinTransformer, VisionTransformer

from skinlesion.artifacts.patients import WIDTH
from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import Fit
from skinlesion.data.geometry import fit_image
from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam import members
from skinlesion.explanation.cam.maps import compute_maps, describe_duration
from skinlesion.explanation.cam.methods import DEFAULT_SAMPLES, METHODS, PERTURBATION_METHODS, MapOptions
from skinlesion.explanation.cam.occlusion import CELLS
from skinlesion.explanation.cam.targets import find_target
from skinlesion.model.classifier import Classifier, normalize
from skinlesion.model.metadata import MetadataEncoder
from skinlesion.model.network import SkinNetwork
from tests.conftest import ROOT
from tests.explanation.test_cam import CPU, ColourNet, build, colour_network, config_of, noise_images
from tests.model.classifier_cases import make_config, tensors_left_by

SIZE = 16
SEED = 5


class SmallNet(nn.Module):
    """Two strided convolutions whose maps are pooled: 8 x 8 and 4 x 4 cells of 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.pool(self.second(self.first(images))).flatten(1)


class BreakableHead(nn.Linear):
    """A linear layer whose n-th call from now on fails."""

    calls_left = -1

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise RuntimeError("broken on purpose")
        return super().forward(features)


def small_network(*, metadata: bool = False) -> SkinNetwork:
    torch.manual_seed(1)
    encoder = MetadataEncoder(dropout=0.0) if metadata else None
    features = 5 + (encoder.FEATURES if encoder is not None else 0)
    network = SkinNetwork(SmallNet(), BreakableHead(features, len(CLASSES)), metadata_encoder=encoder)
    for parameter in network.parameters():
        parameter.data.mul_(3)  # so that classes differ
    return network.eval()


def tiny_vit() -> tuple[SkinNetwork, VisionTransformer]:
    """A ViT of two blocks and 4 x 4 patches, as our network and as torchvision's whole one, of the same weights."""
    torch.manual_seed(2)
    options = {"image_size": SIZE, "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    whole, backbone = (VisionTransformer(**options, num_classes=len(CLASSES)).eval() for _ in range(2))
    head = BreakableHead(8, len(CLASSES))
    nn.init.normal_(whole.heads.head.weight)
    backbone.load_state_dict(whole.state_dict())
    head.load_state_dict(whole.heads.head.state_dict())
    backbone.heads = nn.Identity()
    return SkinNetwork(backbone, head).eval(), whole


def tiny_swin() -> SkinNetwork:
    """A Swin whose last maps have 2 x 2 cells, channels last."""
    torch.manual_seed(3)
    options = {"patch_size": [4, 4], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": [2, 2]}
    backbone = SwinTransformer(**options, num_classes=1)
    backbone.head = nn.Identity()
    return SkinNetwork(backbone, BreakableHead(16, len(CLASSES))).eval()


def network_for(method: str) -> tuple[SkinNetwork, str]:
    """A small network that the method can read, and its layer."""
    return (tiny_vit()[0], "auto") if method == "LeGrad" else (small_network(), "second")


def maps_of(
    model: SkinNetwork,
    images: np.ndarray,
    classes: list[int],
    *,
    metadata: np.ndarray | None = None,
    progress: bool = False,
    **options: Any,
) -> np.ndarray:
    """Maps on the CPU; `options` are those of `MapOptions`."""
    chosen = MapOptions(device=CPU, **{"batch_size": 4, "seed": SEED} | options)
    config = config_of("resnet18", len(images[0]))
    return compute_maps(model, config, images, classes, chosen, metadata=metadata, progress=progress)


def scaled(values: np.ndarray) -> np.ndarray:
    """Rectified, the strongest cell at 1."""
    values = np.maximum(values, 0)
    return values / values.max() if values.max() > 0 else values


def test_every_method_of_torchcam_is_there() -> None:
    offered = {name for name, thing in vars(torchcam.methods).items() if isinstance(thing, type) and name[0] != "_"}
    assert set(METHODS) == offered | {"Occlusion"}
    assert len(set(METHODS)) == len(METHODS)
    assert set(METHODS) >= PERTURBATION_METHODS | set(DEFAULT_SAMPLES)
    for method, samples in DEFAULT_SAMPLES.items():
        with getattr(torchcam.methods, method)(SmallNet(), "second") as extractor:
            assert extractor.num_samples == samples


def test_unknown_method_layer_class_and_diagnosis_are_named() -> None:
    model, images = small_network(), noise_images(2, SIZE)
    with pytest.raises(PipelineError, match=r"^gradcam.methods: no method 'GradCam'; did you mean 'GradCAM'\?; known: CAM, "):
        maps_of(model, images, [0, 1], method="GradCam", layer="second")
    with pytest.raises(PipelineError, match="SmallNet has no layer 'secnd'; nearest: second"):
        maps_of(model, images, [0, 1], method="ScoreCAM", layer="secnd")
    with pytest.raises(ValueError, match="no class -1; they are numbers from 0 to 6"):
        maps_of(model, images, [0, -1], method="CAM", layer="second")
    with pytest.raises(ValueError, match="1 numbers for 2 images"):
        maps_of(model, images, [0], method="CAM", layer="second")
    with pytest.raises(ValueError, match="samples is 0"):
        maps_of(model, images, [0, 1], method="ISCAM", layer="second", samples=0)
    config = config_of("resnet18", SIZE)
    pair = {f"{member}-0": Classifier(model, replace(config, member=member)) for member in ("m0", "m1")}
    with pytest.raises(
        PipelineError, match=r"LeGrad reads the attention .* \(LeGrad, layer 'second', of member 'm0-0'; each of the 2"
    ):
        members.find_layers(pair, ["GradCAM", "LeGrad"], "second")
    found = members.find_layers(pair, ["GradCAM", "RefineCAM", "Occlusion"], "second")
    assert [layers["m1-0"].name for layers in found.values()] == ["second", "first x second", "image"]
    assert [layers["m1-0"].side for layers in found.values()] == [4, 8, CELLS]
    table = pd.DataFrame({"row": [0, 1], "predicted": ["nv", "mel"], "dx": ["nv", "mell"]})
    options = MapOptions("GradCAM", CPU, "second")
    with pytest.raises(PipelineError, match=r"dx: the network has no class mell; did you mean 'mel'\?; its classes are akiec"):
        members.explain(pair, images, table, options, column="dx")
    explained = members.explain(pair, images, table.assign(dx=["bcc", "df"]), options, column="dx")
    np.testing.assert_array_equal(explained["m1-0"].maps, maps_of(model, images, [1, 3], method="GradCAM", layer="second"))


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("RefineCAM", "LeGrad")])
def test_map_peaks_on_the_planted_evidence(method: str) -> None:
    images = np.zeros((1, 20, 20, 3), dtype=np.uint8)
    images[0, 4, 15, 0] = images[0, 12, 3, 2] = 255
    for class_index, (row, column) in [(0, (4, 15)), (1, (12, 3))]:
        (values,) = maps_of(colour_network(), images, [class_index], method=method, layer="red_and_blue")
        side = len(values)
        assert side == (CELLS if method == "Occlusion" else 20)
        place = (int((row + 0.5) * side / 20), int((column + 0.5) * side / 20))
        assert np.unravel_index(values.argmax(), values.shape) == place
        assert (values.dtype, values.min(), values.max()) == (np.float32, 0, 1)
    if method not in PERTURBATION_METHODS or method == "Occlusion":
        (against,) = maps_of(colour_network(), images, [2], method=method, layer="red_and_blue")
        assert not against[place]  # blue speaks for no other class


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("RefineCAM", "LeGrad", "Occlusion")])
@pytest.mark.parametrize("network", ["small", "swin", "vit"])
def test_torchcam_gives_the_same_one_image_at_a_time(method: str, network: str) -> None:
    if network == "vit" and method == "CAM":
        pytest.skip("refused, see below")
    model = {"small": small_network, "swin": tiny_swin, "vit": lambda: tiny_vit()[0]}[network]()
    layer = {"small": "second", "swin": "norm", "vit": "encoder.layers.encoder_layer_1.ln_1"}[network]
    reshape: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "swin": lambda output: output.permute(0, 3, 1, 2),
        "vit": lambda output: output[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2),
    }
    options: dict[str, Any] = {"fc_layer": "head"} if method == "CAM" else {}
    images, classes = noise_images(5, SIZE), [0, 1, 2, 3, 6]
    expected = []
    with getattr(torchcam.methods, method)(
        model, f"backbone.{layer}", reshape_transform=reshape.get(network), **options
    ) as extractor:
        for position, (image, class_index) in enumerate(zip(images, classes, strict=True)):
            torch.manual_seed(SEED + position)
            inputs = normalize(torch.from_numpy(image[None]), config_of("resnet18", SIZE))
            # A list where FinerCAM and the rest take one, a number where both do.
            expected.append(scaled(extractor([class_index], model(inputs), normalized=False)[0][0].detach().numpy()))
    assert sum(values.max() == 1 for values in expected) >= 2
    for batch_size in (1, 3, 64):
        values = maps_of(model, images, classes, method=method, layer=layer, batch_size=batch_size)
        tolerance = 2e-3 if method == "SmoothGradCAMpp" else 2e-5
        np.testing.assert_allclose(values, expected, atol=tolerance, err_msg=f"batch size {batch_size}")


@pytest.mark.parametrize("layer", ["auto", "encoder.layers.encoder_layer_1"])
def test_torchcam_gives_the_same_le_grad(layer: str) -> None:
    model, whole = tiny_vit()
    images, classes = noise_images(3, SIZE), [0, 3, 6]
    blocks = list(whole.encoder.layers)[0 if layer == "auto" else 1 :]
    with torchcam.methods.LeGrad(whole, blocks) as extractor:
        inputs = normalize(torch.from_numpy(images), config_of("resnet18", SIZE))
        expected = [
            scaled(extractor(index, whole(one[None]), normalized=False)[0][0].numpy())
            for one, index in zip(inputs, classes, strict=True)
        ]
    for batch_size in (1, 2):
        values = maps_of(model, images, classes, method="LeGrad", layer=layer, batch_size=batch_size)
        np.testing.assert_allclose(values, expected, atol=1e-5)
    assert values.shape == (3, 4, 4)


def test_refine_cam_multiplies_maps_where_their_cells_lie() -> None:
    """Cells of `first` are centred on pixels 0, 2, 4, ..., of `second` on 0, 4, 8, 12."""
    model, images, classes = small_network(), noise_images(4, SIZE), [0, 1, 2, 3]
    expected = []
    with torchcam.methods.GradCAMpp(model, ["backbone.first", "backbone.second"]) as extractor:
        for image, class_index in zip(images, classes, strict=True):
            scores = model(normalize(torch.from_numpy(image[None]), config_of("resnet18", SIZE)))
            fine, coarse = (each[0].numpy() for each in extractor(class_index, scores))
            places = np.arange(8) / 2
            along = np.stack([np.interp(places, range(4), row) for row in coarse])
            expected.append(scaled(fine * np.stack([np.interp(places, range(4), column) for column in along.T], axis=1)))
    assert sum(values.max() == 1 for values in expected) >= 2
    for batch_size in (1, 4):
        values = maps_of(model, images, classes, method="RefineCAM", layer="second", batch_size=batch_size)
        np.testing.assert_allclose(values, expected, atol=1e-4)
    stretched = torchcam.methods.RefineCAM(model, ["backbone.first", "backbone.second"])
    with stretched:
        inputs = normalize(torch.from_numpy(images), config_of("resnet18", SIZE))
        usual = stretched(classes, model(inputs), normalized=False)[0].numpy()
    assert max(np.abs(scaled(one) - other).max() for one, other in zip(usual, expected, strict=True)) > 0.1


def test_occlusion_by_hand() -> None:
    """Each window laid by hand, cell by cell, on 16 pixels: a cell is two pixels, a window four."""
    model, images = small_network(), noise_images(1, SIZE)
    inputs = normalize(torch.from_numpy(images), config_of("resnet18", SIZE))

    def log_probability(image: torch.Tensor) -> float:
        with torch.no_grad():
            return float(functional.log_softmax(model(image), dim=1)[0, 2])

    sums = np.zeros((CELLS, CELLS))
    for top in range(-2, SIZE, 2):
        for left in range(-2, SIZE, 2):
            covered, window = inputs.clone(), (slice(max(0, top), top + 4), slice(max(0, left), left + 4))
            covered[(..., *window)] = inputs.mean(dim=(2, 3))[..., None, None]
            cells = tuple(slice(each.start // 2, each.stop // 2) for each in window)
            sums[cells] += log_probability(inputs) - log_probability(covered)
    for batch_size in (1, 7, 100):
        (values,) = maps_of(model, images, [2], method="Occlusion", layer="auto", batch_size=batch_size)
        np.testing.assert_allclose(values, scaled(sums / 4), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_flipped_is_of_the_mirrored_images(method: str) -> None:
    model, layer = network_for(method)
    images, samples = noise_images(2, SIZE), {"samples": 2}
    mirrored = maps_of(model, images[:, :, ::-1], [0, 1], method=method, layer=layer, **samples)
    np.testing.assert_allclose(
        maps_of(model, images, [0, 1], method=method, layer=layer, flipped=True, **samples), mirrored, atol=1e-6
    )
    assert np.abs(maps_of(model, images, [0, 1], method=method, layer=layer, **samples) - mirrored).max() > 1e-3


@pytest.mark.parametrize("method", DEFAULT_SAMPLES)
def test_samples_change_what_is_averaged(method: str) -> None:
    model, images = small_network(), noise_images(1, SIZE)
    few, default = (maps_of(model, images, [0], method=method, layer="second", samples=number) for number in (1, None))
    named = maps_of(model, images, [0], method=method, layer="second", samples=DEFAULT_SAMPLES[method])
    np.testing.assert_array_equal(default, named)
    assert np.abs(few - default).max() > 1e-5


def hooks_of(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_full_backward_hooks")
    return sum(len(getattr(module, kind, ())) for module in model.modules() for kind in kinds)


@pytest.mark.parametrize("method", METHODS)
def test_a_failing_network_is_left_as_it_was(method: str) -> None:
    model, layer = network_for(method)
    model.train()
    model.backbone.eval()
    model.head.weight.requires_grad_(False)

    def state() -> tuple[Any, ...]:
        flags = [parameter.requires_grad for parameter in model.parameters()]
        return [module.training for module in model.modules()], flags, hooks_of(model), torch.is_grad_enabled()

    before, failures = state(), 0
    assert before[2] == 0
    for calls in (1, 2, 3):
        model.head.calls_left = calls
        try:
            maps_of(model, noise_images(3, SIZE), [0, 1, 2], method=method, layer=layer, batch_size=1)
        except RuntimeError as error:
            assert "broken on purpose" in str(error)
            failures += 1
        assert state() == before
    assert failures == 3
    model.head.calls_left = -1
    assert maps_of(model, noise_images(1, SIZE), [0], method=method, layer=layer).shape[0] == 1
    assert state() == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_no_tensor_outlives_a_call(method: str) -> None:
    model, layer = network_for(method)
    options: dict[str, Any] = {"method": method, "layer": layer, "samples": 1}
    maps_of(model, noise_images(2, SIZE), [0, 1], **options)
    assert tensors_left_by(lambda: maps_of(model, noise_images(6, SIZE), [0] * 6, **options)) == 0


MEMORY = """
import os
import numpy as np
import torch
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from tests.model.classifier_cases import make_config
from tests.explanation.test_cam_methods import small_network

class Watched:
    'Images whose reading tells how much memory the process has.'
    def __init__(self, images):
        self.images, self.read, self.resident = images, 0, {}
    def __getitem__(self, rows):
        self.read += len(rows)
        with open('/proc/self/statm') as file:
            self.resident[self.read] = int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20
        return self.images[rows]

watched = Watched(np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8))
torch.set_num_threads(1)
options = MapOptions('GradCAM', torch.device('cpu'), 'second', batch_size=20)
compute_maps(small_network(), make_config(size=32), watched, [0] * 2000, options, rows=np.arange(2000))
print(watched.resident[2000] - watched.resident[500])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_over_two_thousand_images() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3  # MB


def test_each_masked_copy_sees_its_images_metadata() -> None:
    model, images = small_network(metadata=True), noise_images(3, SIZE)
    metadata = np.random.default_rng(0).random((3, WIDTH)).astype(np.float32)
    seen: list[torch.Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].clone()))
    for method, passes in [("ScoreCAM", 1 + 1 + 2), ("Occlusion", 81 // 4 + 1 + 1)]:
        seen.clear()
        options = {"method": method, "layer": "second", "batch_size": 4}
        together = maps_of(model, images, [0, 1, 2], metadata=metadata, **options)
        assert len(seen) == 3 * passes
        for number, rows in enumerate(seen):
            np.testing.assert_array_equal(rows, np.tile(metadata[number // passes], (len(rows), 1)))
        alone = maps_of(model, images[2:], [2], metadata=metadata[2:], **options)
        np.testing.assert_allclose(alone[0], together[2], atol=1e-5)
    handle.remove()


def test_cam_with_metadata_takes_the_weights_of_the_image() -> None:
    model, images = small_network(metadata=True), noise_images(3, SIZE)
    metadata = np.random.default_rng(0).random((3, WIDTH)).astype(np.float32)
    options = {"layer": "second", "metadata": metadata}
    by_gradients = maps_of(model, images, [0, 1, 2], method="GradCAM", **options)
    assert by_gradients.any()
    np.testing.assert_allclose(maps_of(model, images, [0, 1, 2], method="CAM", **options), by_gradients, atol=1e-5)


def test_le_grad_sees_the_metadata() -> None:
    """A class is scored from tokens and metadata by a perceptron, so what tokens matter depends on the patient."""
    backbone = tiny_vit()[0].backbone
    encoder = MetadataEncoder(dropout=0.0)
    encoder[1].weight.data.mul_(50)
    head = nn.Sequential(nn.Linear(8 + encoder.FEATURES, 16), nn.ReLU(), nn.Linear(16, len(CLASSES)))
    model, images = SkinNetwork(backbone, head, metadata_encoder=encoder).eval(), noise_images(1, SIZE).repeat(2, axis=0)
    metadata = np.random.default_rng(0).random((2, WIDTH)).astype(np.float32) * np.array([[1], [-1]], dtype=np.float32)
    together = maps_of(model, images, [0, 0], method="LeGrad", layer="auto", metadata=metadata)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    for row in range(2):
        alone = maps_of(model, images[:1], [0], method="LeGrad", layer="auto", metadata=metadata[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


# Backbone, size, what CAM and RefineCAM read; None where they are refused.
READ = [
    ("alexnet", 128, None, "features.4 x features.11"),
    ("convnext_tiny", 64, None, "features.3 x features.5"),
    ("densenet121", 64, "features", "features.denseblock2 x features.denseblock3"),
    ("efficientnet_b0", 64, "features", "features.3 x features.5"),
    ("googlenet", 64, "inception5b", "inception3b x inception4e"),
    ("inception_v3", 112, "Mixed_7c", "Mixed_5d x Mixed_6e"),
    ("mnasnet0_5", 64, "layers", "layers.9 x layers.11"),
    ("mobilenet_v2", 64, "features", "features.6 x features.13"),
    ("mobilenet_v3_small", 64, None, "features.3 x features.8"),
    ("regnet_y_400mf", 64, "trunk_output", "trunk_output.block2 x trunk_output.block3"),
    ("resnet18", 64, "layer4", "layer2 x layer3"),
    ("shufflenet_v2_x0_5", 64, "conv5", "stage2 x stage3"),
    ("squeezenet1_1", 128, "features", "features.7 x features"),
    ("swin_t", 64, "norm", "features.3 x features.5"),
    ("swin_v2_t", 64, "norm", "features.3 x features.5"),
    ("vgg11", 64, None, "features.14 x features.19"),
    ("vit_b_16", 32, None, None),
]


@pytest.mark.parametrize(("backbone", "size", "pooled", "refined"), READ)
def test_every_family_with_every_method_or_the_reason(backbone: str, size: int, pooled: str | None, refined: str | None) -> None:
    model, images = build(backbone, size), noise_images(1, size).repeat(7, axis=0)
    for method, name, reason in [
        ("CAM", pooled, "CAM needs feature maps whose means go straight into one linear layer"),
        ("RefineCAM", refined, "has none with more cells before"),
        ("LeGrad", "encoder.layers" if backbone.startswith("vit") else None, "LeGrad reads the attention of a ViT"),
    ]:
        if name is None:
            with pytest.raises(PipelineError, match=reason):
                find_target(model, method, "auto", size=size)
            continue
        target = find_target(model, method, "auto", size=size)
        assert target.name == name
        values = maps_of(model, images, list(range(7)), method=method, layer="auto", batch_size=7)
        assert values.shape == (7, target.side, target.side)
        assert values.max() == 1
        if method == "CAM":
            same = maps_of(model, images, list(range(7)), method="GradCAM", layer=name, batch_size=7)
            np.testing.assert_allclose(values, same, atol=2e-4)
    assert hooks_of(model) == 0


def test_cam_is_refused_where_more_lies_between() -> None:
    for model, layer in [
        (build("resnet18", 64, head="mlp", hidden=512), "auto"),  # whose last linear layer has as many inputs
        (build("resnet18", 64), "layer3"),
        (build("resnet18", 64), "layer4.1.conv2"),
        (SkinNetwork(nn.Sequential(ColourNet(), nn.Softmax(dim=1)), nn.Identity()), "0.red_and_blue"),
    ]:
        with pytest.raises(
            PipelineError, match=rf"computes more between '{'layer4' if layer == 'auto' else layer}' and the scores"
        ):
            find_target(model, "CAM", layer, size=64)
    with pytest.raises(
        PipelineError, match=r"last feature map 'layer4' of ResNet does not keep .* 32 x 32 pixels: raise prepare.size"
    ):
        find_target(build("resnet18", 32), "CAM", "auto", size=32)
    with pytest.raises(
        PipelineError, match=r"reads whole encoder blocks, and 'encoder.ln' is none of them; nearest: encoder.layers"
    ):
        find_target(tiny_vit()[0], "LeGrad", "encoder.ln", size=SIZE)
    with pytest.raises(PipelineError, match=r"1 x 1 patches of 32 pixels: raise prepare.size"):
        find_target(build("vit_b_32", 32), "LeGrad", "auto", size=32)


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_cam_is_of_what_attention_passes_on(attention: str) -> None:
    model, images = build("resnet18", 64, attention=attention), noise_images(7, 64)
    gate = model.attention.attention.fc2 if attention == "se" else model.attention.attention.channels[2]
    nn.init.constant_(gate.bias[:256], -9)
    by_gradients = maps_of(model, images, list(range(7)), method="GradCAM", layer="layer4")
    np.testing.assert_allclose(maps_of(model, images, list(range(7)), method="CAM", layer="auto"), by_gradients, atol=1e-4)


def test_last_norm2_of_swin_gives_a_map_by_its_name() -> None:
    model, images = build("swin_t", 64), noise_images(1, 64).repeat(7, axis=0)
    values = maps_of(model, images, list(range(7)), method="GradCAM", layer="features.7.1.norm2")
    assert values.shape == (7, 2, 2)
    assert values.max() == 1


class BrightnessNet(nn.Module):
    """A strided convolution that adds up what is bright, and a pool."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.bright = nn.Conv2d(3, 2, kernel, stride=stride, padding=kernel // 2, bias=False)
        weights = torch.ones(kernel, kernel) + torch.eye(kernel)[[kernel // 2]].T @ torch.eye(kernel)[[kernel // 2]]
        self.bright.weight = nn.Parameter(torch.stack([weights, weights])[:, None].expand(2, 3, kernel, kernel).clone())
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.pool(self.bright(images)).flatten(1)


@pytest.fixture(scope="module")
def brightness() -> Iterator[Callable[[int, int], SkinNetwork]]:
    def make(kernel: int, stride: int) -> SkinNetwork:
        head = nn.Linear(2, len(CLASSES), bias=False)
        head.weight.data.fill_(0.5)
        head.weight.data[1:] = -0.1
        return SkinNetwork(BrightnessNet(kernel, stride), head)

    yield make


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("width", "height"), [(200, 150), (90, 131)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2)])
def test_a_bright_spot_is_found_within_a_pixels_reach(
    brightness: Callable[[int, int], SkinNetwork], fit: Fit, width: int, height: int, kernel: int, stride: int
) -> None:
    """From the original through the square and the network back to the original, by every method that reads one layer."""
    size = 32
    config = make_config(size=size, fit=fit, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ensemble = {config.name: Classifier(brightness(kernel, stride), config)}
    shown = min(width, height)
    reach = stride * int(np.ceil((shown if fit == "crop" else max(width, height)) / size))
    for share_x, share_y in [(0.5, 0.5), (-0.37, 0.21), (0.3, -0.4)]:
        x = round(width / 2 + (share_x if share_x != 0.5 else 0) * shown)
        y = round(height / 2 + (share_y if share_y != 0.5 else 0) * shown)
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
        images = np.asarray(fit_image(Image.fromarray(pixels), size=size, fit=fit))[None]
        for method in ("GradCAM", "CAM", "LayerCAM", "ScoreCAM", "FinerCAM"):
            table = pd.DataFrame({"row": [0], "predicted": [CLASSES[0]]})
            maps = members.explain(ensemble, images, table, MapOptions(method, CPU, "bright"))
            placed = members.place_mean(list(maps.values()), 0, width, height, size=size, fit=fit)
            assert placed.shape == (height, width)
            peak_y, peak_x = np.unravel_index(placed.argmax(), placed.shape)
            assert abs(peak_x - x) <= reach, method
            assert abs(peak_y - y) <= reach, method


def test_a_method_of_many_passes_says_how_long_it_will_take(caplog: pytest.LogCaptureFixture) -> None:
    model, images = small_network(), noise_images(3, SIZE)
    with caplog.at_level("INFO"):
        maps_of(model, images, [0, 1, 2], method="GradCAM", layer="second", progress=True)
        assert not caplog.text
        maps_of(model, images, [0, 1, 2], method="ScoreCAM", layer="second", progress=True)
    assert [record.message for record in caplog.records] == ["ScoreCAM base-0: about 0 s for 3 images"]
    assert [describe_duration(seconds) for seconds in (0.4, 119, 120, 745, 7199, 12600)] == [
        *("0 s", "119 s", "2 min", "12 min", "120 min", "3.5 h")
    ]


def test_damaged_weights_are_named() -> None:
    model = small_network()
    nn.init.constant_(model.head.weight, torch.inf)
    for method in ("GradCAM", "ScoreCAM", "Occlusion", "RefineCAM"):
        with pytest.raises(PipelineError, match="scores are not finite: its weights are damaged"):
            maps_of(model, noise_images(1, SIZE), [0], method=method, layer="second")
