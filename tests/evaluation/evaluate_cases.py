"""What the tests of `evaluate` share: a small classifier whose head is fitted, and the stage run with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import SPLIT_NAMES, fingerprint, read_split
from skinlesion.base.files import read_json, write_json
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import predict
from skinlesion.model.classifier import Classifier, ClassifierConfig
from skinlesion.model.network import SkinNetwork
from stages import evaluate
from tests.conftest import WriteParams
from tests.model.classifier_cases import last_linear, make_config, make_network, save_ensemble
from tests.stage_cases import PATIENT, stage_runner, write_lists, write_prepared

Member = tuple[SkinNetwork, ClassifierConfig]

CPU = torch.device("cpu")
SIZE = 32
# nv leads the training list and bkl the others, so that a baseline of the wrong list shows.
COUNTS = {
    "train": {"akiec": 4, "bcc": 5, "bkl": 8, "df": 3, "mel": 9, "nv": 30, "vasc": 3},
    "val": {"akiec": 5, "bcc": 6, "bkl": 24, "df": 4, "mel": 12, "nv": 16, "vasc": 4},
    "test": {"akiec": 6, "bcc": 7, "bkl": 30, "df": 5, "mel": 14, "nv": 20, "vasc": 4},
}


def make_splits() -> dict[str, pd.DataFrame]:
    """Three lists; two images a lesion where there are two."""
    splits = {}
    for first, (split, counts) in enumerate(COUNTS.items(), start=1):
        dx = [name for name, count in counts.items() for _ in range(count)]
        numbers = np.arange(len(dx))
        lesions = [f"{split}_{name}_{number // 2}" for name, number in zip(dx, numbers, strict=True)]
        frame = pd.DataFrame({"lesion_id": lesions, "image_id": [f"ISIC_{first}{number:06d}" for number in numbers], "dx": dx})
        splits[split] = frame.assign(**PATIENT).sample(frac=1, random_state=0, ignore_index=True)
    return splits


def write_images(frame: pd.DataFrame, *, seed: int, size: int = SIZE) -> None:
    """`data/prepared`: noise around a colour a class."""
    generator = np.random.default_rng(0)
    colours = generator.uniform(60, 200, size=(len(CLASSES), 3))
    means = colours[pd.Index(CLASSES).get_indexer(frame["dx"])] + np.random.default_rng(seed).normal(0, 32, (len(frame), 3))
    noise = np.random.default_rng(seed + 1).normal(0, 20, (len(frame), size, size, 3))
    write_prepared(frame["image_id"], means[:, None, None] + noise)


def fitted_member(splits: dict[str, pd.DataFrame], seed: int) -> Member:
    """A random network whose head is fitted to the training colours by scikit-learn, overconfident by a factor."""
    config = make_config("shufflenet_v2_x0_5", seed=seed, size=SIZE, fingerprint=fingerprint(splits))
    model = make_network(config, seed=seed)
    head, model.head = model.head, torch.nn.Identity()
    train = splits["train"]
    features = predict(Classifier(model, config), read_prepared(), train, device=CPU, batch_size=64).logits
    scale = features.std()
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit(features / scale, train["dx"])
    assert tuple(fitted.classes_) == CLASSES
    model.head = head
    weights = {"weight": torch.tensor(2 * fitted.coef_ / scale), "bias": torch.tensor(2 * fitted.intercept_)}
    last_linear(model).load_state_dict(weights)
    return model, config


def rewrite_splits(splits: dict[str, pd.DataFrame]) -> None:
    """Change the lists, and let the classifier say that it was trained on them."""
    write_lists(splits, fingerprint(splits))
    path = CLASSIFIER / "base-0" / "config.json"
    write_json(path, read_json(path) | {"fingerprint": fingerprint(splits)})


def read_splits() -> dict[str, pd.DataFrame]:
    """The three lists of the workspace."""
    return {name: read_split(name) for name in SPLIT_NAMES}


def run_evaluate(folder: Path, write_params_here: WriteParams) -> None:
    """Run the stage in a new folder."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        splits = make_splits()
        write_lists(splits, fingerprint(splits))
        write_images(pd.concat(splits.values(), ignore_index=True), seed=1)
        save_ensemble([fitted_member(splits, 0)])
        evaluate_with(write_params_here)


def evaluate_with(write_params: WriteParams, **overrides: Any) -> dict[str, Any]:
    """Run the stage in the working directory, with few draws and on the CPU; its metrics."""
    few = {"machine.device": "cpu", "bootstrap.draws": 200, "machine.batch_size": 16}
    return stage_runner(write_params, evaluate.main, "evaluate", **few)(**overrides)
