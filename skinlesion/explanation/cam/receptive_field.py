"""Where in the image the cells of a feature map lie: the centres of their receptive fields.

The usual overlay stretches a map over the image as if its cells tiled it. They do so in VGG, ConvNeXt, Swin and ViT. In a
ResNet, an EfficientNet or a MobileNet, whose strided convolutions have odd kernels with padding, cell i of stride s is
centred on pixel i * s, half a cell to the upper left of its tile: 16 pixels of 224.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torchvision.models.swin_transformer import PatchMerging, PatchMergingV2

from skinlesion.explanation.cam.modes import pass_blank

# First centre and distance between centres, in pixels of the network's image; its first pixel is centred on 0.5.
Centers = tuple[float, float]


def tiled_centers(side: int, *, size: int) -> Centers:
    """The centres of `side` cells that tile `size` pixels."""
    return size / side / 2, size / side


def cell_centers(model: nn.Module, *, size: int) -> dict[int, Centers]:
    """The centres of the cells of a network's feature maps, found in one pass of a blank image.

    They follow from kernel, stride and padding of the convolutions, poolings and patch mergings on the way (Araujo, Norris,
    Sim, Computing Receptive Fields of Convolutional Neural Networks, Distill 2019, section 3). Branches that meet are
    aligned with each other, so a map's side tells its centres.

    Returns
    -------
    Side of the map to its centres, for each side that occurs.
    """
    centers: dict[int, Centers] = {size: (0.5, 1.0)}

    def follow(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        is_merging = isinstance(module, PatchMerging | PatchMergingV2)  # two by two cells become one, channels last
        dimension = 1 if is_merging else -1
        before, after = inputs[0].shape[dimension], output.shape[dimension]
        if before not in centers or after == before:
            return
        kernel, stride, padding, dilation = (2, 2, 0, 1) if is_merging else _window(module)
        first, step = centers[before]
        centers.setdefault(after, (first + step * (dilation * (kernel - 1) / 2 - padding), step * stride))

    layers = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, PatchMerging, PatchMergingV2)
    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, layers):
                hooks.enter_context(module.register_forward_hook(follow))
        pass_blank(model, size)
    return centers


def _window(module: nn.Module) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a convolution or pooling along the width."""

    def along_width(name: str) -> int:
        value: int | Sequence[int] = getattr(module, name, 1)  # an average pooling has no dilation
        return value if isinstance(value, int) else value[-1]

    return along_width("kernel_size"), along_width("stride"), along_width("padding"), along_width("dilation")
