"""What each method reads of a network: one layer, two that it puts together, whole blocks of attention, or the image alone."""

import difflib
from collections.abc import Callable

from torchvision.models import VisionTransformer

from skinlesion.base.errors import PipelineError
from skinlesion.config.evaluation import CamMethod
from skinlesion.explanation.cam.layers import MIN_SIDE, TargetLayer, find_finer_stage, find_layer
from skinlesion.explanation.cam.methods import check_method
from skinlesion.explanation.cam.occlusion import image_cells
from skinlesion.explanation.cam.pooling import check_pooled
from skinlesion.explanation.cam.receptive_field import tiled_centers
from skinlesion.model.network import SkinNetwork

BLOCKS = "encoder.layers"  # of torchvision's VisionTransformer


def find_target(network: SkinNetwork, method: CamMethod, layer: str, *, size: int) -> TargetLayer:
    """Find what a method reads, and prove that it can, before any image is explained.

    Parameters
    ----------
    network : left as it was.
    layer : `auto` or the name of a layer of the backbone, see `layers.find_layer`; where a method has a word
        to say about it:

        - CAM: `auto` is the family's last feature map however few its cells, and whatever is named must be pooled straight
          into one linear layer.
        - RefineCAM: the layer, and the last stage before it that has more cells, named as `layer2 x layer3`; the map has
          the cells of the latter.
        - LeGrad: `auto` is all encoder blocks of a ViT; or one by its name.
        - Occlusion: not looked at, for it reads the image alone.
    size : of the network's images, pixels.

    Raises
    ------
    PipelineError
        No such method, no such layer, or the method cannot be used on it; with the reason.
    """
    find = SPECIAL.get(check_method(method))
    return find_layer(network.backbone, layer, size=size) if find is None else find(network, layer, size)


def _find_pooled(network: SkinNetwork, layer: str, size: int) -> TargetLayer:
    """A layer that is pooled straight into one linear layer."""
    target = find_layer(network.backbone, layer, size=size, only_last=True)
    check_pooled(network, target, size=size)
    return target


def _find_two_stages(network: SkinNetwork, layer: str, size: int) -> TargetLayer:
    """A layer and a stage before it with a finer map."""
    coarse = find_layer(network.backbone, layer, size=size)
    fine = find_finer_stage(network.backbone, coarse, size=size)
    if fine is None:
        raise PipelineError(
            f"gradcam.methods: RefineCAM refines a layer's map by an earlier stage's, and {type(network.backbone).__name__} "
            f"has none with more cells before '{coarse.name}': name a later layer, or take another method"
        )
    return TargetLayer(f"{fine.name} x {coarse.name}", fine.layout, fine.side, fine.centers, (fine, coarse))


def _find_blocks(network: SkinNetwork, layer: str, size: int) -> TargetLayer:
    """One or all encoder blocks of a ViT, on its grid of patches."""
    backbone = network.backbone
    if not isinstance(backbone, VisionTransformer):
        raise PipelineError(
            f"gradcam.methods: LeGrad reads the attention of a ViT's encoder blocks, and {type(backbone).__name__} has none: "
            "take another method"
        )
    blocks = [f"{BLOCKS}.{name}" for name, _ in backbone.get_submodule(BLOCKS).named_children()]
    if layer not in ("auto", *blocks):
        near = difflib.get_close_matches(layer, blocks, n=1) or blocks[-1:]
        raise PipelineError(
            f"gradcam.layer: LeGrad reads whole encoder blocks, and '{layer}' is none of them; nearest: {near[0]}; or set it to "
            "auto, all of them"
        )
    side = backbone.image_size // backbone.patch_size
    if side < MIN_SIDE:
        raise PipelineError(
            f"gradcam.methods: LeGrad's map has a cell a patch, and images of {size} x {size} pixels have {side} x {side} "
            f"patches of {backbone.patch_size} pixels: raise prepare.size"
        )
    centers = tiled_centers(side, size=size)
    parts = tuple(TargetLayer(name, "tokens", side, centers) for name in (blocks if layer == "auto" else [layer]))
    return TargetLayer(BLOCKS if layer == "auto" else layer, "tokens", side, centers, parts)


SPECIAL: dict[CamMethod, Callable[[SkinNetwork, str, int], TargetLayer]] = {
    "CAM": _find_pooled,
    "RefineCAM": _find_two_stages,
    "LeGrad": _find_blocks,
    "Occlusion": lambda _, __, size: image_cells(size),
}
