"""Which layers methods read, which they refuse and why, and where the cells of their maps come to lie."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates
from torch import nn

from skinlesion.config.schema import Fit
from skinlesion.data.geometry import fit_image
from skinlesion.explanation.cam.layers import find_layer
from skinlesion.explanation.cam.placing import crop_to_square, map_to_original
from skinlesion.explanation.cam.receptive_field import cell_centers, tiled_centers
from skinlesion.explanation.cam.targets import find_target
from skinlesion.model.network import SkinNetwork
from tests.conftest import refuses
from tests.explanation.networks import SIZE, ColorNet, build, hooks_of, maps_of, noise_images, tiny_vit


@pytest.mark.parametrize(
    ("backbone", "size", "layer", "message"),
    [
        ("resnet18", 64, "layer5", "ResNet has no layer 'layer5'; nearest: layer"),
        ("resnet18", 64, "@", "ResNet has no layer '@'; nearest: conv1, bn1"),
        ("resnet18", 64, "fc", r"output of 'fc' has shape \(1, 512\) for an image of 64 x 64 pixels, which is not a map"),
        ("resnet18", 64, "avgpool", r"shape \(1, 512, 1, 1\) .* choose an earlier layer, or auto"),
        ("vit_b_16", 32, "encoder.layers.encoder_layer_11.self_attention", "gives no single tensor"),
        ("vit_b_32", 32, "auto", "no layer of VisionTransformer keeps a map .* raise prepare.size"),
    ],
)
def test_layers_that_cannot_be_used(backbone: str, size: int, layer: str, message: str) -> None:
    refuses(f"^gradcam.layer: .*{message}", find_layer, build(backbone, size).backbone, layer, size=size)


def test_auto_needs_a_known_family() -> None:
    refuses("auto knows no layer for ColorNet: name one of its layers", find_layer, ColorNet(), "auto", size=20)


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


# Backbone, size of the image, the layer that `auto` finds, rows of its map, what CAM reads, by what RefineCAM refines; None where
# they are refused.
FAMILIES = [
    ("alexnet", 128, "features.11", 7, None, "features.4"),
    ("convnext_tiny", 64, "features.5", 4, None, "features.3"),
    ("densenet121", 64, "features.denseblock3", 4, "features", "features.denseblock2"),
    ("efficientnet_b0", 64, "features.5", 4, "features", "features.3"),
    ("efficientnet_v2_s", 64, "features.5", 4, "features", "features.3"),
    ("googlenet", 64, "inception4e", 4, "inception5b", "inception3b"),
    ("inception_v3", 112, "Mixed_6e", 5, "Mixed_7c", "Mixed_5d"),
    ("mnasnet0_5", 64, "layers.11", 4, "layers", "layers.9"),
    ("mobilenet_v2", 64, "features.13", 4, "features", "features.6"),
    ("mobilenet_v3_small", 64, "features.8", 4, None, "features.3"),
    ("regnet_y_400mf", 64, "trunk_output.block3", 4, "trunk_output", "trunk_output.block2"),
    ("resnet18", 64, "layer3", 4, "layer4", "layer2"),
    ("shufflenet_v2_x0_5", 64, "stage3", 4, "conv5", "stage2"),
    ("squeezenet1_1", 128, "features", 7, "features", "features.7"),
    ("swin_t", 64, "features.5", 4, "norm", "features.3"),
    ("swin_v2_t", 64, "features.5", 4, "norm", "features.3"),
    ("vgg11", 64, "features.19", 4, None, "features.14"),
    ("vit_b_16", 32, "encoder.layers.encoder_layer_11.ln_1", 2, None, None),
    # From 128 pixels on, `auto` is the last feature map itself.
    ("convnext_tiny", 128, "features", 4, None, "features.5"),
    ("mobilenet_v3_small", 128, "features", 4, None, "features.8"),
    ("resnet18", 128, "layer4", 4, "layer4", "layer3"),
    ("swin_t", 128, "norm", 4, "norm", "features.5"),
]


@pytest.mark.parametrize(("backbone", "size", "layer", "side", "pooled", "finer"), FAMILIES)
def test_every_family_and_method(backbone: str, size: int, layer: str, side: int, pooled: str | None, finer: str | None) -> None:
    model, images, classes = build(backbone, size), noise_images(1, size).repeat(7, axis=0), list(range(7))
    assert find_layer(model.backbone, "auto", size=size).side == side
    for method, name, reason in [
        ("GradCAM", layer, ""),
        ("CAM", pooled, "CAM needs feature maps whose means go straight into one linear layer"),
        ("RefineCAM", finer and f"{finer} x {layer}", "has none with more cells before"),
        ("LeGrad", "encoder.layers" if backbone.startswith("vit") else None, "LeGrad reads the attention of a ViT"),
    ]:
        if name is None:
            refuses(reason, find_target, model, method, "auto", size=size)
            continue
        target = find_target(model, method, "auto", size=size)
        assert target.name == name
        values = maps_of(model, images, classes, method=method, batch_size=7)
        assert values.shape == (7, target.side, target.side)
        assert np.isfinite(values).all() and values.min() >= 0 and values.max() == 1
        # With random weights nothing may speak for a class; for some of the seven something does, and not everywhere alike.
        assert any(len(np.unique(value)) > 1 for value in values)
    assert hooks_of(model) == 0


def test_cam_is_refused_where_more_lies_between() -> None:
    for model, layer in [
        (build("resnet18", 64, head="mlp", hidden=512), "auto"),  # whose last linear layer has as many inputs
        (build("resnet18", 64), "layer3"),
        (build("resnet18", 64), "layer4.1.conv2"),
        (SkinNetwork(nn.Sequential(ColorNet(), nn.Softmax(dim=1)), nn.Identity()), "0.red_and_blue"),
    ]:
        message = rf"computes more between '{'layer4' if layer == 'auto' else layer}' and the scores"
        refuses(message, find_target, model, "CAM", layer, size=64)
    message = r"last feature map 'layer4' of ResNet does not keep .* 32 x 32 pixels: raise prepare.size"
    refuses(message, find_target, build("resnet18", 32), "CAM", "auto", size=32)
    message = r"reads whole encoder blocks, and 'encoder.ln' is none of them; nearest: encoder.layers"
    refuses(message, find_target, tiny_vit()[0], "LeGrad", "encoder.ln", size=SIZE)
    message = r"1 x 1 patches of 32 pixels: raise prepare.size"
    refuses(message, find_target, build("vit_b_32", 32), "LeGrad", "auto", size=32)


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


@pytest.mark.parametrize(
    ("fit", "rows", "columns"),
    [("squash", slice(0, 150), slice(0, 200)), ("crop", slice(0, 150), slice(25, 175)), ("pad", slice(0, 150), slice(0, 200))],
)
def test_crop_to_square(fit: Fit, rows: slice, columns: slice) -> None:
    values = np.random.default_rng(0).random((150, 200))
    np.testing.assert_array_equal(crop_to_square(values, size=64, fit=fit), values[rows, columns])
    np.testing.assert_array_equal(crop_to_square(values.T, size=64, fit=fit), values.T[columns, rows])
