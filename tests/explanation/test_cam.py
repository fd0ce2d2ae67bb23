"""Class activation maps: the right layer of every family, evidence where it was planted, and torchcam's own numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.ndimage import map_coordinates
from torch import nn

from skinlesion.artifacts.patients import MISSING, WIDTH
from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import Fit
from skinlesion.config.training import list_backbones
from skinlesion.data.geometry import fit_image
from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam.layers import find_layer
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.explanation.cam.placing import map_to_original
from skinlesion.explanation.cam.receptive_field import cell_centers, tiled_centers
from skinlesion.model.classifier import ClassifierConfig, normalize
from skinlesion.model.layers import FAMILY_LAYERS
from skinlesion.model.network import SkinNetwork
from tests.model.classifier_cases import last_linear, make_config, make_network

CPU = torch.device("cpu")

# Backbone, size of the image, the layer that `auto` finds, rows of its map.
FAMILIES = [
    ("alexnet", 128, "features.11", 7),
    ("convnext_tiny", 64, "features.5", 4),
    ("densenet121", 64, "features.denseblock3", 4),
    ("efficientnet_b0", 64, "features.5", 4),
    ("efficientnet_v2_s", 64, "features.5", 4),
    ("googlenet", 64, "inception4e", 4),
    ("inception_v3", 112, "Mixed_6e", 5),
    ("mnasnet0_5", 64, "layers.11", 4),
    ("mobilenet_v2", 64, "features.13", 4),
    ("mobilenet_v3_small", 64, "features.8", 4),
    ("regnet_y_400mf", 64, "trunk_output.block3", 4),
    ("resnet18", 32, "layer2", 4),
    ("resnet18", 64, "layer3", 4),
    ("shufflenet_v2_x0_5", 64, "stage3", 4),
    ("squeezenet1_1", 128, "features", 7),
    ("swin_t", 64, "features.5", 4),
    ("swin_v2_t", 64, "features.5", 4),
    ("vgg11", 64, "features.19", 4),
    ("vit_b_16", 32, "encoder.layers.encoder_layer_11.ln_1", 2),
    # From 128 pixels on, the last feature map itself.
    ("convnext_tiny", 128, "features", 4),
    ("densenet121", 128, "features", 4),
    ("mnasnet0_5", 128, "layers", 4),
    ("mobilenet_v2", 128, "features", 4),
    ("mobilenet_v3_small", 128, "features", 4),
    ("regnet_y_400mf", 128, "trunk_output", 4),
    ("resnet18", 128, "layer4", 4),
    ("shufflenet_v2_x0_5", 128, "conv5", 4),
    ("swin_t", 128, "norm", 4),
]

# Networks that pool their last feature map and end in one linear layer: how to get at the map.
POOLED: dict[str, tuple[str, Callable[[nn.Module, torch.Tensor], torch.Tensor]]] = {
    "resnet18": ("layer4", lambda backbone, x: nn.Sequential(*list(backbone.children())[:-2])(x)),
    "densenet121": ("features", lambda backbone, x: torch.relu(backbone.features(x))),
    "mobilenet_v2": ("features", lambda backbone, x: backbone.features(x)),
    "swin_t": ("norm", lambda backbone, x: backbone.norm(backbone.features(x)).permute(0, 3, 1, 2)),
}


def config_of(backbone: str, size: int) -> ClassifierConfig:
    """A config that takes RGB to [0, 10], so that the noise of SmoothGradCAMpp (standard deviation 0.3) is small beside it."""
    return make_config(backbone, size=size, mean=(0.0, 0.0, 0.0), std=(0.1, 0.1, 0.1))


def build(backbone: str, size: int, **spec: Any) -> SkinNetwork:
    """A network from seeded random weights, in eval mode; `spec` as of `NetworkSpec`."""
    return make_network(make_config(backbone, size=size, **spec))


def noise_images(count: int, size: int) -> np.ndarray:
    """Smooth noise, uint8 (count, size, size, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in coarse])


