"""What is said of one image: probabilities, a flag, sets of diagnoses, and when not to trust them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.conformal import class_scores, prediction_sets
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.operating_point import OperatingPoint


@dataclass(frozen=True)
class Prediction:
    """What is said of one image.

    probabilities : of every diagnosis, in the order of `CLASSES`; calibrated unless the predictor is of one member of several.
    point : the operating point that was applied; None where there is none to apply.
    score, flagged : the target's probability, and whether it reaches the point's threshold; None without a point.
    sets : by promised coverage (`0.9`), the diagnoses of the conformal set, the most probable first; None where validation had
        too few lesions to promise it. Empty without `models/conformal.json`, and for one member of several.
    warnings : sentences on when not to trust the answer.
    """

    probabilities: dict[str, float]
    point: OperatingPoint | None
    score: float | None
    flagged: bool | None
    sets: dict[str, tuple[str, ...] | None]
    warnings: tuple[str, ...]

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The most probable diagnoses and their probabilities, the first of equals first."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:count]


def conformal_sets(conformal: dict[str, Any], logits: np.ndarray, square: np.ndarray) -> dict[str, tuple[str, ...] | None]:
    """The set of each level for one image, as `Prediction.sets`.

    conformal : see `skinlesion.evaluation.results.decisions.read_conformal`. logits : float (1, 7), not calibrated.
    square : prepared image, uint8.
    """
    probabilities = Calibrator.of(conformal["calibration"]).probabilities(logits)
    options = {name: conformal[name] for name in ("method", "penalty", "free")}
    scores = class_scores(probabilities, np.array([chance_of(square)]), **options)
    ranked = [CLASSES[index] for index in np.argsort(-probabilities[0], kind="stable")]
    sets: dict[str, tuple[str, ...] | None] = {}
    for level, quantile in conformal["levels"].items():
        within = None if quantile is None else dict(zip(CLASSES, prediction_sets(scores, quantile)[0], strict=True))
        sets[level] = None if within is None else tuple(dx for dx in ranked if within[dx])
    return sets


def chance_of(square: np.ndarray) -> float:
    """The random number of an image's conformal set, 0 to 1: from its pixels, so that the same image always gets the same set."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(square).tobytes()).digest()[:8], "big") / 2**64
