"""The running means and variances of batch norm: computed anew over chosen images, or left alone by a pass in training mode."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms that have running statistics, by name."""
    modules = network.named_modules()
    return {name: module for name, module in modules if isinstance(module, _BatchNorm) and module.track_running_stats}


@contextmanager
def renewed_statistics(network: nn.Module, norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Within the block the statistics of `norms` become the mean over all batches that pass; their old ones are forgotten.

    All else is in eval mode within, and everything after. (torch's `update_bn` has the whole network in training mode: dropout
    and stochastic depth would change what a later norm sees.) The caller chooses the device and switches the gradient off.

    norms : of `network`.
    """
    momenta = {norm: norm.momentum for norm in norms}
    network.eval()
    try:
        for norm in momenta:
            norm.reset_running_stats()
            norm.momentum = None  # a cumulative average over all batches
            norm.train()
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        network.eval()


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Within the block batch norms in training mode normalize by the batch, and leave running statistics and count alone.

    For the second pass of sharpness-aware minimization: its weights are not the network's, and it would count a batch twice.
    """
    norms = batch_norms(network).values()
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