def maps_of(
    model: nn.Module, images: np.ndarray, classes: list[int], *, method: str = "GradCAM", layer: str = "auto", batch_size: int = 4
) -> np.ndarray:
    """Maps of `images` on the CPU with seed 5."""
    options = MapOptions(method, CPU, layer, batch_size, seed=5)
    return compute_maps(model, config_of("resnet18", images.shape[1]), images, classes, options)


class ColourNet(nn.Module):
    """Three class scores with known evidence: mean red, mean blue, and minus mean red."""

    def __init__(self) -> None:
        super().__init__()
        self.red_and_blue = nn.Conv2d(3, 2, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.red_and_blue.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1]]).view(2, 3, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.red_and_blue(images)).flatten(1))


def colour_network() -> SkinNetwork:
    """`ColourNet` as the backbone of a network whose head changes nothing."""
    return SkinNetwork(ColourNet(), nn.Identity())


@pytest.fixture
def spots() -> np.ndarray:
    """One image, 20 x 20: a red spot at row 4, column 15, a blue one at row 12, column 3."""
    images = np.zeros((1, 20, 20, 3), dtype=np.uint8)
    images[0, 4, 15, 0] = 255
    images[0, 12, 3, 2] = 255
    return images


def test_grad_cam_by_hand(spots: np.ndarray) -> None:
    # The gradient of the mean is constant, so the map is the red channel itself, scaled to a maximum of 1.
    spots[0, 9, 9, 0] = 51
    (values,) = maps_of(colour_network(), spots, [0], layer="red_and_blue")
    expected = np.zeros((20, 20))
    expected[4, 15], expected[9, 9] = 1, 0.2
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_a_map_without_evidence_stays_zero(spots: np.ndarray) -> None:
    images = np.concatenate([spots, spots])
    against, for_red = maps_of(colour_network(), images, [2, 0], layer="red_and_blue")
    assert not against.any()
    assert for_red.max() == 1


def test_a_uniform_map_is_one_everywhere() -> None:
    images = np.full((1, 8, 8, 3), 100, dtype=np.uint8)
    np.testing.assert_allclose(maps_of(colour_network(), images, [0], layer="red_and_blue"), 1)


@pytest.mark.parametrize(("backbone", "size", "layer", "side"), FAMILIES)
def test_every_family_gives_a_map(backbone: str, size: int, layer: str, side: int) -> None:
    model = build(backbone, size)
    found = find_layer(model.backbone, "auto", size=size)
    assert (found.name, found.side) == (layer, side)
    values = maps_of(model, noise_images(1, size).repeat(len(CLASSES), axis=0), list(range(len(CLASSES))), batch_size=7)
    assert values.shape == (len(CLASSES), side, side)
    assert np.isfinite(values).all()
    assert values.min() >= 0
    assert values.max() == 1
    # With random weights nothing may speak for a class; for some of the seven something does, and not everywhere alike.
    assert any(len(np.unique(value)) > 1 for value in values)


def test_every_backbone_of_torchvision_belongs_to_a_family() -> None:
    for name in list_backbones():
        returned = torchvision.models.get_model_builder(name).__annotations__["return"]
        assert (returned if isinstance(returned, str) else returned.__name__) in {family.__name__ for family in FAMILY_LAYERS}


@pytest.mark.parametrize("backbone", POOLED)
def test_grad_cam_is_cam_where_a_linear_layer_follows_the_pool(backbone: str) -> None:
    """Grad-CAM, section 3.1: there the weights are the linear layer's, and the map is CAM's (Zhou et al., 2016)."""
    model, images = build(backbone, 64), noise_images(3, 64)
    layer, features_of = POOLED[backbone]
    with torch.no_grad():
        features = features_of(model.backbone, normalize(torch.from_numpy(images), config_of(backbone, 64)))
        expected = torch.relu(torch.einsum("nchw,nc->nhw", features, last_linear(model).weight[[0, 3, 6]]))
        expected = (expected / expected.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)).numpy()
    np.testing.assert_allclose(maps_of(model, images, [0, 3, 6], layer=layer), expected, atol=2e-5)


