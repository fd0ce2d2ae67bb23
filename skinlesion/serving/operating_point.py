"""An operating point as users see it: its rule and what it achieved, in numbers and in a sentence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinlesion.artifacts.paths import METRICS
from skinlesion.base.files import read_json
from skinlesion.config.contents import Named, OperatingPoints
from skinlesion.diagnoses import DIAGNOSES
from skinlesion.evaluation.inference.identity import check_belongs
from skinlesion.evaluation.results.decisions import CLASSIFIER_SHA256, OPERATING_POINTS, read_operating_points

DEFAULT = "recall_0.90"  # the point that is applied where none is named; without it the first


@dataclass(frozen=True)
class Rate:
    """A share from 0 to 1, and the ends of its interval where it was measured with one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """`85 %`, or `85 % (70 to 95 %)`."""
        value = percent(self.value, decimals=0)
        if self.low is None or self.high is None:
            return value
        return f"{value} ({percent(self.low, decimals=0).removesuffix(' %')} to {percent(self.high, decimals=0)})"


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
        if self.threshold == 0:
            rule = f"Every image is flagged, since no threshold for {self.target_in_words} keeps what was asked for."
        else:
            least = f"{100 * self.threshold:.1f} %" if self.threshold >= 0.01 else f"{100 * self.threshold:.2g} %"
            rule = f"An image is flagged when the probability of {self.target_in_words} is at least {least}."
        target = self.target_in_words if len(self.classes) == 1 else "one of these"
        reached = [
            *([f"flagged {self.sensitivity} of those with {target}"] if self.sensitivity else []),
            *([f"left {self.specificity} of the others unflagged"] if self.specificity else []),
        ]
        if not reached:
            return f"{rule} What that achieves was not measured."
        where = "the test images" if self.measured_on == "test" else "the validation images, on which it was chosen"
        return f"{rule} On {where}, it {' and '.join(reached)}."


def percent(share: float, *, decimals: int = 1) -> str:
    """A share from 0 to 1 as `12.3 %`; `< 0.1 %` and `> 99.9 %` in place of a 0 or 100 that it only rounds to."""
    step = 10.0**-decimals
    if 0 < 100 * share < step / 2:
        return f"< {step:.{decimals}f} %"
    if 100 - step / 2 <= 100 * share < 100:
        return f"> {100 - step:.{decimals}f} %"
    return f"{100 * share:.{decimals}f} %"


def read_points(root: Path, digest: str, *, eight_bits: bool = False) -> dict[str, OperatingPoint]:
    """The operating points of a workspace, by name.

    digest : of its classifier (`identity.classifier_digest`). eight_bits : whether its int8 export is what answers, of
    which only metrics/export.json says what it reaches.

    Raises
    ------
    PipelineError
        `models/operating_points.json` is missing or damaged, or of another classifier.
    """
    content = read_operating_points(root / OPERATING_POINTS)
    check_belongs(content, OPERATING_POINTS, digest)
    if eight_bits:
        exported = _read_metrics(root / METRICS / "export.json")
        known = exported if exported.get(CLASSIFIER_SHA256) == digest else {}
        return {name: _point_in_eight_bits(name, content, known) for name in content.points}
    audited = _read_metrics(root / METRICS / "threshold_sweep.json")
    known = audited if audited.get("classes") == content.classes else {}
    return {name: _point(name, content, known) for name in content.points}


def _read_metrics(path: Path) -> dict[str, Any]:
    """Metrics that need not be there: then they are empty."""
    return Named(read_json(path), str(path)) if path.is_file() else {}


def _point(name: str, content: OperatingPoints, audited: dict[str, Any]) -> OperatingPoint:
    """With what it achieves on test by metrics/threshold_sweep.json, or on validation, where that has another threshold."""
    measured, point = audited.get("points", {}).get(name, {}), content.points[name]
    known = measured.get("threshold") == point.threshold  # or it is of another run
    rates = measured["test"] if known else point.val
    intervals = measured["intervals"] if known else {}
    found = {rate: _rate({"value": rates.get(rate)} | (intervals.get(rate) or {})) for rate in ("sensitivity", "specificity")}
    confidence = audited["bootstrap"]["confidence"] if known else None
    return _build(name, content, **found, measured_on="test" if known else "val", confidence=confidence)


def _point_in_eight_bits(name: str, content: OperatingPoints, exported: dict[str, Any]) -> OperatingPoint:
    """With what the int8 export achieves on test; that of torch would be of another network."""
    known = bool(exported) and exported["thresholds"].get(name) == content.points[name].threshold
    rates = exported["compared"]["int8"] if known else {}
    found = {rate: _rate(rates.get(f"{rate}@{name}") or {}) for rate in ("sensitivity", "specificity")}
    confidence = exported["bootstrap"]["confidence"] if known else None
    return _build(name, content, **found, measured_on="test", confidence=confidence)


def _build(name: str, content: OperatingPoints, **measured: Any) -> OperatingPoint:
    threshold = content.points[name].threshold
    return OperatingPoint(name=name, target=content.target, classes=tuple(content.classes), threshold=threshold, **measured)


def _rate(measured: dict[str, Any]) -> Rate | None:
    """From `value`, `low` and `high`; None where it is undefined."""
    value = measured.get("value")
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return Rate(float(value), measured.get("low"), measured.get("high"))
