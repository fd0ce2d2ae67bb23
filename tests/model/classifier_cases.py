"""What the tests of the classifier share: small networks with seeded random weights, and how to save an ensemble of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.base.files import write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.model.backbones import normalization
from skinlesion.model.classifier import ClassifierConfig, save_classifier
from skinlesion.model.network import NetworkSpec, SkinNetwork, build_network


def make_spec(backbone: str, **overrides: Any) -> NetworkSpec:
    """A plain network: linear head, no attention, no metadata."""
    plain = {"head": "linear", "hidden": 8, "hidden_dropout": 0.0, "dropout": None, "dropout_samples": 1, "attention": "none"}
    return NetworkSpec(**{"backbone": backbone, **plain, "metadata": False, "metadata_dropout": 0.0} | overrides)


def build(size: int = 32, **options: Any) -> SkinNetwork:
    """A plain ResNet-18 with some options set, from the same random weights every time, in train mode."""
    torch.manual_seed(0)
    spec = make_spec(options.pop("backbone", "resnet18"), **options)
    return build_network(spec, num_classes=len(CLASSES), size=size)


def images(size: int = 32, count: int = 4) -> torch.Tensor:
    """Normalized noise, the same every time."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def make_config(backbone: str = "resnet18", **overrides: Any) -> ClassifierConfig:
    """The config of member base-0 at 32 px; `overrides` are its fields, or those of its `NetworkSpec`."""
    spec = {key: overrides.pop(key) for key in list(overrides) if key in NetworkSpec.__dataclass_fields__}
    mean, std = normalization(backbone)
    facts = {
        "member": "base",
        "seed": 0,
        "backbone": backbone,
        "network": asdict(make_spec(backbone, **spec)),
        "classes": CLASSES,
        "size": 32,
        "fit": "squash",
        "color_constancy": "none",
        "mean": mean,
        "std": std,
        "params": {},
        "epoch": 1,
        "weights_sha256": None,
        "fingerprint": "f00d",
        "images_sha256": "beef",
        "data": {"source": "sample", "synthetic": True},
        "git_commit": None,
        "versions": {},
    }
    return ClassifierConfig(**facts | overrides)


def make_network(config: ClassifierConfig, *, seed: int = 0) -> SkinNetwork:
    """The network of a config from seeded random weights, in eval mode."""
    torch.manual_seed(seed)
    model = build_network(NetworkSpec(**config.network), num_classes=len(CLASSES), size=config.size).eval()
    if config.backbone.startswith("vit"):  # torchvision starts its head at zero, which gives no evidence for anything
        nn.init.normal_(last_linear(model).weight)
    return model


def last_linear(model: SkinNetwork) -> nn.Linear:
    """The layer that gives the logits."""
    return [module for module in model.head.modules() if isinstance(module, nn.Linear)][-1]


def save_ensemble(members: Iterable[tuple[SkinNetwork, ClassifierConfig]]) -> None:
    """Write `models/classifier` as the stage `assemble` does, as far as later stages read it."""
    names = []
    for model, config in members:
        save_classifier(model.state_dict(), config, CLASSIFIER / config.name)
        names.append({"name": config.name})
    write_json(CLASSIFIER / "ensemble.json", {"members": names})