def test_vision_transformer_by_hand() -> None:
    model, images = build("vit_b_16", 64), noise_images(1, 64)
    kept: list[torch.Tensor] = []
    handle = model.backbone.encoder.layers[-1].ln_1.register_forward_hook(lambda _, __, output: kept.append(output))
    score = model(normalize(torch.from_numpy(images), config_of("vit_b_16", 64)))[0, 2]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    tokens, gradients = kept[0][0, 1:].detach(), gradient[0, 1:]
    expected = np.zeros((4, 4))
    for patch in range(16):
        expected[patch // 4, patch % 4] = max(0.0, float((tokens[patch] * gradients.mean(dim=0)).sum()))
    np.testing.assert_allclose(maps_of(model, images, [2])[0], expected / expected.max(), atol=1e-5)


@pytest.mark.parametrize("backbone", ["densenet121", "swin_t"])
def test_size_of_a_batch_does_not_matter(backbone: str) -> None:
    model, images = build(backbone, 64), noise_images(4, 64)
    one, all_at_once = (maps_of(model, images, [1, 2, 3, 4], batch_size=size) for size in (1, 4))
    np.testing.assert_allclose(one, all_at_once, atol=1e-4)  # float32 sums, in another order a batch size


def test_noise_of_smooth_grad_cam_follows_the_seed() -> None:
    model, config, images = build("resnet18", 32), config_of("resnet18", 32), noise_images(2, 32)
    first, again, other = (
        compute_maps(model, config, images, [0, 1], MapOptions("SmoothGradCAMpp", CPU, "layer2", seed=seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


def test_rows_choose_images() -> None:
    model, config, images = build("resnet18", 64), config_of("resnet18", 64), noise_images(4, 64)
    options = MapOptions("GradCAM", CPU, batch_size=2)
    chosen = compute_maps(model, config, images, [1, 1], options, rows=np.array([3, 0]))
    np.testing.assert_array_equal(chosen, compute_maps(model, config, images[[3, 0]], [1, 1], options))
    assert compute_maps(model, config, images, [], options, rows=np.array([], dtype=np.int64)).shape == (0, 4, 4)
    with pytest.raises(ValueError, match="no class 7; they are numbers from 0 to 6: akiec, bcc, "):
        compute_maps(model, config, images, [1, 7], options, rows=np.array([3, 0]))


def test_model_is_left_as_it_was_also_on_error() -> None:
    model, config, images = build("resnet18", 32), config_of("resnet18", 32), noise_images(3, 32)
    model.train()
    model.backbone.layer1.eval()
    model.backbone.layer2.requires_grad_(False)

    def state() -> tuple[list[bool], list[bool], int]:
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
        return [module.training for module in model.modules()], [value.requires_grad for value in model.parameters()], hooks

    before, buffers = state(), {name: value.clone() for name, value in model.named_buffers()}
    for method in ("GradCAM", "SmoothGradCAMpp"):
        options = MapOptions(method, CPU, batch_size=2)
        compute_maps(model, config, images, [0, 1, 2], options)
        assert state() == before
        with pytest.raises(IndexError):
            compute_maps(model, config, images, [0, 1, 2], options, rows=np.array([0, 1, 99]))
        assert state() == before
    assert before[2] == 0
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert all(value.grad is None for value in model.parameters())


def test_a_frozen_network_has_maps_too() -> None:
    model, images = build("resnet18", 64), noise_images(2, 64)
    expected = maps_of(model, images, [0, 1])
    np.testing.assert_array_equal(maps_of(model.requires_grad_(False), images, [0, 1]), expected)


def test_a_layer_that_is_changed_in_place_is_taken_as_changed() -> None:
    model, images, classes = build("squeezenet1_1", 64), noise_images(7, 64), list(range(7))
    assert isinstance(model.backbone.features[0], nn.Conv2d)
    assert model.backbone.features[1].inplace
    first, changed = (maps_of(model, images, classes, layer=layer) for layer in ("features.0", "features.1"))
    assert (first.max(axis=(1, 2)) == 1).sum() >= 3
    np.testing.assert_allclose(first, changed, atol=1e-6)


@pytest.mark.parametrize("method", ["GradCAM", "SmoothGradCAMpp"])
def test_metadata_moves_the_map_and_every_image_has_its_own(method: str) -> None:
    """A head of two layers mixes image and patient, so the evidence in the image depends on the patient."""
    spec = {"metadata": True, "head": "mlp", "hidden": 32}
    model, config, images = build("resnet18", 32, **spec), config_of("resnet18", 32), noise_images(1, 32).repeat(4, axis=0)
    last_linear(model).weight.data.abs_()
    model.metadata_encoder[1].weight.data.mul_(300)
    metadata = np.stack([MISSING, np.roll(MISSING, 5), np.ones(WIDTH, np.float32), MISSING])

    def explain(rows: np.ndarray, batch_size: int) -> np.ndarray:
        options = MapOptions(method, CPU, "layer2", batch_size)
        return compute_maps(model, config, images, [3] * len(rows), options, rows=rows, metadata=metadata[rows])

    together = explain(np.arange(4), 4)
    for row in range(3):
        others = together[[other for other in range(3) if other != row]]
        assert np.abs(others - together[row]).max(axis=(1, 2)).min() > 0.01
    for size in (1, 3):
        np.testing.assert_allclose(explain(np.arange(4), size), together, atol=1e-3)
    with pytest.raises(ValueError, match="needs metadata: pass a row of it for each of 4 images"):
        compute_maps(model, config, images, [3] * 4, MapOptions(method, CPU, "layer2"))


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_the_map_of_the_last_feature_map_is_of_what_attention_passes_on(attention: str) -> None:
    """Grad-CAM is then CAM of the gated map, so a gate that shuts half of the channels shows."""
    model, images, classes = build("resnet18", 128, attention=attention), noise_images(7, 128), list(range(7))
    plain = maps_of(model, images, classes)
    gate = model.attention.attention.fc2 if attention == "se" else model.attention.attention.channels[2]
    nn.init.constant_(gate.bias[:256], -9)
    gated = maps_of(model, images, classes)
    assert np.abs(gated - plain).max() > 0.05
    kept: list[torch.Tensor] = []
    model.backbone.avgpool.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].detach()))
    with torch.no_grad():
        model(normalize(torch.from_numpy(images), config_of("resnet18", 128)))
    expected = torch.relu(torch.einsum("nchw,nc->nhw", kept[0], last_linear(model).weight)).detach()
    expected /= expected.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    assert (expected.amax(dim=(1, 2)) == 1).sum() >= 3
    np.testing.assert_allclose(gated, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("backbone", "size", "layer", "message"),
    [
        ("resnet18", 64, "layer5", "ResNet has no layer 'layer5'; nearest: layer"),
        ("resnet18", 64, "@", "ResNet has no layer '@'; nearest: conv1, bn1"),
        ("resnet18", 64, "fc", r"output of 'fc' has shape \(1, 512\) for an image of 64 x 64 pixels, which is no map"),
        ("resnet18", 64, "avgpool", r"shape \(1, 512, 1, 1\) .* choose an earlier layer, or auto"),
        ("vit_b_16", 32, "encoder.layers.encoder_layer_11.self_attention", "gives no single tensor"),
        ("vit_b_32", 32, "auto", "no layer of VisionTransformer keeps a map .* raise prepare.size"),
    ],
)
def test_layers_that_cannot_be_used(backbone: str, size: int, layer: str, message: str) -> None:
    with pytest.raises(PipelineError, match=f"^gradcam.layer: .*{message}"):
        find_layer(build(backbone, size).backbone, layer, size=size)


def test_auto_needs_a_known_family() -> None:
    with pytest.raises(PipelineError, match="auto knows no layer for ColourNet: name one of its layers"):
        find_layer(ColourNet(), "auto", size=20)


@pytest.mark.parametrize("layer", ["features.3.1.norm1", "features.0.0", "permute"])
def test_layout_of_a_named_swin_layer(layer: str) -> None:
    found = find_layer(build("swin_t", 64).backbone, layer, size=64)
    assert found.layout == ("channels_last" if "norm" in layer else "channels_first")


@pytest.mark.parametrize(
    ("backbone", "side", "expected"),
    [
        # conv 7 / 2 padded by 3, pooling 3 / 2 padded by 1, and three convolutions 3 / 2 padded by 1: no offset.
        ("resnet18", 4, (0.5, 32)),
        ("resnet18", 8, (0.5, 16)),
        # The same stem, then three average poolings 2 / 2, each half a step: 0.5 + (4 + 8 + 16) / 2.
        ("densenet121", 4, (14.5, 32)),
        # Four poolings 2 / 2: 0.5 + (1 + 2 + 4 + 8) / 2; the cells tile the image.
        ("vgg11", 8, tiled_centers(8, size=128)),
        # conv 11 / 4 padded by 2: 5 - 2 = 3; poolings 3 / 2 without padding: 4 and 8.
        ("alexnet", 7, (15.5, 16)),
        ("convnext_tiny", 4, tiled_centers(4, size=128)),
        ("swin_t", 4, tiled_centers(4, size=128)),
        ("vit_b_16", 8, tiled_centers(8, size=128)),
    ],
)
def test_cell_centers_by_hand(backbone: str, side: int, expected: tuple[float, float]) -> None:
    model = build(backbone, 128).backbone.train()
    assert cell_centers(model, size=128)[side] == pytest.approx(expected)
    assert all(module.training and not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("backbone", "size", "layer"),
    [
        ("resnet18", 128, "layer3"),
        ("resnet18", 100, "layer3"),
        ("shufflenet_v2_x0_5", 128, "conv5"),
        ("regnet_y_400mf", 128, "trunk_output"),
        ("vgg11", 128, "auto"),
        ("swin_t", 128, "norm"),
        ("convnext_tiny", 128, "auto"),
    ],
)
def test_cell_centers_are_where_the_gradient_is(backbone: str, size: int, layer: str) -> None:
    """The pixels that move a cell lie around its centre; a cell near the image's middle, where no border cuts them off."""
    model = build(backbone, size).backbone
    target = find_layer(model, layer, size=size)
    first, step = target.centers
    cell = round((size / 2 - first) / step)
    kept: list[torch.Tensor] = []
    model.get_submodule(target.name).register_forward_hook(lambda _, __, output: kept.append(target.to_feature_maps(output)))
    images = torch.randn(4, 3, size, size, requires_grad=True)
    model(images)
    outputs = kept[0][:, :, cell, cell]
    (gradient,) = torch.autograd.grad((torch.randn_like(outputs) * outputs).sum(), images)
    energy = gradient.pow(2).sum(dim=(0, 1))
    place = ((energy.sum(dim=0) * (torch.arange(size) + 0.5)).sum() / energy.sum()).item()
    assert place == pytest.approx(first + cell * step, abs=step / 6)


def test_a_map_is_placed_by_its_cell_centers() -> None:
    values = np.array([[0.0, 1.0], [0.0, 1.0]])
    placed = map_to_original(values, 64, 64, size=64, fit="squash", centers=(0.5, 32.0))
    expected = np.minimum(np.arange(64) / 32, 1)  # 0 on the first pixel, 1 on the 33rd and beyond
    np.testing.assert_allclose(placed, np.tile(expected, (64, 1)))


@pytest.mark.parametrize("centers", [(0.5, 32.0), (3.0, 9.0), tiled_centers(5, size=64)])
def test_placing_is_bilinear_as_scipy_has_it(centers: tuple[float, float]) -> None:
    values, (first, step) = np.random.default_rng(1).random((5, 5)), centers
    row, column = ((np.arange(count) + 0.5) * 64 / count for count in (150, 201))
    grid = np.meshgrid((row - first) / step, (column - first) / step, indexing="ij")
    expected = map_coordinates(values, grid, order=1, mode="nearest")
    np.testing.assert_allclose(map_to_original(values, 201, 150, size=64, fit="squash", centers=centers), expected, atol=1e-12)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("width", "height"), [(200, 150), (150, 200), (160, 160), (601, 450)])
