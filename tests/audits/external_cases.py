"""What the tests of `external` share: two drawn sets of images, a small ensemble, and the stage run with them."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from extras import external, external_download
from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.raw import RAW, read_metadata
from skinlesion.artifacts.splits import SPLIT_NAMES, fingerprint
from skinlesion.audits.external.dataset import EXTERNAL
from skinlesion.base.files import write_json
from skinlesion.config.contents import Calibration
from skinlesion.data.preparing import write_prepared
from skinlesion.evaluation.inference.inference import predict_ensemble
from skinlesion.evaluation.inference.predictions import prediction_table, vote
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.decisions import write_calibration, write_operating_points
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from skinlesion.model.classifier import load_ensemble
from stages import download
from tests.conftest import WriteParams
from tests.model.classifier_cases import last_linear, make_config, make_network, save_ensemble
from tests.stage_cases import read_metrics, write_lists

CPU = torch.device("cpu")
SIZE, DRAWS = 32, 100
CALIBRATION = {"method": "temperature", "scale": [0.4] * 7, "bias": [0.0] * 7, "fitted_on": "val", "temperature": 2.5}
CALIBRATION["test_time"] = "flips"
POINTS = {"target": "malignant", "classes": ["mel", "bcc", "akiec"], "score": "sum", "rule": "flag", "chosen_on": "val"}


def split_lesions(metadata: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A third of each diagnosis' lesions to each list."""
    lesions = metadata.drop_duplicates("lesion_id")
    rank = lesions.groupby("dx").cumcount().set_axis(lesions["lesion_id"]) % 3
    return {name: metadata[metadata["lesion_id"].map(rank) == row] for row, name in enumerate(SPLIT_NAMES)}


def rewrite(metadata: pd.DataFrame, folder: Path = EXTERNAL, **stated: Any) -> pd.DataFrame:
    """Write a set's metadata and provenance, and remove the images that are not in it."""
    metadata.to_csv(folder / "metadata.csv", index=False)
    for path in (folder / "images").iterdir():
        if path.stem not in set(metadata["image_id"]):
            path.unlink()
    provenance = {"source": "local", "synthetic": True, "origin": "here", "licence": "CC0", "counts": {}}
    write_json(folder / "provenance.json", provenance | {"lesions_known": True, "left_out": []} | stated)
    return read_metadata(folder)


def save_classifier(splits: dict[str, pd.DataFrame], **overrides: Any) -> None:
    """Two members with random weights, whose logits are spread enough to give every class now and then."""
    members = []
    for seed in (0, 1):
        config = make_config("shufflenet_v2_x0_5", seed=seed, size=SIZE, fingerprint=fingerprint(splits), **overrides)
        model = make_network(config, seed=seed)
        torch.nn.init.normal_(last_linear(model).weight, std=3.0)
        members.append((model, config))
    save_ensemble(members)


def predicted(metadata: pd.DataFrame, raw: Path) -> pd.DataFrame:
    """The prediction table of a set, put together here."""
    write_prepared(list(metadata["image_id"]), size=SIZE, fit="squash", color_constancy="none", workers=1, raw=raw)
    each = predict_ensemble(load_ensemble(), read_prepared(), metadata, device=CPU, batch_size=7, test_time="flips")
    shutil.rmtree(PREPARED)
    return prediction_table(metadata, vote(each, "flips"), Calibrator.of(Calibration(**CALIBRATION)))


def write_inputs(folder: Path, write_params_here: WriteParams) -> None:
    """All that the stage reads, in a new folder."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sample = {f"download.sample.{name}": value for name, value in (("lesions", 45), ("width", 64), ("height", 64))}
        measured = {"bootstrap.draws": DRAWS, "machine.device": "cpu", "machine.batch_size": 16, "evaluate.test_time": "flips"}
        write_params_here(sample | measured | {"external.sample_lesions": 42})
        download.main()
        external_download.main()
        metadata = read_metadata()
        splits = split_lesions(metadata)
        write_lists(splits, fingerprint(splits))
        save_classifier(splits)
        write_calibration(CALIBRATION)
        table = predicted(splits["test"], RAW)
        write_predictions({"val": table, "test": table})
        median = float(table[["probability_mel", "probability_bcc", "probability_akiec"]].sum(axis=1).median())
        write_operating_points(POINTS | {"points": {"recall_0.90": {"constraint": 0.9, "threshold": median, "val": {}}}})


def run_stage() -> tuple[dict[str, Any], pd.DataFrame]:
    """Run the stage; its metrics and predictions."""
    external.main()
    return read_metrics("extras/external"), read_predictions("predictions", external.PREDICTIONS)
