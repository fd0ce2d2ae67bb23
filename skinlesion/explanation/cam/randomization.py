"""The sanity check: maps of a network that has forgotten what it learnt must be other maps.

Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, section 3: the weights are made random from the top down, layer by
layer, and the maps are compared with the trained network's. Here they are shuffled within each tensor, which keeps their
distribution, and batch norm's statistics are then computed anew, or the random features would run out of all bounds.
"""

import copy
import itertools
from collections.abc import Iterable, Mapping

import torch

from skinlesion.model.batch_norm import batch_norms, renewed_statistics
from skinlesion.model.classifier import Classifier
from skinlesion.model.float32 import full_float32
from skinlesion.model.layers import layer_groups
from skinlesion.model.network import SkinNetwork

# Share of the backbone's groups of layers that are shuffled, from the last one down; the head is shuffled in all.
DEPTHS: dict[str, float] = {"head": 0.0, "last quarter": 0.25, "last half": 0.5, "last three quarters": 0.75, "all layers": 1.0}
FULL = "all layers"


def shuffle_cascade(members: Mapping[str, Classifier], *, seed: int) -> dict[str, dict[str, Classifier]]:
    """Copies of an ensemble, on the CPU and in eval mode, the weights shuffled down to each of `DEPTHS`, by depth and member.

    Depths are shares of the backbone's groups of layers (`skinlesion.model.layers.layer_groups`), rounded to whole groups.
    What stands beside the backbone (attention, metadata encoder, head) is shuffled in all. A tensor is shuffled alike in every
    depth.

    seed : of the order; each member has one of its own.
    """
    cascades = {
        name: _shuffle_member(classifier, torch.Generator().manual_seed(seed + number))
        for number, (name, classifier) in enumerate(members.items())
    }
    return {depth: {name: cascade[depth] for name, cascade in cascades.items()} for depth in DEPTHS}


def _shuffle_member(classifier: Classifier, generator: torch.Generator) -> dict[str, Classifier]:
    """One member down to each depth, each from the one before it."""
    cascade: dict[str, Classifier] = {}
    model, done = classifier.model, 0
    for depth, share in DEPTHS.items():
        model = copy.deepcopy(model).cpu().eval()
        # In the order in which they are shuffled: what is not the backbone's, then its groups from the last down.
        head = [parameter for name, parameter in model.named_parameters() if not name.startswith("backbone.")]
        units = [head, *reversed(list(layer_groups(model.backbone).values()))]
        reached = 1 + round(share * (len(units) - 1))
        with torch.no_grad():
            for parameter in itertools.chain(*units[done:reached]):
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        done = reached
        cascade[depth] = Classifier(model, classifier.config)
    return cascade


def renew_batch_norm(
    model: SkinNetwork, batches: Iterable[tuple[torch.Tensor, torch.Tensor | None]], *, device: torch.device
) -> None:
    """Compute the means and variances of a network's batch norms over batches of normalised images (and metadata)."""
    norms = batch_norms(model).values()
    if not norms:
        return
    model.to(device)
    with renewed_statistics(model, norms), torch.no_grad(), full_float32():
        for images, metadata in batches:
            model(images.to(device), None if metadata is None else metadata.to(device))
