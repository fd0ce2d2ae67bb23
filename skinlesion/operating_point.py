"""An operating point as who applies the classifier meets it: the rule, and what it achieved, in numbers and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinlesion.artifacts import METRICS, OPERATING_POINTS, read_operating_points
from skinlesion.contents import is_number
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.errors import PipelineError
from skinlesion.files import read_json
from skinlesion.identity import check_belongs
from skinlesion.schema import suggest

DEFAULT = "recall_0.90"


@dataclass(frozen=True)
class Rate:
    """A share from 0 to 1, and the ends of its interval where it was measured with one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """`85 %`, or `85 % (70 to 95 %)`."""
        said = f"{100 * self.value:.0f} %"
        return said if self.low is None or self.high is None else f"{said} ({100 * self.low:.0f} to {100 * self.high:.0f} %)"


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold that was chosen on validation.

    name : as `recall_0.90`. target : a diagnosis, or the name of a group. classes : the diagnoses of the target.
    threshold : an image is flagged when the target's calibrated probability, summed over its classes, is at least that.
    sensitivity, specificity : measured on `measured_on`: `test`, with intervals, where the metrics of the same run are there, or
        `val`, on which the threshold was chosen, so that these figures flatter.
    confidence : of the intervals; None without.
    """

    name: str
    target: str
    classes: tuple[str, ...]
    threshold: float
    sensitivity: Rate | None
    specificity: Rate | None
    measured_on: str
    confidence: float | None

    @property
    def target_in_words(self) -> str:
        """`melanoma`; of a group its name and its diagnoses."""
        words = ", ".join(DIAGNOSES[dx] for dx in self.classes)
        return words if len(self.classes) == 1 else f"{self.target} ({words})"

    @property
    def sentence(self) -> str:
        """What the point means, for people."""
        said = f"An image is flagged when the probability of {self.target_in_words} is at least {100 * self.threshold:.1f} %."
        if self.sensitivity is None or self.specificity is None:
            return f"{said} What that achieves was not measured."
        where = "the test images" if self.measured_on == "test" else "the validation images, on which it was chosen"
        target = self.target_in_words if len(self.classes) == 1 else "one of these"
        return (
            f"{said} On {where}, it flagged {self.sensitivity} of those with {target} and left {self.specificity} of the others "
            "unflagged."
        )


def read_points(root: Path, digest: str) -> dict[str, OperatingPoint]:
    """The operating points of a workspace, by name.

    digest : of its classifier (`skinlesion.identity.classifier_digest`).

    Raises
    ------
    PipelineError
        `models/operating_points.json` is missing or damaged, or of another classifier.
    """
    content = read_operating_points(root / OPERATING_POINTS)
    check_belongs(content, OPERATING_POINTS, digest)
    audited = _audited(root / METRICS / "threshold_sweep.json", content)
    return {name: _point(name, point, content, audited) for name, point in content["points"].items()}


def choose_default(points: dict[str, OperatingPoint]) -> str:
    """The point that is applied where none is named: `DEFAULT`, or the first."""
    return DEFAULT if DEFAULT in points else next(iter(points))


def find_point(points: dict[str, OperatingPoint], name: str) -> OperatingPoint:
    """A point by its name.

    Raises
    ------
    PipelineError
        No such point; the message has the nearest name and all of them.
    """
    if name not in points:
        raise PipelineError(f"no operating point '{name}'{suggest(name, points)}; known: {', '.join(points)}")
    return points[name]


def _audited(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What the points achieve on test: `points` and `bootstrap` of metrics/threshold_sweep.json, empty where it isn't there."""
    if not path.is_file():
        return {}
    audited = read_json(path)
    return audited if audited.get("classes") == content["classes"] else {}


def _point(name: str, point: dict[str, Any], content: dict[str, Any], audited: dict[str, Any]) -> OperatingPoint:
    measured = audited.get("points", {}).get(name, {})
    known = measured.get("threshold") == point["threshold"]  # or it is of another run
    rates = measured["test"] if known else point.get("val") or {}
    intervals = measured["intervals"] if known else {}
    return OperatingPoint(
        name=name,
        target=content["target"],
        classes=tuple(content["classes"]),
        threshold=point["threshold"],
        sensitivity=_rate(rates, intervals, "sensitivity"),
        specificity=_rate(rates, intervals, "specificity"),
        measured_on="test" if known else "val",
        confidence=audited["bootstrap"]["confidence"] if known else None,
    )


def _rate(rates: dict[str, Any], intervals: dict[str, Any], name: str) -> Rate | None:
    """A rate that was measured; None where it is undefined."""
    ends = intervals.get(name) or {}
    return Rate(rates[name], ends.get("low"), ends.get("high")) if is_number(rates.get(name)) else None
