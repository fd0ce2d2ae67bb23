"""What is said of one image: probabilities, a flag, sets of diagnoses, and when not to trust them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.config.contents import Conformal
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.conformal import class_scores, prediction_sets
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.serving.operating_point import OperatingPoint

SOURCE_COLUMNS = ("model", "engine", "classifier_sha256")  # what gave the answer
ROW_COLUMNS: tuple[str, ...] = (
    *("file", "error", "most_probable", "probability", *PROBABILITY_COLUMNS),
    *("operating_point", "target", "score", "threshold", "flagged", "sets", "notes", "warnings"),
    *SOURCE_COLUMNS,
)


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


def conformal_sets(conformal: Conformal, logits: np.ndarray, square: np.ndarray) -> dict[str, tuple[str, ...] | None]:
    """The set of each level for one image, as `Prediction.sets`.

    logits : float (1, 7), not calibrated.
    square : prepared image, uint8.
    """
    probabilities = Calibrator.of(conformal.calibration).probabilities(logits)
    chances = np.array([chance_of(square)])
    scores = class_scores(probabilities, chances, method=conformal.method, penalty=conformal.penalty, free=conformal.free)
    ranked = [CLASSES[index] for index in np.argsort(-probabilities[0], kind="stable")]
    sets: dict[str, tuple[str, ...] | None] = {}
    for level, quantile in conformal.levels.items():
        within = None if quantile is None else dict(zip(CLASSES, prediction_sets(scores, quantile)[0], strict=True))
        sets[level] = None if within is None else tuple(dx for dx in ranked if within[dx])
    return sets


def chance_of(square: np.ndarray) -> float:
    """The random number of an image's conformal set, 0 to 1: from its pixels, so that the same image always gets the same set."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(square).tobytes()).digest()[:8], "big") / 2**64


def row_of(
    name: str, prediction: Prediction | None, *, source: Mapping[str, str], error: str = "", notes: Sequence[str] = ()
) -> dict[str, str | float]:
    """One file's row, with the keys `ROW_COLUMNS`, empty where there is nothing to say.

    name : of the file. prediction : None for a file that was refused. error : why it was. notes : of `Upload`.
    source : `SOURCE_COLUMNS`, as `Predictor.source` has them.

    `flagged` is `yes` or `no`. `sets` is as `0.9: nv mel; 0.95: nv mel bkl`, without the levels that cannot be promised.
    """
    # A spreadsheet takes a cell that begins like this for a formula, and a file can be called anything.
    shown = f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name
    row: dict[str, str | float] = {**dict.fromkeys(ROW_COLUMNS, ""), **source, "file": shown, "error": error}
    if prediction is None:
        return row
    (most_probable, probability), *_ = prediction.top(1)
    row |= {"most_probable": most_probable, "probability": probability}
    row |= {column: prediction.probabilities[dx] for column, dx in zip(PROBABILITY_COLUMNS, CLASSES, strict=True)}
    if prediction.point is not None and prediction.score is not None:
        point = prediction.point
        row |= {"operating_point": point.name, "target": point.target, "score": prediction.score, "threshold": point.threshold}
        row["flagged"] = "yes" if prediction.flagged else "no"
    row["sets"] = "; ".join(f"{level}: {' '.join(of)}" for level, of in prediction.sets.items() if of is not None)
    return row | {"notes": " ".join(notes), "warnings": " ".join(prediction.warnings)}
