"""Networks that the tests explain: small ones of known weights, and those of torchvision with random ones."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.model.classifier import ClassifierConfig
from skinlesion.model.metadata import MetadataEncoder
from skinlesion.model.network import SkinNetwork
from tests.model.classifier_cases import make_config, make_network

CPU = torch.device("cpu")

SIZE = 16

SEED = 5


def config_of(backbone: str, size: int) -> ClassifierConfig:
    """A config that takes RGB to [0, 10], so that the noise of SmoothGradCAMpp (standard deviation 0.3) is small beside it."""
    return make_config(backbone, size=size, mean=(0.0, 0.0, 0.0), std=(0.1, 0.1, 0.1))


def build(backbone: str, size: int, **spec: Any) -> SkinNetwork:
    """A network from seeded random weights, in eval mode; `spec` as of `NetworkSpec`."""
    return make_network(make_config(backbone, size=size, **spec))


def noise_images(count: int, size: int) -> np.ndarray:
    """Smooth noise, uint8 (count, size, size, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in coarse])


def maps_of(
    model: SkinNetwork, images: np.ndarray, classes: list[int], *, metadata: Any = None, progress: bool = False, **options: Any
) -> np.ndarray:
    """Maps on the CPU; `options` are those of `MapOptions`."""
    chosen = MapOptions(device=CPU, **{"method": "GradCAM", "batch_size": 4, "seed": SEED} | options)
    config = config_of("resnet18", len(images[0]))
    return compute_maps(model, config, images, classes, chosen, metadata=metadata, progress=progress)


def scaled(values: np.ndarray) -> np.ndarray:
    """Rectified, the strongest cell at 1."""
    values = np.maximum(values, 0)
    return values / values.max() if values.max() > 0 else values


def hooks_of(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_full_backward_hooks")
    return sum(len(getattr(module, kind, ())) for module in model.modules() for kind in kinds)


class ColorNet(nn.Module):
    """Three class scores with known evidence: mean red, mean blue, and minus mean red."""

    def __init__(self) -> None:
        super().__init__()
        self.red_and_blue = nn.Conv2d(3, 2, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.red_and_blue.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1]]).view(2, 3, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.red_and_blue(images)).flatten(1))


def color_network() -> SkinNetwork:
    """`ColorNet` as the backbone of a network whose head changes nothing."""
    return SkinNetwork(ColorNet(), nn.Identity())


class SmallNet(nn.Module):
    """Two strided convolutions whose maps are pooled: 8 x 8 and 4 x 4 cells of 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.pool(self.second(self.first(images))).flatten(1)


class BreakableHead(nn.Linear):
    """A linear layer whose n-th call from now on fails."""

    calls_left = -1

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.calls_left -= 1
        if self.calls_left == 0:
            raise RuntimeError("broken on purpose")
        return super().forward(features)


def small_network(*, metadata: bool = False) -> SkinNetwork:
    torch.manual_seed(1)
    encoder = MetadataEncoder(dropout=0.0) if metadata else None
    features = 5 + (encoder.FEATURES if encoder is not None else 0)
    network = SkinNetwork(SmallNet(), BreakableHead(features, len(CLASSES)), metadata_encoder=encoder)
    for parameter in network.parameters():
        parameter.data.mul_(3)  # so that classes differ
    return network.eval()


def tiny_vit() -> tuple[SkinNetwork, VisionTransformer]:
    """A ViT of two blocks and 4 x 4 patches, as our network and as torchvision's whole one, of the same weights."""
    torch.manual_seed(2)
    options = {"image_size": SIZE, "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    whole, backbone = (VisionTransformer(**options, num_classes=len(CLASSES)).eval() for _ in range(2))
    head = BreakableHead(8, len(CLASSES))
    nn.init.normal_(whole.heads.head.weight)
    backbone.load_state_dict(whole.state_dict())
    head.load_state_dict(whole.heads.head.state_dict())
    backbone.heads = nn.Identity()
    return SkinNetwork(backbone, head).eval(), whole


def tiny_swin() -> SkinNetwork:
    """A Swin whose last maps have 2 x 2 cells, channels last."""
    torch.manual_seed(3)
    options = {"patch_size": [4, 4], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": [2, 2]}
    backbone = SwinTransformer(**options, num_classes=1)
    backbone.head = nn.Identity()
    return SkinNetwork(backbone, BreakableHead(16, len(CLASSES))).eval()


def network_for(method: str) -> tuple[SkinNetwork, str]:
    """A small network that the method can read, and its layer."""
    return (tiny_vit()[0], "auto") if method == "LeGrad" else (small_network(), "second")
