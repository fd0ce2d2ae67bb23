"""Which parameters learn at which rate: head and backbone, layer by layer, and what is frozen."""

from __future__ import annotations

from typing import Any

from skinlesion.config.training import TrainParams
from skinlesion.model.layers import layer_groups
from skinlesion.model.network import SkinNetwork


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


def freeze_backbone(network: SkinNetwork, frozen: bool) -> None:
    """Stop the backbone's parameters from getting gradients, or let them again; the head's always do."""
    network.backbone.requires_grad_(not frozen)


def set_train_mode(network: SkinNetwork, *, frozen: bool) -> None:
    """Put the network in train mode; a frozen backbone in eval mode, so that its batch norms' averages stay as they are."""
    network.train()
    if frozen:
        network.backbone.eval()
