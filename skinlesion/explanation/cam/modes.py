"""A network that is looked at is left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module, *, frozen: bool = False) -> Iterator[None]:
    """Eval mode, without gradients of parameters if `frozen`; every module's mode and every flag are restored, also on error."""
    training = {module: module.training for module in model.modules()}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        model.eval()
        if frozen:
            model.requires_grad_(False)
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@torch.no_grad()
def pass_blank(model: nn.Module, size: int) -> None:
    """Have a network in eval mode see one blank image of `size` x `size` pixels, for the hooks that are in it."""
    with evaluating(model):
        model(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
