"""Print where the results of the last run are, and its headline metrics: `python -m tools.summary` (`make run` ends with it)."""

import sys
from typing import Any

from skinlesion.artifacts.paths import CLASSIFIER, METRICS, PLOTS
from skinlesion.base.errors import run_stage
from skinlesion.base.files import read_json
from skinlesion.evaluation.results.predictions import PREDICTIONS
from tools.records import HEADLINE, number


def headline(metrics: dict[str, Any]) -> list[str]:
    """One line a headline metric of the test split: value, interval, and the majority class beside it."""
    test = metrics["test"]
    baseline = test["majority_baseline"]
    beside = {name: f"   majority class {baseline[name]:.3f}" for name in HEADLINE if name in baseline}
    return [
        f"  {label:<21} {number(test[name], test['intervals'][name])}{beside.get(name, '')}" for name, label in HEADLINE.items()
    ]


def main() -> None:
    metrics = read_json(METRICS / "evaluate.json")
    test, level = metrics["test"], f"{100 * metrics['bootstrap']['confidence']:g} %"
    source = metrics["data"]["source"]
    synthetic = metrics["data"]["synthetic"]
    names = list(metrics["members"])
    voters = f"mean of {len(names)} members: {', '.join(names)}" if len(names) > 1 else f"member {names[0]}"
    kind = "SYNTHETIC sample, which says nothing about real skin" if synthetic else f"images of source '{source}'"
    lines = [
        f"Test split of the {kind}: {test['images']} images of {test['lesions']} lesions; {level} intervals over lesions",
        *headline(metrics),
        f"Classifier   {CLASSIFIER}/   ({voters}; test-time views: {metrics['test_time']})",
        f"Predictions  {PREDICTIONS}/{{val,test}}.csv",
        "Report       report/index.html   (one page, and report/report.md for a pull request)",
        f"Metrics      {METRICS}/*.json   (make metrics)",
        f"Plots        {PLOTS}/   (make plots writes one page of them all)",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_stage(main)