def test_a_map_comes_back_to_where_the_evidence_was(fit: Fit, width: int, height: int) -> None:
    """A bright spot in the original, seen in the square, is placed where it was to a fraction of a pixel."""
    rows, columns = np.mgrid[:height, :width]
    for share_x, share_y in [(0.5, 0.5), (0.35, 0.6), (0.62, 0.38)]:
        x, y = round(width * share_x), round(height * share_y)
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (width / 25) ** 2))
        original = Image.fromarray(np.round(255 * spot).astype(np.uint8))
        square = np.asarray(fit_image(original, size=64, fit=fit), dtype=np.float32) / 255
        placed = map_to_original(square, width, height, size=64, fit=fit, centers=(0.5, 1.0))
        assert placed.shape == (height, width)
        centre = [(placed * grid).sum() / placed.sum() for grid in (columns, rows)]
        np.testing.assert_allclose(centre, [x, y], atol=0.3)
        peak_y, peak_x = np.unravel_index(placed.argmax(), placed.shape)
        reach = max(width, height) / 64 / 2 + 1
        assert abs(peak_x - x) <= reach
        assert abs(peak_y - y) <= reach


def test_map_back_identity() -> None:
    values = np.random.default_rng(0).random((48, 48))
    for fit in get_args(Fit):
        np.testing.assert_allclose(map_to_original(values, 48, 48, size=48, fit=fit, centers=(0.5, 1.0)), values)


