"""What runs the networks of a classifier: torch, or ONNX Runtime with what the optional stage `export` wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.base.devices import choose_device
from skinlesion.base.errors import PipelineError
from skinlesion.evaluation.inference.inference import Member, place_network
from skinlesion.model.classifier import Classifier
from skinlesion.serving.export.onnx_network import EXPORT, Precision, load_onnx_ensemble

Engine = Literal["torch", "onnx", "onnx-int8"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
PRECISION_OF: dict[Engine, Precision] = {"onnx": "float32", "onnx-int8": "int8"}


def device_of(engine: Engine, device: str) -> torch.device:
    """Where an engine runs.

    device : as `machine.device`; for the ONNX engines `auto` or `cpu`, and PipelineError otherwise.
    """
    if engine == "torch":
        return choose_device(device)
    if device not in ("auto", "cpu"):
        raise PipelineError(f"engine '{engine}' runs on the CPU alone, not on '{device}': use the engine torch, or device cpu")
    return torch.device("cpu")


def load_members(
    root: Path, every: Mapping[str, Classifier], chosen: Sequence[str], engine: Engine, device: torch.device
) -> dict[str, Member]:
    """The networks of an engine, by name.

    root : the workspace. every : the members of its ensemble. chosen : names of those that are used.
    """
    if engine == "torch":
        for name in chosen:
            place_network(every[name].model, device)
        return {name: Member(*every[name]) for name in chosen}
    exported = load_onnx_ensemble(root / EXPORT, PRECISION_OF[engine], classifier=root / CLASSIFIER)
    return {name: exported[name] for name in chosen}
