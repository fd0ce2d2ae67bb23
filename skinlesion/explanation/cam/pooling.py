"""Whether a network pools a layer's feature maps straight into one linear layer, as CAM needs it, and that layer's weights."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from skinlesion.artifacts.patients import WIDTH
from skinlesion.base.errors import PipelineError
from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.modes import evaluating
from skinlesion.model.network import SkinNetwork

PROBES = 2
AGREEMENT = 1e-3  # of the greatest value; float32 sums agree far better, means of another map or after another layer far worse


def image_weights(network: SkinNetwork) -> torch.Tensor:
    """The last linear layer's weights (classes, C) of the image's features, which come before those of the metadata; detached."""
    weights = [module for module in network.modules() if isinstance(module, nn.Linear)][-1].weight.detach()
    return weights[:, : weights.shape[1] - _metadata_features(network)]


def check_pooled(network: SkinNetwork, layer: TargetLayer, *, size: int) -> None:
    """Refuse a layer whose feature maps are not pooled straight into one linear layer that gives the scores.

    It is tried out: noise goes through the network, and its last linear layer must be given the maps' means, the features of
    the metadata beside them where the network has any, and give the logits.

    Parameters
    ----------
    network : left as it was.
    layer : one of the backbone's.
    size : of the network's images, pixels.

    Raises
    ------
    PipelineError
        More lies between; it names the layer.
    """
    if not _is_pooled(network, layer, size):
        raise PipelineError(
            f"gradcam.methods: CAM needs feature maps whose means go straight into one linear layer that gives the scores, and "
            f"{type(network.backbone).__name__} with this head computes more between '{layer.name}' and the scores: take "
            "GradCAM, which is the same where CAM can be used"
        )


def _metadata_features(network: SkinNetwork) -> int:
    return 0 if network.metadata_encoder is None else network.metadata_encoder.FEATURES


@torch.no_grad()
def _is_pooled(network: SkinNetwork, layer: TargetLayer, size: int) -> bool:
    """Whether noise passes from the means of a layer's maps to the logits by the last linear layer alone."""
    generator, device = torch.Generator().manual_seed(0), next(network.parameters()).device
    images = torch.randn(PROBES, 3, size, size, generator=generator).to(device)
    metadata = torch.rand(PROBES, WIDTH, generator=generator).to(device)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)][-1:]
    kept: dict[str, torch.Tensor] = {}

    def keep_maps(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        kept["maps"] = output

    def keep_features(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        kept.update(features=inputs[0], scores=output)

    with ExitStack() as hooks, evaluating(network):
        hooks.enter_context(network.backbone.get_submodule(layer.name).register_forward_hook(keep_maps))
        for module in linear:
            hooks.enter_context(module.register_forward_hook(keep_features))
        logits = network(images, metadata)
    if "features" not in kept:
        return False
    # Only now: what follows may have changed the layer's output in place.
    means = layer.to_feature_maps(kept["maps"]).mean(dim=(2, 3))
    channels, features = means.shape[1], kept["features"]
    return (
        features.shape == (PROBES, channels + _metadata_features(network))
        and _agree(features[:, :channels], means)
        and kept["scores"].shape == logits.shape
        and _agree(kept["scores"], logits)
    )


def _agree(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors differ by no more than rounding."""
    return bool((found - expected).abs().max() <= AGREEMENT * expected.abs().max())
