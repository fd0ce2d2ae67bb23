"""Which layers methods read, which they refuse and why, and where the cells of their maps lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from skinlesion.explanation.cam.layers import find_layer
from skinlesion.explanation.cam.receptive_field import cell_centers, tiled_centers
from skinlesion.explanation.cam.targets import find_target
from skinlesion.model.network import SkinNetwork
from tests.conftest import refuses
from tests.explanation.networks import (
    SIZE,
    ColorNet,
    build,
    hooks_of,
    maps_of,
    noise_images,
    tiny_vit,
)


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
            refuses(reason, find_target, model, method, "auto", size=size)
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
