"""What the classifier says of corrupted images."""

from typing import Any

import numpy as np
import pandas as pd

from skinlesion.artifacts.prepared import PreparedImages, read_prepared
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.audits.robustness.corruptions import Condition, corrupt
from skinlesion.base.devices import choose_device
from skinlesion.config.audits import RobustnessParams
from skinlesion.config.schema import MachineParams, TestTime
from skinlesion.evaluation.inference.inference import predict_ensemble, soft_vote
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.decisions import read_calibration
from skinlesion.model.classifier import load_ensemble

CHUNK_BYTES = 64_000_000  # of images that are held at once, or a batch where that is more


class CorruptedPredictions:
    """The frozen classifier and calibration of the workspace over a list of images, clean or corrupted.

    Called with a condition, or with None for the images as they are, it gives the rows of `listed`, a prediction table, with
    calibrated probabilities of that condition; its logits are left as they were. Images are corrupted chunk by chunk as they
    are predicted, so memory does not grow with their number.

    Raises
    ------
    PipelineError
        The classifier, its calibration or an image is missing, or they do not fit each other.
    """

    def __init__(self, listed: pd.DataFrame, params: RobustnessParams, machine: MachineParams, *, test_time: TestTime) -> None:
        self.listed, self.seed, self.test_time = listed, params.seed, test_time
        self.members = load_ensemble()
        self.prepared = read_prepared()
        self.calibrator = Calibrator.of(read_calibration())
        self.rows = self.prepared.rows_of(listed["image_id"])
        self.options: dict[str, Any] = {
            "device": choose_device(machine.device),
            "batch_size": machine.batch_size,
            "test_time": test_time,
        }
        batch = machine.batch_size * self.prepared.images[0].nbytes
        self.chunk = machine.batch_size * max(1, CHUNK_BYTES // batch)

    def __call__(self, condition: Condition | None) -> pd.DataFrame:
        places = range(0, len(self.rows), self.chunk)
        logits = np.concatenate([self._logits(condition, slice(start, start + self.chunk)) for start in places])
        columns = list(PROBABILITY_COLUMNS)
        return self.listed.assign(**dict(zip(columns, self.calibrator.probabilities(logits).T, strict=True)))

    def _logits(self, condition: Condition | None, chunk: slice) -> np.ndarray:
        """Logits of the ensemble for some of the images, float64 (images, classes)."""
        listed, rows = self.listed[chunk], self.rows[chunk]
        images = self.prepared.images[rows]
        if condition is not None:
            ids = list(listed["image_id"])
            images = corrupt(images, ids, condition.corruption, strength=condition.strength, seed=self.seed)
        part = PreparedImages(images, self.prepared.index.iloc[rows].reset_index(drop=True))
        return soft_vote(list(predict_ensemble(self.members, part, listed, **self.options).values()), test_time=self.test_time)
