"""What lets an interrupted training go on from its last epoch: one file outside DVC's sight, replaced atomically."""

import hashlib
import io
import json
import logging
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from skinlesion.base.errors import PipelineError, reason_of
from skinlesion.base.files import atomic_file, file_digest, scratch_folder
from skinlesion.base.locks import locked
from skinlesion.model.classifier import ClassifierConfig
from skinlesion.training.engine import precision_of

logger = logging.getLogger(__name__)

# What `skinlesion.training.fit` saves and needs to go on.
STATE_KEYS = {
    *("epoch", "network", "average", "optimizer", "schedule", "scaler", "generators", "history", "best_epoch", "best_state")
}


def resume_key(config: ClassifierConfig, fabric: Fabric, *, stage: str, **facts: str | bool) -> str:
    """Name of the one training that a checkpoint belongs to: a hash of everything that decides its result.

    The commit is left out, which may move on, and so is the epoch, which is not known yet.

    Parameters
    ----------
    config : params, fingerprint of the data, versions.
    fabric : kind and number of devices, of each of which the state of its generators is saved, and the precision.
    stage : path of the script that trains; with every imported module of `skinlesion` the code that decides the result.
    facts : what decides besides.
    """
    described = {name: value for name, value in asdict(config).items() if name not in ("git_commit", "epoch")}
    facts |= {"where": f"{fabric.world_size} x {fabric.device.type}", "precision": precision_of(fabric)}
    files = [str(module.__file__) for name, module in sys.modules.items() if name.startswith("skinlesion.")]
    code = sorted(file_digest(Path(path), "sha256") for path in [*files, stage])
    content = json.dumps({"facts": described | facts, "code": code}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


class Checkpoint:
    """The resume file of one training. It survives SIGKILL under `dvc repro`, `dvc exp run` and `dvc exp run --temp`."""

    def __init__(self, key: str) -> None:
        self.path = scratch_folder("train") / f"{key}.pt"

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from the same training, as from one that outlived its killed `dvc`."""
        return locked(self.path.with_suffix(".lock"), doing="training exactly this")

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file: a reader sees the old state or the new one."""
        content = io.BytesIO()  # torch reports a full disk as a RuntimeError; writing the bytes ourselves gives the OSError
        torch.save(state, content)
        with atomic_file(self.path) as partial:
            partial.write_bytes(content.getbuffer())

    def load(self) -> dict[str, Any] | None:
        """The saved state with tensors on the CPU, or None if there is none.

        Raises
        ------
        PipelineError
            The file is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch documents no closed list of what a damaged file raises
            raise self._damaged(reason_of(error)) from error
        if not isinstance(state, dict) or not state.keys() >= STATE_KEYS:
            raise self._damaged("it does not hold the state of a training")
        logger.info("resuming from %s after epoch %d", self.path, state["epoch"])
        return state

    def _damaged(self, reason: str) -> PipelineError:
        return PipelineError(f"checkpoint {self.path} is damaged ({reason}): delete it to train from the start")

    def delete(self) -> None:
        """Remove the file once the training's result is written."""
        self.path.unlink(missing_ok=True)
