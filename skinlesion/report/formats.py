"""How the report writes numbers; a dash stands for what is undefined."""

from collections.abc import Iterable, Mapping
from typing import Any

DASH = "\u2013"  # an en dash
_SPACE = "\u00a0"  # in an interval, so that a narrow column breaks before it and not in it

# The metrics that stand for a classifier, and what a person calls them.
HEADLINE: dict[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "macro_auc": "macro AUC",
    "macro_average_precision": "macro average precision",
    "top2_accuracy": "truth among the first two",
    "mel_auc": "melanoma AUC",
    "mel_sensitivity": "melanoma sensitivity",
    "mel_specificity": "melanoma specificity",
    "ece": "calibration error (ECE)",
}


def decimal(value: float | None, interval: Mapping[str, Any] | None = None, *, digits: int = 3, sign: str = "") -> str:
    """A number, and the interval `{"low", "high"}` in brackets where there is one; with `sign` "+" each has its sign."""
    if value is None:
        return DASH
    low, high = (interval["low"], interval["high"]) if interval else (None, None)
    numbers = [f"{each:{sign}.{digits}f}" for each in (value, low, high) if each is not None]
    return numbers[0] if low is None or high is None else f"{numbers[0]} [{numbers[1]},{_SPACE}{numbers[2]}]"


def measured(content: Mapping[str, Any], metric: str) -> str:
    """A metric of a metrics file, with its interval in `intervals`, if it has one."""
    return decimal(content.get(metric), content.get("intervals", {}).get(metric))


def metric_rows(metrics: Iterable[str], *contents: Mapping[str, Any]) -> list[list[str]]:
    """A row for each metric that the first of some metrics files has: its name, and its value in each of them as `measured`."""
    return [[name_of(name), *(measured(content, name) for content in contents)] for name in metrics if name in contents[0]]


def bounded(content: Mapping[str, Any], name: str = "value", *, prefix: str = "", signed: bool = False) -> str:
    """A value whose interval stands beside it, under `low` and `high` with `prefix`; with its sign if it is a difference."""
    interval = {end: content.get(f"{prefix}{end}") for end in ("low", "high")}
    return decimal(content.get(name), interval, sign="+" if signed else "")


def count(value: int | None) -> str:
    """A number of things, thousands by commas."""
    return DASH if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """A share (0 to 1) in per cent."""
    return DASH if value is None else f"{100 * value:.1f} %"


def level(bootstrap: Mapping[str, Any] | None) -> str:
    """What the intervals of a metrics file are, from its `bootstrap`."""
    if not bootstrap:
        return "no intervals"
    return f"{100 * bootstrap['confidence']:g} % intervals by {bootstrap['draws']:,} bootstrap draws of {bootstrap['unit']}s"


def name_of(metric: str) -> str:
    """What a person calls a metric."""
    return HEADLINE.get(metric, metric.replace("_", " "))


def describe_rule(point: Mapping[str, Any]) -> str:
    """What was asked on validation of an operating point; before there were rules, a constraint was one of sensitivity."""
    value = point["constraint"]
    if value is None:
        return "largest Youden index"
    return {
        "recall": f"sensitivity ≥ {value:.2f}",
        "specificity": f"specificity ≥ {value:.2f}",
        "cost": f"least cost, a miss costs {value:g} false alarms",
        "guaranteed": f"sensitivity of lesions ≥ {value:.2f}, guaranteed",
    }[point.get("rule", "recall")]
