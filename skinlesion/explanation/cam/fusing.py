"""Batch norms folded into the convolutions before them, which saves a network that only predicts a good part of its time.

In eval mode a batch norm multiplies and shifts each channel by constants, and so can be part of the convolution's kernel and bias
(`torch.nn.utils.fusion`). A CPU, which is bound by memory in these layers, is two to three times as fast without them.
"""

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from skinlesion.artifacts.patients import WIDTH
from skinlesion.model.classifier import Classifier
from skinlesion.model.float32 import full_float32
from skinlesion.model.network import SkinNetwork

TOLERANCE = 1e-3  # of the largest logit, by which folding may change one through rounding


def fuse_members(members: Mapping[str, Classifier], *, keep: str) -> dict[str, Classifier]:
    """Copies of an ensemble with `fuse_batch_norms`."""
    return {
        name: Classifier(fuse_batch_norms(each.model, size=each.config.size, keep=keep), each.config)
        for name, each in members.items()
    }


def fuse_batch_norms(model: SkinNetwork, *, size: int, keep: str = "") -> SkinNetwork:
    """A copy of a network in eval mode, on its device, whose batch norms behind a convolution are folded into it.

    Layers keep their names: the convolution's output is then what the batch norm's was, and the batch norm passes it on. One that
    does not directly follow a convolution, as in DenseNet, stays. A network whose logits of a probe would differ by more than
    rounding, as one that also reads a convolution's output before its batch norm, is copied as it is.

    size : side of the images in pixels.
    keep : name of a layer of the backbone whose output must stay what it was, be it a convolution.
    """
    fused = copy.deepcopy(model).eval()
    device = next(fused.parameters()).device
    probe = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    inputs = (probe, torch.zeros(2, WIDTH, device=device) if model.needs_metadata else None)
    with torch.no_grad(), full_float32():
        before = fused(*inputs)
        for convolution, norm in _pairs(fused, inputs):
            if convolution == f"backbone.{keep}":
                continue
            _fold(fused.get_submodule(convolution), fused.get_submodule(norm))
            parent, _, child = norm.rpartition(".")
            setattr(fused.get_submodule(parent), child, nn.Identity())
        after = fused(*inputs)
    same = torch.allclose(before, after, rtol=0, atol=TOLERANCE * float(before.abs().max()))
    return fused if same else copy.deepcopy(model).eval()


def _pairs(model: SkinNetwork, inputs: tuple[Any, ...]) -> list[tuple[str, str]]:
    """Names of convolutions, and of the batch norms that were given their very output, in one pass."""
    producers: dict[int, str] = {}
    kept: list[torch.Tensor] = []  # alive, or another tensor could get its id
    pairs: dict[str, list[str]] = {}

    def follow(module: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor, *, name: str) -> None:
        if isinstance(module, nn.Conv2d):
            producers[id(output)] = name
            kept.append(output)
        else:
            pairs.setdefault(name, []).append(producers.get(id(given[0]), ""))

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                hooks.enter_context(module.register_forward_hook(partial(follow, name=name)))
        model(*inputs)
    # Of one convolution to one batch norm, each called once.
    given = [names[0] for names in pairs.values() if len(names) == 1]
    return [(names[0], norm) for norm, names in pairs.items() if len(names) == 1 and names[0] and given.count(names[0]) == 1]


def _fold(convolution: nn.Module, norm: nn.Module) -> None:
    """Put a batch norm's constants into the convolution before it."""
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)  # as `_pairs` found them
    assert norm.running_mean is not None and norm.running_var is not None  # or it would not be constant
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
