"""How the report writes numbers; a dash stands for what is undefined."""

from __future__ import annotations

from collections.abc import Mapping
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


def rate(value: float | None, interval: Mapping[str, Any] | None = None) -> str:
    """Three decimals, and the interval `{"low", "high"}` in brackets where there is one."""
    return decimal(value, interval)


def measured(content: Mapping[str, Any], metric: str) -> str:
    """A metric of a metrics file, with its interval in `intervals`, if it has one."""
    return rate(content.get(metric), content.get("intervals", {}).get(metric))


def bounded(content: Mapping[str, Any], name: str = "value", *, prefix: str = "", signed: bool = False) -> str:
    """A value whose interval stands beside it, under `low` and `high` with `prefix`; with its sign if it is a difference."""
    value, low, high = (content.get(key) for key in (name, f"{prefix}low", f"{prefix}high"))
    if not signed:
        return rate(value, {"low": low, "high": high})
    if value is None:
        return DASH
    return f"{value:+.3f}" if low is None or high is None else f"{value:+.3f} [{low:+.3f},{_SPACE}{high:+.3f}]"


def decimal(value: float | None, interval: Mapping[str, Any] | None = None, *, digits: int = 3) -> str:
    """A number that is no rate, and its interval as `rate` writes it."""
    if value is None:
        return DASH
    low, high = (interval["low"], interval["high"]) if interval else (None, None)
    within = f" [{low:.{digits}f},{_SPACE}{high:.{digits}f}]" if low is not None and high is not None else ""
    return f"{value:.{digits}f}{within}"


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
