"""From logits to probabilities that can be believed: what is fitted on validation, and how it is applied."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax, softmax

from skinlesion.artifacts.tables import logits_of, probabilities_of
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.config.contents import Calibration
from skinlesion.config.schema import CalibrationMethod

# Temperatures that are searched. At an end of it something else than overconfidence is wrong.
TEMPERATURE_RANGE: tuple[float, float] = (0.05, 20.0)
CALIBRATED_TOLERANCE = 1e-6  # of a probability; tables written elsewhere may be rounded


def negative_log_likelihood(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean negative log of the probability of the true class, in nats (log loss), from logits and so without clipping.

    labels : int (images,), columns of `logits`. logits : float (images, classes).
    """
    log_probabilities = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


@dataclass(frozen=True)
class Calibrator:
    """Logits times `scale` plus `bias`, both float64 (classes,), before the softmax.

    method : `temperature` (every scale is 1 / temperature, every bias 0: predictions stay) or `vector` (one of each a class).
    """

    method: CalibrationMethod
    scale: np.ndarray
    bias: np.ndarray

    @property
    def temperature(self) -> float | None:
        """The one number of temperature scaling."""
        return float(1 / self.scale[0]) if self.method == "temperature" else None

    @classmethod
    def of(cls, calibration: Calibration) -> "Calibrator":
        """From `models/calibration.json` (`skinlesion.evaluation.results.decisions.read_calibration`)."""
        return cls(calibration.method, np.array(calibration.scale, np.float64), np.array(calibration.bias, np.float64))

    def content(self) -> dict[str, Any]:
        """What `skinlesion.evaluation.results.decisions.write_calibration` takes."""
        described = {"method": self.method, "scale": self.scale.tolist(), "bias": self.bias.tolist(), "fitted_on": "val"}
        return described if self.temperature is None else described | {"temperature": self.temperature}

    def logits(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits, float64 (images, classes)."""
        scaled = np.asarray(logits, dtype=np.float64)
        return scaled / self.temperature if self.temperature is not None else scaled * self.scale + self.bias

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (images, classes)."""
        return np.asarray(softmax(self.logits(logits), axis=1))


def check_calibrated(table: pd.DataFrame, calibrator: Calibrator, *, name: str) -> None:
    """Insist that the probabilities of a prediction table are those that `calibrator` makes of its logits.

    name : of the table, for the message.

    Raises
    ------
    PipelineError
        They are not: the columns belong to other classes than their names say, or table and calibration to different runs.
    """
    expected = calibrator.probabilities(logits_of(table))
    off = np.abs(expected - probabilities_of(table)).max(axis=1) > CALIBRATED_TOLERANCE
    if off.any():
        raise PipelineError(
            f"{name}: the probabilities of {name_some(table.loc[off, 'image_id'])} are not those of its calibrated logits: the "
            "columns are in another order than their names, or the calibration is of another run; run `evaluate` again"
        )


def fit_calibrator(labels: np.ndarray, logits: np.ndarray, method: CalibrationMethod) -> Calibrator:
    """Fit `method` to labels, int (images,), and logits, float (images, classes)."""
    classes = np.shape(logits)[1]
    temperature = fit_temperature(labels, logits)
    if method == "temperature":
        return Calibrator(method, np.full(classes, 1 / temperature), np.zeros(classes))
    return Calibrator(method, *fit_vector(labels, logits, start=1 / temperature))


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The temperature within `TEMPERATURE_RANGE` of the smallest negative log-likelihood.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 4.2. The likelihood is convex
    in the inverse temperature, so its minimum is where the slope changes its sign, or an end of the range where it does not.
    Unlike the likelihood, the slope can still be told from 0 for a nearly perfect classifier. Predictions do not change.
    """
    logits = np.asarray(logits, dtype=np.float64)
    above_truth = logits - logits[np.arange(len(labels)), labels][:, None]

    def slope(log_temperature: float) -> float:
        """Of the negative log-likelihood by the inverse temperature: it falls with rising temperature."""
        return float((softmax(logits / np.exp(log_temperature), axis=1) * above_truth).sum(axis=1).mean())

    lowest, highest = np.log(TEMPERATURE_RANGE)
    if slope(lowest) <= 0:
        return TEMPERATURE_RANGE[0]
    if slope(highest) >= 0:
        return TEMPERATURE_RANGE[1]
    return float(np.exp(brentq(slope, lowest, highest, xtol=1e-9)))


def fit_vector(labels: np.ndarray, logits: np.ndarray, *, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Scale and bias of each class, float64 (classes,) each, of vector scaling (Guo et al. 2017, section 4.2).

    The likelihood alone has no finite maximum where a class is absent or told apart without an error, as rare ones may be on
    validation. Each parameter therefore has a normal prior of standard deviation 1, around `start` for scales and 0 for biases,
    which among some hundred images says nothing. What is minimised is strictly convex, so its one minimum is found.
    """
    logits = np.asarray(logits, dtype=np.float64)
    images, classes = logits.shape
    truth = np.eye(classes)[labels]
    center = np.append(np.full(classes, start), np.zeros(classes))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = logits * parameters[:classes] + parameters[classes:]
        likelihood = negative_log_likelihood(labels, scaled)
        error = (softmax(scaled, axis=1) - truth) / images
        away = parameters - center
        gradient = np.append((error * logits).sum(axis=0), error.sum(axis=0))
        return likelihood + away @ away / (2 * images), gradient + away / images

    found = minimize(objective, center, jac=True, method="BFGS", options={"gtol": 1e-8, "maxiter": 1000}).x
    return found[:classes], found[classes:]
