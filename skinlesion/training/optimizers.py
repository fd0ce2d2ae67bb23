"""The optimizers of `train.optimizer`, which parameters learn at which rate, and steps of sharpness-aware minimization."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from skinlesion.config.training import TrainParams
from skinlesion.model.layers import layer_groups
from skinlesion.model.network import SkinNetwork


def make_optimizer(groups: list[dict[str, Any]], params: TrainParams) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) or stochastic gradient descent over `groups`, which bring their own lr and weight decay.

    SGD has Nesterov momentum (Sutskever et al. 2013), or none where `momentum` is 0.
    """
    if params.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=params.lr, weight_decay=params.weight_decay)
    return torch.optim.SGD(
        groups, lr=params.lr, momentum=params.momentum, nesterov=params.momentum > 0, weight_decay=params.weight_decay
    )


@torch.no_grad()
def climb(parameters: Iterable[nn.Parameter], rho: float) -> list[torch.Tensor | None]:
    """First half of sharpness-aware minimization (Foret et al. 2021, arXiv 2010.01412): go to the worst point within `rho`.

    Adds `rho * g / ||g||` to the parameters in place, the norm taken over all their gradients together. Nothing moves where
    that norm is 0. The caller then takes the gradient there, goes back by `descend`, and steps with it.

    Returns
    -------
    The weights before, one for each parameter, None for one without a gradient: what `descend` takes.
    """
    parameters = list(parameters)
    weights = [None if parameter.grad is None else parameter.detach().clone() for parameter in parameters]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    scale = torch.where(norm > 0, rho / norm, 0.0)  # on the device: an `if` would make the CPU wait for a GPU
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.add_(parameter.grad * scale.to(parameter.device))
    return weights


@torch.no_grad()
def descend(parameters: Iterable[nn.Parameter], weights: list[torch.Tensor | None]) -> None:
    """Put back the weights that `climb` returned, bit by bit: subtracting what was added would leave a rounding error a step."""
    for parameter, weight in zip(parameters, weights, strict=True):
        if weight is not None:
            parameter.copy_(weight)


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


def set_train_mode(network: SkinNetwork, *, frozen: bool) -> None:
    """Put the network in train mode.

    A frozen backbone gets no gradients, and is in eval mode, so that its batch norms' averages stay as they are.
    """
    network.train()
    network.backbone.requires_grad_(not frozen)
    if frozen:
        network.backbone.eval()
