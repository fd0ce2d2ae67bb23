"""The optimizers that `train.optimizer` can name, and the two halves of a step of sharpness-aware minimisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from skinlesion.config.training import TrainParams


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
    """First half of sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412): go to the worst point within `rho`.

    Adds `rho * g / ||g||` to the parameters in place, the norm taken over all their gradients together. Nothing moves where
    that norm is 0. The caller then takes the gradient there, goes back by `descend`, and steps with it.

    Returns
    -------
    The weights before, one for each parameter, None for one without a gradient: what `descend` takes.
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return [None] * len(parameters)
    norm = nn.utils.get_total_norm(gradients)
    scale = torch.where(norm > 0, rho / norm, 0.0)  # on the device: an `if` would make the CPU wait for a GPU
    weights: list[torch.Tensor | None] = []
    for parameter in parameters:
        if parameter.grad is None:
            weights.append(None)
            continue
        weights.append(parameter.detach().clone())
        parameter.add_(parameter.grad * scale.to(parameter.device))
    return weights


@torch.no_grad()
def descend(parameters: Iterable[nn.Parameter], weights: list[torch.Tensor | None]) -> None:
    """Put back the weights that `climb` returned, bit by bit: subtracting what was added would leave a rounding error a step."""
    for parameter, weight in zip(parameters, weights, strict=True):
        if weight is not None:
            parameter.copy_(weight)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Within the block batch norms in training mode normalise by the batch, and leave running statistics and count alone.

    For the second pass of sharpness-aware minimisation: its weights are not the network's, and it would count a batch twice.
    """
    tracking = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
