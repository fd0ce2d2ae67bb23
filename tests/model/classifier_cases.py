"""What the tests of the classifier share: small networks with seeded random weights, and how to save an ensemble of them."""

import gc
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.base.files import write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.decisions import write_calibration, write_operating_points
from skinlesion.model.backbones import normalization
from skinlesion.model.classifier import ClassifierConfig, load_ensemble, normalize, save_classifier
from skinlesion.model.network import NetworkSpec, SkinNetwork, build_network


def make_spec(backbone: str, **overrides: Any) -> NetworkSpec:
    """A plain network: linear head, no attention, no metadata."""
    plain = {"head": "linear", "hidden": 8, "hidden_dropout": 0.0, "dropout": None, "dropout_samples": 1, "attention": "none"}
    return NetworkSpec(**{"backbone": backbone, **plain, "metadata": False, "metadata_dropout": 0.0} | overrides)


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


def make_sensitive(config: ClassifierConfig, images: np.ndarray, metadata: np.ndarray | None = None) -> SkinNetwork:
    """A random network whose logits differ between some images by about 1: those of a fresh one hardly do."""
    model = make_network(config, seed=config.seed)
    known = None if metadata is None else torch.from_numpy(metadata)
    with torch.inference_mode():
        logits = model(normalize(torch.from_numpy(images), config), known)
    layer = last_linear(model)
    with torch.no_grad():
        layer.weight /= logits.std(dim=0)[:, None]
        layer.bias.copy_((layer.bias - logits.mean(dim=0)) / logits.std(dim=0))
    return model


def votes(images: np.ndarray, metadata: np.ndarray | None = None, *, flips: bool = True) -> np.ndarray:
    """Log of the mean probability of members and views by torch and NumPy alone; the logits of one network with one view."""
    known = None if metadata is None else torch.from_numpy(metadata)
    probabilities, logits = [], np.empty(0)
    for model, config in load_ensemble().values():
        batch = normalize(torch.from_numpy(images), config)
        for view in [batch, batch.flip(-1), batch.flip(-2), batch.flip(-1, -2)] if flips else [batch]:
            with torch.inference_mode():
                logits = model(view, known).double().numpy()
            probabilities.append(softmax(logits, axis=1))
    return logits if len(probabilities) == 1 else np.log(np.mean(probabilities, axis=0))


SCALE = 0.8  # one over the temperature that `write_decisions` states
POINTS = {"recall_0.90": {"constraint": 0.9, "threshold": 0.12}, "youden": {"constraint": None, "threshold": 0.2}}


def write_decisions(test_time: str) -> None:
    """The calibration and the operating points of a classifier, as `evaluate` and `threshold-sweep` leave them."""
    calibration = {"method": "temperature", "scale": [SCALE] * 7, "bias": [0.0] * 7, "temperature": 1 / SCALE, "fitted_on": "val"}
    write_calibration(calibration | {"test_time": test_time})
    described = {"target": "mel", "classes": ["mel"], "score": "probability", "rule": ">=", "chosen_on": "val", "points": POINTS}
    write_operating_points(described)


def last_linear(model: SkinNetwork) -> nn.Linear:
    """The layer that gives the logits."""
    return [module for module in model.head.modules() if isinstance(module, nn.Linear)][-1]


def tensors_left_by(call: Callable[[], object]) -> int:
    """How many tensors a call leaves behind. What was there before is kept from the collector, which walks it for seconds."""
    gc.freeze()
    call()
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def save_ensemble(members: Iterable[tuple[SkinNetwork, ClassifierConfig]], root: Path = Path()) -> None:
    """Write `models/classifier` as the stage `assemble` does, as far as later stages read it."""
    names = []
    for model, config in members:
        save_classifier(model.state_dict(), config, root / CLASSIFIER / config.name)
        names.append({"name": config.name})
    write_json(root / CLASSIFIER / "ensemble.json", {"members": names})
