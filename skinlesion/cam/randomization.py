"""The sanity check: maps of a network that has forgotten what it learnt must be other maps.

Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, section 3: the weights are made random from the top down, layer by
layer, and the maps are compared with the trained network's. Here they are shuffled within each tensor, which keeps their
distribution, and batch norm's statistics are then computed anew, or the random features would run out of all bounds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from skinlesion.classifier import Classifier
from skinlesion.network import SkinNetwork
from skinlesion.parameter_groups import layer_groups

# Share of the backbone's groups of layers that are shuffled, from the last one down; the head is shuffled in all.
DEPTHS: dict[str, float] = {"head": 0.0, "last quarter": 0.25, "last half": 0.5, "last three quarters": 0.75, "all layers": 1.0}
FULL = "all layers"


def shuffled_member(classifier: Classifier, depth: float, *, seed: int) -> Classifier:
    """A copy of a classifier, on the CPU and in eval mode, with the weights of its head and of its last layers shuffled.

    Parameters
    ----------
    depth : share of the backbone's groups of layers (`skinlesion.parameter_groups.layer_groups`), 0 to 1, rounded to whole
        groups. What stands beside the backbone (attention, metadata encoder, head) is shuffled in any case.
    seed : of the order; a tensor that two depths shuffle is shuffled alike.
    """
    model = copy.deepcopy(classifier.model).cpu().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in _from_the_top(model, depth):
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return Classifier(model, classifier.config)


def _from_the_top(model: SkinNetwork, depth: float) -> Iterable[nn.Parameter]:
    """The parameters that are shuffled, the head's first, then the backbone's groups from the last one down."""
    yield from (parameter for name, parameter in model.named_parameters() if not name.startswith("backbone."))
    groups = list(layer_groups(model.backbone).values())
    for group in groups[len(groups) - round(depth * len(groups)) :][::-1]:
        yield from group


def renew_batch_norm(
    model: SkinNetwork, batches: Iterable[tuple[torch.Tensor, torch.Tensor | None]], *, device: torch.device
) -> None:
    """Compute the means and variances of a network's batch norms over batches of normalised images (and metadata)."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    model.to(device).eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average over all batches
        norm.train()
    with torch.no_grad():
        for images, metadata in batches:
            model(images.to(device), None if metadata is None else metadata.to(device))
    model.eval()


def shuffle_ensemble(members: Mapping[str, Classifier], depth: float, *, seed: int) -> dict[str, Classifier]:
    """`shuffled_member` of each member, each with an order of its own."""
    return {name: shuffled_member(each, depth, seed=seed + number) for number, (name, each) in enumerate(members.items())}
