"""Which parameters learn at which rate: head and backbone, layer by layer, and what is frozen."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models.vision_transformer import Encoder

from skinlesion.config.training import TrainParams
from skinlesion.network import SkinNetwork

CONTAINERS = (nn.Sequential, nn.ModuleList, Encoder)


def parameter_groups(network: SkinNetwork, params: TrainParams) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, the backbone's from the image on, then the head's.

    The head (with attention and metadata encoder) learns at `lr`. The backbone learns at `backbone_lr`, or `lr` if that is
    null; or, with `layer_decay` below 1, its last group of layers at `lr * layer_decay`, the one before at
    `lr * layer_decay**2` and so on (as in BEiT: Bao et al. 2021, arXiv 2106.08254, and ConvNeXt). Kernels and matrices
    decay by `weight_decay`, biases, norms and other vectors not at all.

    Returns
    -------
    Dictionaries with `params`, `lr`, `weight_decay` and `name`: `head`, `backbone`, or `backbone.` and the first layer
    of the group, with ` without decay` where that holds. Every parameter of the network is in one of them.
    """
    head = [parameter for name, parameter in network.named_parameters() if not name.startswith("backbone.")]
    if params.layer_decay < 1:
        layers = layer_groups(network.backbone)
        rates = [params.lr * params.layer_decay ** (len(layers) - index) for index in range(len(layers))]
        parts = [(f"backbone.{name}", rate, members) for (name, members), rate in zip(layers.items(), rates, strict=True)]
    else:
        rate = params.lr if params.backbone_lr is None else params.backbone_lr
        parts = [("backbone", rate, list(network.backbone.parameters()))]
    groups = []
    for name, rate, members in [*parts, ("head", params.lr, head)]:
        # A vector may come with sides of length one, as ConvNeXt's layer scale (C, 1, 1) and ViT's class token do.
        matrices = [parameter for parameter in members if parameter.squeeze().ndim > 1]
        vectors = [parameter for parameter in members if parameter.squeeze().ndim <= 1]
        groups.append({"params": matrices, "lr": rate, "weight_decay": params.weight_decay, "name": name})
        groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0, "name": f"{name} without decay"})
    return [group for group in groups if group["params"]]


def layer_groups(backbone: nn.Module) -> dict[str, list[nn.Parameter]]:
    """A torchvision network's parameters in groups of layers, in the order of the forward pass, named by their first layer.

    A group is a layer at the top of the network or a child of a sequence that stands there: a block of a ResNet, a ViT or a
    MobileNet, a stage of a ConvNeXt, a Swin or an EfficientNet. Norms, and parameters that stand alone (a class token, a
    position embedding), belong to the group before them, the very first to the one after.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    leading: list[nn.Parameter] = []
    for name, members, has_kernel in _units(backbone):
        if has_kernel:
            groups[name] = leading + members
            leading = []
        elif groups:
            groups[next(reversed(groups))] += members
        else:
            leading += members
    return groups


def _units(module: nn.Module, prefix: str = "", *, nested: bool = False) -> list[tuple[str, list[nn.Parameter], bool]]:
    """Name, parameters, and whether it has a kernel or a matrix of a layer, of each unit that `layer_groups` joins."""
    units = [(prefix + name, [parameter], False) for name, parameter in module.named_parameters(recurse=False)]
    for name, child in module.named_children():
        if type(child) in CONTAINERS and not nested:
            units += _units(child, f"{prefix}{name}.", nested=type(child) is not Encoder)
        elif members := list(child.parameters()):
            units.append((prefix + name, members, any(parameter.ndim > 1 for parameter in members)))
    return units


def freeze_backbone(network: SkinNetwork, frozen: bool) -> None:
    """Stop the backbone's parameters from getting gradients, or let them again; the head's always do."""
    network.backbone.requires_grad_(not frozen)


def set_train_mode(network: SkinNetwork, *, frozen: bool) -> None:
    """Put the network in train mode; a frozen backbone in eval mode, so that its batch norms' averages stay as they are."""
    network.train()
    if frozen:
        network.backbone.eval()
