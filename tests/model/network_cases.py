"""Networks of any family from seeded random weights, and a batch for them."""

from typing import Any

import torch
from torch import nn

from skinlesion.diagnoses import CLASSES
from skinlesion.model.network import SkinNetwork, build_network
from tests.model.classifier_cases import make_spec


def build(size: int = 32, *, backbone: str = "resnet18", **options: Any) -> SkinNetwork:
    """In training mode, as a training begins; `options` are those of `NetworkSpec`."""
    torch.manual_seed(0)
    spec = make_spec(backbone, **{"hidden": 24, "hidden_dropout": 0.3, "metadata_dropout": 0.1} | options)
    return build_network(spec, num_classes=len(CLASSES), size=size)


def images(size: int = 32, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def wake(module: nn.Module) -> None:
    """Give layers that start at zero, and so do nothing yet, weights."""
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5, generator=generator)
