"""Trained classifiers on disk: weights as safetensors and a `config.json` that is enough to load one; several as an ensemble."""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.base.errors import PipelineError, brief
from skinlesion.base.files import atomic_folder, read_json, write_json
from skinlesion.config.contents import check_member_names
from skinlesion.config.schema import ColorConstancy, Fit, describe_problem
from skinlesion.diagnoses import CLASSES
from skinlesion.model.backbones import check_numbers
from skinlesion.model.network import NetworkSpec, SkinNetwork, build_network

WEIGHTS_FILE, CONFIG_FILE, ENSEMBLE_FILE = "weights.safetensors", "config.json", "ensemble.json"


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything besides the weights that is needed to use a classifier, and where it came from.

    member, seed : of `ensemble` that it is.
    backbone : torchvision name.
    network : `skinlesion.model.network.NetworkSpec` as a dict, from which the network is built.
    classes : diagnoses in the order of the logits.
    size, fit : how an image becomes the network's square (`skinlesion.data.geometry`), pixels.
    color_constancy : what is done to its colors then, as `prepare.color_constancy`.
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

    member: str
    seed: int
    backbone: str
    network: dict[str, Any]
    classes: tuple[str, ...]
    size: int
    fit: Fit
    color_constancy: ColorConstancy
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

    @property
    def name(self) -> str:
        """As its folder is called: `base-0`."""
        return f"{self.member}-{self.seed}"

    @property
    def needs_metadata(self) -> bool:
        """Whether it predicts from age, sex and site besides the image (`model.metadata`); stands in `config.json` too."""
        return bool(self.network["metadata"])


class Classifier(NamedTuple):
    """A network in eval mode, and its config.

    The network maps float32 (N, 3, size, size), normalized, and, where `config.needs_metadata`, float32 (N, WIDTH) encoded
    metadata, to logits, float32 (N, 7) in the order of `config.classes`.
    """

    model: SkinNetwork
    config: ClassifierConfig


def save_classifier(state: dict[str, torch.Tensor], config: ClassifierConfig, folder: Path) -> None:
    """Write `weights.safetensors` (float32, CPU, contiguous) and `config.json`, both or neither."""
    with atomic_folder(folder) as partial:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        # Not save_file, whose error for a full disk is not an OSError.
        (partial / WEIGHTS_FILE).write_bytes(safetensors.torch.save(tensors))
        first = {"member": config.member, "seed": config.seed, "backbone": config.backbone}
        write_json(partial / CONFIG_FILE, first | {"needs_metadata": config.needs_metadata} | asdict(config))


def read_classifier_config(folder: Path) -> ClassifierConfig:
    """Read and check `config.json`.

    Raises
    ------
    PipelineError
        Missing, incomplete, contradicts itself, or its classes are not this project's.
    """
    path = folder / CONFIG_FILE
    content = read_json(path)
    missing = [field.name for field in fields(ClassifierConfig) if field.name not in content]
    if missing:
        raise PipelineError(f"{path} lacks {', '.join(missing)}: run `train` again")
    known = {field.name: content[field.name] for field in fields(ClassifierConfig)}
    try:
        # As JSON, in which a list stands for a tuple; strict, since "64" is not a size.
        config = TypeAdapter(ClassifierConfig).validate_json(json.dumps(known), strict=True)
        spec = TypeAdapter(NetworkSpec).validate_json(json.dumps(config.network), strict=True)
    except ValidationError as error:
        raise PipelineError(f"{path}: {describe_problem(error.errors()[0])}: run `train` again") from None
    if not all(map(math.isfinite, config.mean)) or not all(0 < value < math.inf for value in config.std):
        raise PipelineError(f"{path}: mean must be finite and std above 0, not {config.mean} and {config.std}: run `train` again")
    if config.classes != CLASSES:
        found = brief(list(config.classes))
        raise PipelineError(f"{path}: classes are {found}, this project's are {list(CLASSES)}: run `train` again")
    if (spec.backbone, spec.metadata) != (config.backbone, content.get("needs_metadata")):
        raise PipelineError(f"{path}: backbone or needs_metadata is not that of its network: run `train` again")
    return config


def load_classifier(folder: Path) -> Classifier:
    """Load one classifier on the CPU, in eval mode.

    Raises
    ------
    PipelineError
        A file is missing or damaged, or the weights do not fit the network.
    """
    config = read_classifier_config(folder)
    path = folder / WEIGHTS_FILE
    model = build_network(NetworkSpec(**config.network), num_classes=len(config.classes), size=config.size)
    try:
        state = safetensors.torch.load_file(path)
        check_numbers(state, f"{path}", like=model.state_dict(), way_out="run `train` again")
        model.load_state_dict(state, strict=True)
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run `train` first, or `dvc repro`") from None
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]  # torch says what does not fit on its further lines
        raise PipelineError(f"{path} is damaged or does not fit '{config.backbone}' ({reason}): run `train` again") from None
    return Classifier(model.eval(), config)


def read_member_names(folder: Path = CLASSIFIER) -> list[str]:
    """Names of an ensemble's members, in the order in which params name them.

    Raises
    ------
    PipelineError
        `ensemble.json` is missing, damaged or names none.
    """
    return check_member_names(read_json(folder / ENSEMBLE_FILE), folder / ENSEMBLE_FILE)


def load_ensemble(folder: Path = CLASSIFIER) -> dict[str, Classifier]:
    """Load every member of the ensemble that `assemble` wrote, by name (`base-0`), in order.

    Raises
    ------
    PipelineError
        As `read_member_names` and `load_classifier`; or a folder holds another member than its name says.
    """
    ensemble = {name: load_classifier(folder / name) for name in read_member_names(folder)}
    for name, classifier in ensemble.items():
        if classifier.config.name != name:
            raise PipelineError(f"{folder / name} holds member '{classifier.config.name}': run `assemble` again")
    return ensemble


def check_prepared(prepared: PreparedImages, config: ClassifierConfig) -> None:
    """Refuse images that were prepared in another way than those that the classifier was trained on."""
    here, there = (f"{way.size} px with fit '{way.fit}', color_constancy '{way.color_constancy}'" for way in (prepared, config))
    if here != there:
        raise PipelineError(
            f"images were prepared at {here}, and the classifier was trained at {there}: run `prepare` and `train` with the same "
            "params"
        )


def normalize(images: torch.Tensor, config: ClassifierConfig) -> torch.Tensor:
    """Turn uint8 RGB (N, H, W, 3) into the network's input, float32 (N, 3, H, W), channels last in memory, same device."""
    return standardize(images, mean=config.mean, std=config.std)


def standardize(images: torch.Tensor, *, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """`normalize` for a mean and a standard deviation of RGB in [0, 1]."""
    # permute leaves the memory in channels-last order, which convolutions on CPU and GPU prefer.
    channels_first = images.permute(0, 3, 1, 2).float() / 255
    means, stds = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    return ((channels_first - means) / stds).contiguous(memory_format=torch.channels_last)
