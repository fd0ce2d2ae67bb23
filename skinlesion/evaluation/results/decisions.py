"""The contract of what is decided on validation and applied later: calibration, operating points, sets of diagnoses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skinlesion.base.files import read_json, write_json
from skinlesion.config.contents import check_calibration, check_conformal, check_operating_points

CALIBRATION = Path("models/calibration.json")
OPERATING_POINTS = Path("models/operating_points.json")


CONFORMAL = Path("models/conformal.json")


CLASSIFIER_SHA256 = "classifier_sha256"  # the key in these files that says to which classifier they belong


def write_calibration(content: dict[str, Any], path: Path = CALIBRATION) -> None:
    """Write how logits become probabilities: `method`, `scale` and `bias` of each of `CLASSES`, `fitted_on`, `test_time`.

    `test_time` names the views over which the logits were averaged that it was fitted to (`inference.views`),
    `classifier_sha256` the classifier that gave them (`skinlesion.evaluation.inference.identity`); so it does in the next two.
    """
    check_calibration(content, path)
    write_json(path, content)


def read_calibration(path: Path = CALIBRATION) -> dict[str, Any]:
    """How logits become probabilities, as `write_calibration` takes it: softmax(logits * scale + bias).

    Raises
    ------
    PipelineError
        Missing, damaged, not a finite number a class, or of unknown test-time views.
    """
    content = read_json(path)
    check_calibration(content, path)
    return content


def write_conformal(content: dict[str, Any], path: Path = CONFORMAL) -> None:
    """Write how a set of diagnoses is formed: `method`, `penalty` and `free` of `conformal.class_scores`; `levels`.

    `levels` maps each promised coverage to its quantile of the scores, None where validation has too few lesions to promise it.
    `calibration` is what the quantiles hold for, as of `write_calibration`; not that of the prediction tables, because it was
    fitted on the other half of validation.
    """
    check_conformal(content, path)
    write_json(path, content)


def read_conformal(path: Path = CONFORMAL) -> dict[str, Any]:
    """How a set of diagnoses is formed, as `write_conformal` takes it.

    Raises
    ------
    PipelineError
        Missing, damaged, or of an unknown method.
    """
    content = read_json(path)
    check_conformal(content, path)
    return content


def write_operating_points(content: dict[str, Any], path: Path = OPERATING_POINTS) -> None:
    """Write the operating points: `target`, its `classes`, `score`, `rule`, `chosen_on`, and `points` by name.

    A point has its `constraint` (None for Youden's), its `threshold` in [0, 1], and what it achieves on `val`.
    """
    check_operating_points(content, path)
    write_json(path, content)


def read_operating_points(path: Path = OPERATING_POINTS) -> dict[str, Any]:
    """The operating points, as `write_operating_points` takes them.

    Raises
    ------
    PipelineError
        Missing, damaged, of an unknown diagnosis, or a threshold that is no number from 0 to 1.
    """
    content = read_json(path)
    check_operating_points(content, path)
    return content
