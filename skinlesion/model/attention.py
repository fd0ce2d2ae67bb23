"""Attention on a network's last feature map: squeeze-and-excitation, or channels and then places (CBAM).

Both multiply the map by gates. Here a gate is twice a sigmoid whose last layer starts at zero, so that it starts at 1: the
network is at first exactly what it would be without, and fine-tuning does not begin with damaged features.
"""

from typing import Any, Literal

import torch
from torch import nn
from torchvision import models, ops

from skinlesion.base.errors import PipelineError
from skinlesion.model.layers import last_feature_map

Kind = Literal["none", "se", "cbam"]

REDUCTION = 16  # of both papers
KERNEL = 7  # of CBAM's spatial gate


class DoubledSigmoid(nn.Module):
    """A gate from 0 to 2 that is 1 at 0."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return 2 * torch.sigmoid(logits)


class SqueezeExcitation(ops.SqueezeExcitation):  # type: ignore[misc]  # torchvision has no types
    """A gate for every channel from the channels' means (Hu et al. 2018, arXiv 1709.01507): (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, max(1, channels // REDUCTION), scale_activation=DoubledSigmoid)
        _start_at_zero(self.fc2)


class ConvolutionalBlockAttention(nn.Module):
    """A gate for every channel, then one for every place (CBAM: Woo et al. 2018, arXiv 1807.06521): (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(1, channels // REDUCTION)
        self.channels = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1))
        self.places = nn.Conv2d(2, 1, KERNEL, padding=KERNEL // 2)
        self.gate = DoubledSigmoid()
        _start_at_zero(self.channels[2])
        _start_at_zero(self.places)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        mean, largest = maps.mean((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        gated: torch.Tensor = maps * self.gate(self.channels(mean) + self.channels(largest))
        mean, largest = gated.mean(1, keepdim=True), gated.amax(1, keepdim=True)
        places: torch.Tensor = self.gate(self.places(torch.cat([mean, largest], dim=1)))
        return gated * places


def _start_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class FeatureMapAttention(nn.Module):
    """Attention that a hook applies to the output of a layer of the backbone, whose other layers keep their names."""

    def __init__(self, attention: nn.Module, *, channels_last: bool) -> None:
        super().__init__()
        self.attention = attention
        self.channels_last = channels_last

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """The map in the backbone's own layout, to the same."""
        gated: torch.Tensor = self.attention(maps.permute(0, 3, 1, 2) if self.channels_last else maps)
        return gated.permute(0, 2, 3, 1) if self.channels_last else gated

    # A bound method, so that copy.deepcopy binds the copied hook to the copied attention.
    def hook(self, _: nn.Module, __: Any, maps: torch.Tensor) -> torch.Tensor:
        """What the backbone's layer calls."""
        gated: torch.Tensor = self(maps)
        return gated


def attach_attention(backbone: nn.Module, kind: Kind, *, size: int) -> FeatureMapAttention | None:
    """Put new attention behind the layer of a backbone's last feature map; None for `none`.

    The backbone's layer calls it, but the returned module is what holds its parameters: keep it beside the backbone.

    Raises
    ------
    PipelineError
        The network has no feature map that is pooled.
    """
    if kind == "none":
        return None
    name = last_feature_map(backbone)
    if name is None or isinstance(backbone, models.VisionTransformer):
        raise PipelineError(
            f"train.attention is '{kind}', which gates a feature map, and {type(backbone).__name__} passes on tokens instead: "
            "set train.attention=none, or choose a backbone with convolutions"
        )
    layer, channels_last = backbone.get_submodule(name), isinstance(backbone, models.SwinTransformer)
    channels = _output_shape(backbone, layer, size)[-1 if channels_last else 1]
    attention = SqueezeExcitation(channels) if kind == "se" else ConvolutionalBlockAttention(channels)
    attached = FeatureMapAttention(attention, channels_last=channels_last)
    layer.register_forward_hook(attached.hook)
    return attached


def _output_shape(backbone: nn.Module, layer: nn.Module, size: int) -> tuple[int, ...]:
    """Shape of a layer's output for a blank image; the backbone is in train mode before and after."""
    shapes: list[tuple[int, ...]] = []
    handle = layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, 3, size, size))
    handle.remove()
    backbone.train()
    return shapes[-1]
