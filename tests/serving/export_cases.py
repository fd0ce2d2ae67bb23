"""What the tests of the extra `export` share: a tiny ensemble, and all that the stage reads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ruamel.yaml import YAML
from scipy.special import softmax

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import SplitFacts, read_split, write_splits
from skinlesion.artifacts.tables import labels_of
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.decisions import (
    write_calibration,
    write_operating_points,
)
from skinlesion.evaluation.results.predictions import write_predictions
from skinlesion.model.classifier import Classifier, load_ensemble, normalize
from tests.evaluation.tables import OF_MELANOMA, UNCHANGED, with_predictions, write_prepared
from tests.model.classifier_cases import last_linear, make_config, make_network, save_ensemble

SIZE, IMAGES, DRAWS = 32, 42, 100
SCALE = 0.8  # one over the temperature
POINTS = {"recall_0.90": {"constraint": 0.9, "threshold": 0.12}, "youden": {"constraint": None, "threshold": 0.2}}
PARAMS = {"batch_size": 9, "calibration_images": 12, "rounds": 2, "bootstrap_draws": DRAWS}
MEMBERS = {"base-0": "squeezenet1_1", "base-1": "squeezenet1_0"}
RICH = {"attention": "cbam", "head": "mlp", "metadata": True, "dropout": 0.3, "dropout_samples": 3}  # of the second member


def make_listed(first: int, images: int) -> pd.DataFrame:
    """Two images a lesion, all diagnoses."""
    numbers = np.arange(first, first + images)
    dx = np.array(CLASSES)[numbers // 2 % len(CLASSES)]
    frame = pd.DataFrame({"image_id": [f"ISIC_{number:03d}" for number in numbers], "lesion_id": numbers // 2, "dx": dx})
    sex = np.where(numbers % 3 == 0, "female", "male")
    return frame.assign(
        lesion_id=frame["lesion_id"].map("L{:02d}".format), dx_type="histo", age=numbers % 80 + 5.0, sex=sex
    ).assign(localization=np.where(numbers % 2 == 0, "back", "unknown"))


def sensitive_member(seed: int) -> Classifier:
    """A random network whose logits differ between images by about 1: those of a fresh one hardly do."""
    name = f"base-{seed}"
    config = make_config(MEMBERS[name], seed=seed, size=SIZE, **(RICH if seed else {}))
    model = make_network(config, seed=seed)
    prepared, listed = read_prepared(), read_split("val")
    images = torch.from_numpy(prepared.images[prepared.rows_of(listed["image_id"])])
    with torch.inference_mode():
        logits = model(normalize(images, config), torch.from_numpy(encode_metadata(listed)))
    layer = last_linear(model)
    with torch.no_grad():
        layer.weight /= logits.std(dim=0)[:, None]
        layer.bias.copy_((layer.bias - logits.mean(dim=0)) / logits.std(dim=0))
    return Classifier(model, config)


def votes(listed: pd.DataFrame) -> np.ndarray:
    """Log of the mean probability of members and flips, by torch and NumPy alone."""
    prepared = read_prepared()
    images = torch.from_numpy(prepared.images[prepared.rows_of(listed["image_id"])])
    probabilities = []
    for model, config in load_ensemble().values():
        batch = normalize(images, config)
        for view in (batch, batch.flip(-1), batch.flip(-2), batch.flip(-1, -2)):
            with torch.inference_mode():
                logits = model(view, torch.from_numpy(encode_metadata(listed))).double().numpy()
            probabilities.append(softmax(logits, axis=1))
    return np.log(np.mean(probabilities, axis=0))


def write_inputs(params: dict[str, Any]) -> None:
    """Everything that the stage reads."""
    document = copy.deepcopy(params)
    document["export"] |= PARAMS
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(document, file)
    generator, lists = np.random.default_rng(0), {"test": make_listed(0, IMAGES), "val": make_listed(IMAGES, 28)}
    lists["train"] = make_listed(IMAGES + 28, 28)
    everything = pd.concat(list(lists.values())).sample(frac=1, random_state=0, ignore_index=True)
    colors = generator.uniform(40, 215, (len(everything), 3)) + 20 * labels_of(everything)[:, None] / 7
    write_prepared(everything["image_id"], colors[:, None, None] + generator.normal(0, 25, (len(everything), SIZE, SIZE, 3)))
    write_splits(lists, SplitFacts("f00d", "sample", True))
    save_ensemble([sensitive_member(seed) for seed in range(len(MEMBERS))])
    write_calibration(UNCHANGED | {"scale": [SCALE] * 7, "temperature": 1 / SCALE, "test_time": "flips"})
    write_operating_points(OF_MELANOMA | {"points": POINTS})
    write_predictions({name: with_predictions(lists[name], votes(lists[name]), scale=SCALE) for name in ("val", "test")})
