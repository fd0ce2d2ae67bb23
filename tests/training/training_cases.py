"""What tests of training share: a workspace with a tiny data set that can be learnt, and ways to run the stage in it."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from skinlesion.artifacts import paths
from skinlesion.artifacts.paths import MEMBERS, METRICS
from skinlesion.artifacts.synthetic import training_fingerprint, write_synthetic
from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES
from stages import train
from tests.conftest import ROOT
from tests.stage_cases import PATIENT, bytes_below, write_lists, write_prepared

# What the fixture `train_params` gives: values of the section `train` to the section.
MakeParams = Callable[..., TrainParams]

TINY = {
    "prepare.size": 32,
    "train.backbone": "mobilenet_v3_small",
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.lr": 0.003,
    "train.patience": 99,
    "train.select_by": "macro_auc",
    "train.loggers": ["dvclive"],  # which is asked to give the same after a kill, as everything else
}
MEMBER = MEMBERS / "base-0"
SUMMARY = METRICS / "train" / "base-0.json"
PLOTS = paths.PLOTS / "train" / "base-0"
ARGUMENTS = ["--member", "base", "--seed", "0"]


def write_inputs(*, images: int = 140) -> None:
    """Everything that `train` reads: 32 px images whose mean color tells the class, with noise; three fifths train."""
    random = np.random.default_rng(0)
    colors = random.integers(40, 216, size=(7, 3))
    labels = np.arange(images) % 7
    noise = random.normal(0, 25, size=(images, 32, 32, 3))
    ids = [f"SYNTH_{number:07d}" for number in range(images)]
    write_prepared(ids, colors[labels][:, None, None, :] + noise, width=32, height=32)
    frame = pd.DataFrame({"lesion_id": [f"L{number}" for number in range(images)], "image_id": ids})
    frame = frame.assign(dx=[CLASSES[label] for label in labels], **PATIENT)
    first, second = images * 3 // 5, images * 4 // 5 - 1
    splits = {"train": frame.iloc[:first], "val": frame.iloc[first:second], "test": frame.iloc[second:]}
    write_lists(splits, "0123")
    write_synthetic([], [], size=32, facts={"fingerprint": training_fingerprint(splits["train"])})


def train_base() -> None:
    """Run the stage for member `base`, seed 0, in this process."""
    train.main(ARGUMENTS)


def outputs() -> dict[str, bytes]:
    """Bytes of everything that the stage wrote."""
    return bytes_below(MEMBER, METRICS, PLOTS)


def start_train(*launcher: str) -> subprocess.Popen[str]:
    """Start the stage as DVC does, or by a launcher."""
    command = [sys.executable, *launcher, "-m", "stages.train", *ARGUMENTS]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> str:
    """What a training that must succeed said."""
    stderr = process.communicate(timeout=200)[1]
    assert process.returncode == 0, stderr
    return stderr


def kill_at(line: str) -> None:
    """Start the stage, and kill it when it says a line that begins so."""
    process = start_train()
    assert any(said.startswith(line) for said in process.stderr or ())
    time.sleep(0.3)  # somewhere in the next epoch
    process.kill()
    assert process.wait() == -signal.SIGKILL


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint gives back."""
    content = io.BytesIO()
    torch.save(state, content)
    content.seek(0)
    return torch.load(content, weights_only=True)
