"""Which layer of a network a class activation map is taken from, and how its output becomes a grid of feature maps."""

import difflib
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torchvision import models

from skinlesion.base.errors import PipelineError
from skinlesion.explanation.cam.modes import pass_blank
from skinlesion.explanation.cam.receptive_field import Centers, cell_centers, tiled_centers
from skinlesion.model.layers import last_feature_map

Layout = Literal["channels_first", "channels_last", "tokens"]
Found = tuple[str, Layout, int]  # name, layout and side of a layer

# A map of a single cell says nothing about place, and one of two by two next to nothing: `auto` wants four where it can.
MIN_SIDE = 2
AUTO_SIDE = 4


@dataclass(frozen=True)
class TargetLayer:
    """A layer that maps can be taken from.

    name : as in `named_modules()` of the torchvision network; what a method that reads several layers, or none, is said to
        read (`skinlesion.explanation.cam.targets`).
    layout : of its output: `channels_first` (N, C, side, side), `channels_last` (N, side, side, C), or `tokens`
        (N, 1 + side * side, C) with the class token first.
    side : rows, and columns, of its map.
    centers : where the map's cells lie in the network's square, see `skinlesion.explanation.cam.receptive_field`.
    parts : the layers whose maps are put together, the earliest first, where a method reads several.
    """

    name: str
    layout: Layout
    side: int
    centers: Centers
    parts: tuple["TargetLayer", ...] = ()

    def to_feature_maps(self, output: torch.Tensor) -> torch.Tensor:
        """The layer's output, or a gradient of its shape, as (N, C, side, side)."""
        if self.layout == "tokens":
            output = output[:, 1:].reshape(len(output), self.side, self.side, -1)
        return output if self.layout == "channels_first" else output.permute(0, 3, 1, 2)


def find_layer(model: nn.Module, name: str, *, size: int, only_last: bool = False) -> TargetLayer:
    """Find the layer to take maps from, and where its cells lie, by passing a blank image.

    Parameters
    ----------
    model : a torchvision network that takes (1, 3, size, size), whole or as the backbone of a `SkinNetwork`.
    name : a layer's name in `model.named_modules()`; or `auto`, the last feature map of the network's family. Where the
        image is so small that this has less than four by four cells, `auto` goes back to the last stage that has them;
        a network without one (a ViT of few patches) is left at what it has, two by two at least.
    only_last : `auto` does not go back to an earlier stage.

    Raises
    ------
    PipelineError
        No such layer (with the nearest names), its output is not a map, or `auto` knows no layer for this network.
    """
    shapes = _output_shapes(model, size)
    if name == "auto":
        return _locate(model, _find_automatically(model, shapes, size, only_last), size)
    known = dict(model.named_modules())
    if not name or name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or [child for child, _ in model.named_children()]
        raise PipelineError(
            f"gradcam.layer: {type(model).__name__} has no layer '{name}'; nearest: {', '.join(near)}; or set it to auto"
        )
    if name not in shapes:
        raise PipelineError(f"gradcam.layer: '{name}' gives no single tensor when the network runs: choose another, or auto")
    found = _describe(model, name, shapes[name])
    if found is None or found[-1] < MIN_SIDE:
        raise PipelineError(
            f"gradcam.layer: the output of '{name}' has shape {shapes[name]} for an image of {size} x {size} pixels, which is "
            "not a map of two by two cells or more: choose an earlier layer, or auto"
        )
    return _locate(model, found, size)


def find_finer_stage(model: nn.Module, layer: TargetLayer, *, size: int) -> TargetLayer | None:
    """The last stage before a layer that has a map of more cells, of the same layout; None where there is none.

    model, size : see `find_layer`.
    layer : one of the model's, as `find_layer` gives it.
    """
    shapes = _output_shapes(model, size)
    before = list(shapes)[: list(shapes).index(layer.name)]
    beside = last_feature_map(model) or layer.name
    for name in reversed([name for name in before if _is_stage(model, name, beside=beside)]):
        found = _describe(model, name, shapes[name])
        if found is not None and found[1] == layer.layout and found[2] > layer.side:
            return _locate(model, found, size)
    return None


def _locate(model: nn.Module, found: Found, size: int) -> TargetLayer:
    """A layer with the centres of its cells."""
    name, layout, side = found
    # An operation that is not a module could change a map unseen: then its cells are taken to tile the square.
    return TargetLayer(name, layout, side, cell_centers(model, size=size).get(side, tiled_centers(side, size=size)))


def _find_automatically(model: nn.Module, shapes: dict[str, tuple[int, ...]], size: int, only_last: bool) -> Found:
    """The family's layer, or the last stage before it whose map has `AUTO_SIDE` cells a side, or else `MIN_SIDE`."""
    last = last_feature_map(model)
    if last is None:
        raise PipelineError(f"gradcam.layer: auto knows no layer for {type(model).__name__}: name one of its layers")
    names = list(shapes)[: list(shapes).index(last) + 1]
    stages = [] if only_last else [name for name in names if _is_stage(model, name, beside=last)]
    candidates = [_describe(model, name, shapes[name]) for name in [last, *reversed(stages)]]
    for side in (AUTO_SIDE, MIN_SIDE):
        for found in candidates:
            if found is not None and found[-1] >= side:
                return found
    candidate = f"the last feature map '{last}' of {type(model).__name__} does not keep" if only_last else ""
    raise PipelineError(
        f"gradcam.layer: {candidate or f'no layer of {type(model).__name__} keeps'} a map of two by two cells for images of "
        f"{size} x {size} pixels: raise prepare.size"
    )


def _is_stage(model: nn.Module, name: str, *, beside: str) -> bool:
    """Whether a layer is a sibling of the layer `beside`, or a child of a sequence of layers that is one."""
    above, level = name.rpartition(".")[0], beside.rpartition(".")[0]
    return above == level or (above.rpartition(".")[0] == level and isinstance(model.get_submodule(above), nn.Sequential))


def _output_shapes(model: nn.Module, size: int) -> dict[str, tuple[int, ...]]:
    """Shape of each layer's output for one blank image, in the order in which the layers finish their last call."""
    shapes: dict[str, tuple[int, ...]] = {}

    def record(_: nn.Module, __: Any, output: Any, *, name: str) -> None:
        shapes.pop(name, None)
        if isinstance(output, torch.Tensor):
            shapes[name] = tuple(output.shape)

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(record, name=name)))
        pass_blank(model, size)
    return shapes


def _describe(model: nn.Module, name: str, shape: tuple[int, ...]) -> Found | None:
    """A layer's name, layout and side, told from the shape, since a map of a square image is square; None if it is not a map."""
    if len(shape) == 4:
        _, second, third, fourth = shape
        # Only where channels, rows and columns are as many does the shape not tell: then Swin's come last.
        if third == fourth and not (second == third and isinstance(model, models.SwinTransformer)):
            return name, "channels_first", third
        return (name, "channels_last", second) if second == third else None
    if len(shape) == 3 and isinstance(model, models.VisionTransformer):
        side = model.image_size // model.patch_size
        return (name, "tokens", side) if shape[1] == 1 + side * side else None
    return None
