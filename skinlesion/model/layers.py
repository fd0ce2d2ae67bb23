"""The layers of torchvision's networks: where each family has its last feature map, and which belong together."""

from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import Encoder

CONTAINERS = (nn.Sequential, nn.ModuleList, Encoder)

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


def layer_groups(backbone: nn.Module) -> dict[str, list[nn.Parameter]]:
    """A torchvision network's parameters in groups of layers, in the order of the forward pass, named by their first layer.

    A group is a layer at the top of the network or a child of a sequence that stands there: a block of a ResNet, a ViT or a
    MobileNet, a stage of a ConvNeXt, a Swin or an EfficientNet. Norms, and parameters that stand alone (a class token, a
    position embedding), belong to the group before them, the very first to the one after.
    """
    groups: dict[str, list[nn.Parameter]] = {}
    leading: list[nn.Parameter] = []
    for name, members, has_kernel in _units(backbone):
        if has_kernel:
            groups[name] = leading + members
            leading = []
        elif groups:
            groups[next(reversed(groups))] += members
        else:
            leading += members
    return groups


def _units(module: nn.Module, prefix: str = "", *, nested: bool = False) -> list[tuple[str, list[nn.Parameter], bool]]:
    """Name, parameters, and whether it has a kernel or a matrix of a layer, of each unit that `layer_groups` joins."""
    units = [(prefix + name, [parameter], False) for name, parameter in module.named_parameters(recurse=False)]
    for name, child in module.named_children():
        if type(child) in CONTAINERS and not nested:
            units += _units(child, f"{prefix}{name}.", nested=type(child) is not Encoder)
        elif members := list(child.parameters()):
            units.append((prefix + name, members, any(parameter.ndim > 1 for parameter in members)))
    return units
