"""Predictions and operating points as the members of an answer."""

from __future__ import annotations

from collections.abc import Sequence

from api.schemas import DiagnosisOut, PointOut, PredictionOut, RateOut, SetOut
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.serving.operating_point import OperatingPoint, Rate
from skinlesion.serving.prediction import Prediction


def describe_prediction(prediction: Prediction, *, notes: Sequence[str], top_k: int) -> PredictionOut:
    """A prediction as JSON."""
    return PredictionOut(
        probabilities=[
            DiagnosisOut(diagnosis=dx, name=DIAGNOSES[dx], probability=p) for dx, p in prediction.probabilities.items()
        ],
        top=[DiagnosisOut(diagnosis=dx, name=DIAGNOSES[dx], probability=p) for dx, p in prediction.top(top_k)],
        score=prediction.score,
        flagged=prediction.flagged,
        conformal_sets=[
            SetOut(coverage=float(level), diagnoses=None if within is None else list(within))
            for level, within in prediction.sets.items()
        ],
        warnings=list(prediction.warnings),
        notes=list(notes),
    )


def describe_point(point: OperatingPoint) -> PointOut:
    """An operating point as JSON."""
    return PointOut(
        name=point.name,
        target=point.target,
        classes=list(point.classes),
        threshold=point.threshold,
        sensitivity=_rate(point.sensitivity),
        specificity=_rate(point.specificity),
        measured_on=point.measured_on,
        confidence=point.confidence,
        sentence=point.sentence,
    )


def _rate(rate: Rate | None) -> RateOut | None:
    return None if rate is None else RateOut(value=rate.value, low=rate.low, high=rate.high)
