"""What tests of training share: a workspace with a tiny data set that can be learnt, and ways to run the stage in it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from skinlesion.artifacts import paths
from skinlesion.artifacts.paths import MEMBERS, METRICS
from skinlesion.artifacts.prepared import INDEX_COLUMNS, PREPARED
from skinlesion.artifacts.splits import SplitFacts, write_splits
from skinlesion.artifacts.synthetic import training_fingerprint, write_synthetic
from skinlesion.artifacts.tables import write_table
from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES
from stages import train
from tests.conftest import ROOT

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


def write_inputs(workspace: Path, *, images: int = 140) -> None:
    """Everything that `train` reads: 32 px images whose mean color tells the class, with noise; three fifths train."""
    random = np.random.default_rng(0)
    colors = random.integers(40, 216, size=(7, 3))
    labels = np.arange(images) % 7
    noise = random.normal(0, 25, size=(images, 32, 32, 3))
    pixels = np.clip(colors[labels][:, None, None, :] + noise, 0, 255).astype(np.uint8)
    ids = [f"SYNTH_{number:07d}" for number in range(images)]
    (workspace / PREPARED).mkdir(parents=True)
    np.save(workspace / PREPARED / "images.npy", pixels)
    index = pd.DataFrame({"image_id": ids, "width": 32, "height": 32, "fit": "squash", "color_constancy": "none"})
    write_table(index, PREPARED / "index.csv", INDEX_COLUMNS)
    frame = pd.DataFrame({"lesion_id": [f"L{number}" for number in range(images)], "image_id": ids})
    frame["dx"] = [CLASSES[label] for label in labels]
    frame = frame.assign(dx_type="histo", age=50.0, sex="male", localization="back")
    first, second = images * 3 // 5, images * 4 // 5 - 1
    splits = {"train": frame.iloc[:first], "val": frame.iloc[first:second], "test": frame.iloc[second:]}
    write_splits(splits, SplitFacts("0123", "sample", True))
    write_synthetic([], [], size=32, facts={"fingerprint": training_fingerprint(splits["train"])})


def train_base() -> None:
    """Run the stage for member `base`, seed 0, in this process."""
    train.main(ARGUMENTS)


def outputs() -> dict[str, bytes]:
    """Bytes of everything that the stage wrote."""
    folders = (MEMBER, METRICS, PLOTS)
    return {str(path): path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def start_train(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the stage as DVC does."""
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train", *(arguments or ARGUMENTS)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        text=True,
        stderr=subprocess.PIPE,
    )


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint gives back."""
    content = io.BytesIO()
    torch.save(state, content)
    content.seek(0)
    return torch.load(content, weights_only=True)
