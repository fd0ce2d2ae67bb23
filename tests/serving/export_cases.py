"""What the tests of `export` share: a tiny ensemble of two backbones, and the stage run with it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from extras import export
from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import write_predictions
from skinlesion.model.classifier import Classifier
from tests.conftest import WriteParams
from tests.model.classifier_cases import SCALE, make_config, make_sensitive, save_ensemble, votes, write_decisions
from tests.stage_cases import with_logits, write_lists, write_prepared

SIZE, IMAGES, DRAWS = 32, 42, 100
COLUMNS = list(PROBABILITY_COLUMNS)
PARAMS = {"batch_size": 9, "calibration_images": 12, "rounds": 2}
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


def pixels_of(listed: pd.DataFrame) -> np.ndarray:
    """The prepared images of a list."""
    prepared = read_prepared()
    return prepared.images[prepared.rows_of(listed["image_id"])]


def sensitive_member(seed: int) -> Classifier:
    name, listed = f"base-{seed}", read_split("val")
    config = make_config(MEMBERS[name], seed=seed, size=SIZE, **(RICH if seed else {}))
    return Classifier(make_sensitive(config, pixels_of(listed), encode_metadata(listed)), config)


def write_inputs() -> None:
    """Everything that the stage reads but params."""
    generator, lists = np.random.default_rng(0), {"test": make_listed(0, IMAGES), "val": make_listed(IMAGES, 28)}
    lists["train"] = make_listed(IMAGES + 28, 28)
    everything = pd.concat(list(lists.values())).sample(frac=1, random_state=0, ignore_index=True)
    colors = generator.uniform(40, 215, (len(everything), 3)) + 20 * pd.Index(CLASSES).get_indexer(everything["dx"])[:, None] / 7
    images = colors[:, None, None] + generator.normal(0, 25, (len(everything), SIZE, SIZE, 3))
    write_prepared(everything["image_id"], images)
    write_lists(lists)
    save_ensemble([sensitive_member(seed) for seed in range(len(MEMBERS))])
    write_decisions("flips")
    tables = {}
    for name in ("val", "test"):
        logits = votes(pixels_of(lists[name]), encode_metadata(lists[name]))
        tables[name] = with_logits(lists[name], logits, softmax(SCALE * logits, axis=1))
    write_predictions(tables)


def run_export(folder: Path, write_params_here: WriteParams) -> None:
    """Run the stage in a new folder; `seen.txt` names the images of calibration."""
    folder.mkdir()
    seen, inputs = [], export.graph_inputs
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        write_params_here({"bootstrap.draws": DRAWS} | {f"export.{name}": value for name, value in PARAMS.items()})
        write_inputs()
        patch.setattr(export, "graph_inputs", lambda *given: seen.append(given[2]) or inputs(*given))
        export.main()
    (folder / "seen.txt").write_text("\n".join(pd.concat(seen)["image_id"]), encoding="utf-8")
