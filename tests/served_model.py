"""A workspace with a small ensemble of seeded random weights and all that the predictor reads, for tests of what serves it."""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from typing import Any

from skinlesion import artifacts
from skinlesion.diagnoses import CLASSES
from skinlesion.files import write_json
from tests.classifier_cases import make_config, make_network, save_ensemble

os.environ.setdefault("OMP_NUM_THREADS", "1")

CALIBRATION = {
    "method": "temperature",
    "scale": [1.5] * len(CLASSES),
    "bias": [0.0] * len(CLASSES),
    "temperature": 2 / 3,
    "fitted_on": "val",
    "test_time": "none",
}
# Melanoma's probability by random weights is near 1/7: the first point flags every image, the second none.
THRESHOLDS = {"recall_0.90": 0.01, "specificity_0.90": 0.99}


def write_served_model(root: Path, *, members: int = 1, metadata: bool = False, synthetic: bool = True, **config: Any) -> None:
    """Write `models/` and `metrics/` into a folder: `members` networks, with age, sex and site as inputs where `metadata`.

    config : fields of the members' `ClassifierConfig` or of their `NetworkSpec`.
    """
    facts = {"data": {"source": "sample" if synthetic else "dataverse", "synthetic": synthetic}} | config
    configs = [make_config("squeezenet1_1", seed=seed, metadata=metadata, **facts) for seed in range(members)]
    with chdir(root):
        save_ensemble([(make_network(config, seed=config.seed), config) for config in configs])
        artifacts.write_calibration(CALIBRATION)
        rates = {"sensitivity": 0.9, "specificity": 0.6, "precision": 0.5, "f1": 0.6, "flagged": 0.4}
        points = {
            name: {"rule": name.partition("_")[0], "constraint": 0.9, "threshold": threshold, "val": rates}
            for name, threshold in THRESHOLDS.items()
        }
        points_file = {"target": "mel", "classes": ["mel"], "score": "sum", "rule": "score >= threshold", "chosen_on": "val"}
        artifacts.write_operating_points(points_file | {"points": points})
        sets = {"method": "aps", "penalty": 0.0, "free": 0, "levels": {"0.9": 0.9, "0.95": None}, "calibration": CALIBRATION}
        artifacts.write_conformal(sets)
        names = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "mel_sensitivity", "mel_specificity")
        test = {"images": 97, "lesions": 73, **dict.fromkeys(names, 0.8)}
        intervals = dict.fromkeys(names, {"low": 0.7, "high": 0.9})
        write_json(Path("metrics/evaluate.json"), {"test": test | {"intervals": intervals}, "bootstrap": {"confidence": 0.95}})
