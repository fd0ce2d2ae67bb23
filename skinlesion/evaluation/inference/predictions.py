"""How a prediction table is made: for validation and test, and for images of another source."""

import numpy as np
import pandas as pd

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.splits import SPLITS, fingerprint
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS
from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import TestTime
from skinlesion.evaluation.inference.inference import Predicted, soft_vote
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS
from skinlesion.model.classifier import Classifier

LOGIT_DECIMALS = 6  # about what float32 knows of a logit; keeps the tables readable


def check_same_split(splits: dict[str, pd.DataFrame], members: dict[str, Classifier]) -> None:
    """Refuse a classifier that was trained on other lists: it may have seen the test images."""
    if {fingerprint(splits)} != {member.config.fingerprint for member in members.values()}:
        raise PipelineError(
            f"{CLASSIFIER} was trained on other lists than those in {SPLITS}, so it may have seen the "
            "images that it would be measured on: run `train` again, or `dvc repro`"
        )


def vote(predicted: dict[str, Predicted], test_time: TestTime) -> np.ndarray:
    """The ensemble's logits, float64 (images, classes), as they are written down, from what each member says."""
    return np.round(soft_vote(list(predicted.values()), test_time=test_time), LOGIT_DECIMALS)


def prediction_table(listed: pd.DataFrame, logits: np.ndarray, calibrator: Calibrator) -> pd.DataFrame:
    """The rows of a list with logits and calibrated probabilities."""
    numbers = np.hstack([logits, calibrator.probabilities(logits)])
    columns = [*LOGIT_COLUMNS, *PROBABILITY_COLUMNS]
    return pd.concat([listed[list(DESCRIPTIVE_COLUMNS)], pd.DataFrame(numbers, listed.index, columns)], axis=1)