def test_map_back_is_bilinear_between_cell_centres() -> None:
    # Cells [0, 1] have their centres at 1 and 3 of 4 pixels; pixel centres are 0.5, 1.5, 2.5, 3.5.
    placed = map_to_original(np.array([[0.0, 1.0]]), 4, 1, size=64, fit="squash", centers=tiled_centers(2, size=64))
    np.testing.assert_allclose(placed, [[0, 0.25, 0.75, 1]])


def test_a_constant_map_is_constant_inside_and_zero_outside() -> None:
    ones = np.ones((7, 7), dtype=np.float32)
    np.testing.assert_allclose(map_to_original(ones, 200, 150, size=64, fit="squash", centers=tiled_centers(7, size=64)), 1)
    np.testing.assert_allclose(map_to_original(ones, 200, 150, size=64, fit="pad", centers=tiled_centers(7, size=64)), 1)
    cropped = map_to_original(ones, 200, 150, size=64, fit="crop", centers=tiled_centers(7, size=64))
    assert (cropped.shape, cropped.dtype) == ((150, 200), np.float64)
    np.testing.assert_allclose(cropped[:, 25:175], 1)
    assert not cropped[:, :25].any()
    assert not cropped[:, 175:].any()


def test_map_back_leaves_the_padding_behind() -> None:
    # 4 x 2 in a square of 4: rows 1 and 2 hold the image, rows 0 and 3 are bars.
    values = np.array([[9.0] * 4, [1, 2, 3, 4], [5, 6, 7, 8], [9] * 4])
    np.testing.assert_allclose(map_to_original(values, 4, 2, size=4, fit="pad", centers=(0.5, 1.0)), values[1:3])
    np.testing.assert_allclose(map_to_original(values.T, 2, 4, size=4, fit="pad", centers=(0.5, 1.0)), values.T[:, 1:3])
