"""The trained classifier on disk: weights as safetensors, and a `config.json` that is enough to load it elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from skinlesion.artifacts import CLASSIFIER, Fit
from skinlesion.backbones import build_backbone
from skinlesion.diagnoses import CLASSES
from skinlesion.errors import PipelineError
from skinlesion.files import atomic_folder, read_json, write_json


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything besides the weights that is needed to use the classifier, and where it came from.

    backbone : torchvision name.
    classes : diagnoses in the order of the logits.
    size, fit : how an image becomes the network's square (`skinlesion.geometry`), pixels.
    mean, std : of RGB in [0, 1], subtracted and divided by.
    params : the `train` section that it was trained with.
    epoch : the epoch (1 is the first) whose weights these are.
    weights_sha256 : of the checkpoint that training started from; None if from random weights.
    fingerprint : sha256 of the split's lists.
    images_sha256 : of `data/prepared/images.npy`, the pixels that it was trained on.
    data : source of the images, and whether they are synthetic.
    git_commit : of the code, with `-dirty` where it was edited; None outside git.
    versions : of Python and the libraries that matter.
    """

    backbone: str
    classes: tuple[str, ...]
    size: int
    fit: Fit
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    params: dict[str, Any]
    epoch: int
    weights_sha256: str | None
    fingerprint: str
    images_sha256: str
    data: dict[str, Any]
    git_commit: str | None
    versions: dict[str, str]


def save_classifier(state: dict[str, torch.Tensor], config: ClassifierConfig, folder: Path = CLASSIFIER) -> None:
    """Write `weights.safetensors` (float32, CPU, contiguous) and `config.json`, both or neither."""
    with atomic_folder(folder) as partial:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        # Not save_file, whose error for a full disk is no OSError.
        (partial / "weights.safetensors").write_bytes(safetensors.torch.save(tensors))
        write_json(partial / "config.json", asdict(config))


def read_classifier_config(folder: Path = CLASSIFIER) -> ClassifierConfig:
    """Read and check `config.json`.

    Raises
    ------
    PipelineError
        Missing, incomplete, or its classes are not this project's.
    """
    path = folder / "config.json"
    content = read_json(path)
    missing = [field.name for field in fields(ClassifierConfig) if field.name not in content]
    if missing:
        raise PipelineError(f"{path} lacks {', '.join(missing)}: run `train` again")
    if tuple(content["classes"]) != CLASSES:
        raise PipelineError(f"{path}: classes are {content['classes']}, this project's are {list(CLASSES)}: run `train` again")
    known = {field.name: content[field.name] for field in fields(ClassifierConfig)}
    return ClassifierConfig(**known | {name: tuple(known[name]) for name in ("classes", "mean", "std")})


def load_classifier(folder: Path = CLASSIFIER) -> tuple[nn.Module, ClassifierConfig]:
    """Load the classifier: the network in eval mode on the CPU, and its config.

    The network maps float32 (N, 3, size, size), normalised, to logits, float32 (N, 7) in the order of `config.classes`.

    Raises
    ------
    PipelineError
        A file is missing or damaged, or the weights do not fit the backbone.
    """
    config = read_classifier_config(folder)
    path = folder / "weights.safetensors"
    model = build_backbone(config.backbone, num_classes=len(config.classes), size=config.size)
    try:
        model.load_state_dict(safetensors.torch.load_file(path), strict=True)
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run `train` first, or `dvc repro`") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(f"{path} is damaged or does not fit '{config.backbone}' ({reason}): run `train` again") from None
    return model.eval(), config


def normalize(images: torch.Tensor, config: ClassifierConfig) -> torch.Tensor:
    """Turn uint8 RGB (N, H, W, 3) into the network's input, float32 (N, 3, H, W), channels last in memory, same device."""
    return standardize(images, mean=config.mean, std=config.std)


def standardize(images: torch.Tensor, *, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """`normalize` for a mean and a standard deviation of RGB in [0, 1]."""
    # permute leaves the memory in channels-last order, which convolutions on CPU and GPU prefer.
    channels_first = images.permute(0, 3, 1, 2).float() / 255
    means, stds = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    return ((channels_first - means) / stds).contiguous(memory_format=torch.channels_last)
