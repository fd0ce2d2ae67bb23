"""The contract of what is decided on validation and applied later: calibration, operating points, sets of diagnoses.

`skinlesion.config.contents` has a model of each file. Every function raises PipelineError where the file is missing or damaged,
or its content cannot be applied.
"""

from pathlib import Path
from typing import Any

from skinlesion.base.files import read_json, write_json
from skinlesion.config.contents import Calibration, Conformal, OperatingPoints, check_content

CALIBRATION = Path("models/calibration.json")
OPERATING_POINTS = Path("models/operating_points.json")
CONFORMAL = Path("models/conformal.json")

CLASSIFIER_SHA256 = "classifier_sha256"  # the key in these files that says to which classifier they belong


def write_calibration(content: dict[str, Any], path: Path = CALIBRATION) -> None:
    """Write the keys of `Calibration`, and for readers `fitted_on` and, of the method of that name, `temperature`."""
    check_content(Calibration, content, path, stage="evaluate")
    write_json(path, content)


def read_calibration(path: Path = CALIBRATION) -> Calibration:
    """How logits become probabilities."""
    return check_content(Calibration, read_json(path), path, stage="evaluate")


def write_conformal(content: dict[str, Any], path: Path = CONFORMAL) -> None:
    """Write the keys of `Conformal`."""
    check_content(Conformal, content, path, stage="selective")
    write_json(path, content)


def read_conformal(path: Path = CONFORMAL) -> Conformal:
    """How a set of diagnoses is formed."""
    return check_content(Conformal, read_json(path), path, stage="selective")


def write_operating_points(content: dict[str, Any], path: Path = OPERATING_POINTS) -> None:
    """Write the keys of `OperatingPoints`, and for readers the `rule` and `constraint` (None for Youden's) of each point."""
    check_content(OperatingPoints, content, path, stage="threshold-sweep")
    write_json(path, content)


def read_operating_points(path: Path = OPERATING_POINTS) -> OperatingPoints:
    """The operating points of the target."""
    return check_content(OperatingPoints, read_json(path), path, stage="threshold-sweep")
