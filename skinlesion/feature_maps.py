"""Where each family of torchvision's networks has its last feature map."""

from __future__ import annotations

from torch import nn
from torchvision import models

# The last feature map of each family, by torchvision's class; a number counts a container's children. Each is what the
# network pools (Grad-CAM paper, section 3), rectified where the network rectifies it, with these exceptions:
# - VGG, AlexNet: the last rectified convolution, before its max pooling, as in the paper: four times the cells.
# - ViT: the input of the last block's attention, the last place where patches still reach the class token.
# - Swin: the normed tokens that are pooled. The last block's norm2, often used, lies beside the residual path.
FAMILY_LAYERS: dict[type[nn.Module], str] = {
    models.AlexNet: "features.-2",
    models.ConvNeXt: "features",
    models.DenseNet: "features",
    models.EfficientNet: "features",
    models.GoogLeNet: "inception5b",
    models.Inception3: "Mixed_7c",
    models.MaxVit: "blocks.-1",
    models.MNASNet: "layers",
    models.MobileNetV2: "features",
    models.MobileNetV3: "features",
    models.RegNet: "trunk_output",
    models.ResNet: "layer4",
    models.ShuffleNetV2: "conv5",
    models.SqueezeNet: "features",
    models.SwinTransformer: "norm",
    models.VGG: "features.-2",
    models.VisionTransformer: "encoder.layers.-1.ln_1",
}


def last_feature_map(model: nn.Module) -> str | None:
    """Name of the layer that gives a torchvision network's last feature map; None where the family is not known."""
    path = next((path for family, path in FAMILY_LAYERS.items() if isinstance(model, family)), None)
    return None if path is None else _resolve(model, path)


def _resolve(model: nn.Module, path: str) -> str:
    """A layer's name from a path of `FAMILY_LAYERS`, its negative numbers replaced by names of children."""
    names: list[str] = []
    for part in path.split("."):
        children = [name for name, _ in model.get_submodule(".".join(names)).named_children()]
        names.append(children[int(part)] if part.startswith("-") else part)
    return ".".join(names)
