"""What a recorded run says of its classifier, in at most five sentences; every number in them is one of its metrics files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skinlesion.base.files import read_json
from skinlesion.diagnoses import DIAGNOSES
from tools.records import number

PREFERRED_RECALL = 0.9  # of the operating points by sensitivity, the one that is read out, or else the first
PREFERRED_COVERAGE = "0.8"


def read_run(folder: Path) -> list[str]:
    """The sentences on a record, `results/NAME`; without those whose stage it lacks."""
    sentences = {
        "subgroups": [histology_sentence, worst_group_sentence],
        "threshold_sweep": [threshold_sentence],
        "extras/leak": [leak_sentence],
        "selective": [selective_sentence],
    }
    metrics = {name: folder / "metrics" / f"{name}.json" for name in sentences}
    return [
        write(read_json(metrics[name])) for name, writers in sentences.items() if metrics[name].is_file() for write in writers
    ]


def value_of(measured: dict[str, Any], metric: str) -> str:
    """A metric with its interval."""
    return number(measured[metric], measured["intervals"][metric])


def histology_sentence(subgroups: dict[str, Any]) -> str:
    """The figures of histologically proven lesions alone."""
    proven, whole = subgroups["histology_only"], subgroups["all"]
    if proven is None:
        return "No test image has a histologically proven diagnosis."
    easier = proven["accuracy"] is not None and proven["accuracy"] < whole["accuracy"]
    return (
        f"On the {proven['images']:,} test images ({proven['lesions']:,} lesions) proven by histology accuracy is "
        f"{value_of(proven, 'accuracy')} and macro AUC {value_of(proven, 'macro_auc')}, against {number(whole['accuracy'])} and "
        f"{number(whole['macro_auc'])} over all{', which the easier cases that were only followed up prop up' if easier else ''}."
    )


def worst_group_sentence(subgroups: dict[str, Any]) -> str:
    """The groups with the lowest melanoma sensitivity and macro AUC."""
    said = [
        f"{words} in {group['attribute']} {group['group']}, {number(group['value'], group)} ({group[unit]:,} {name})"
        for metric, words, unit, name in (
            ("mel_sensitivity", "melanoma sensitivity is lowest", "melanoma_lesions", "melanoma lesions"),
            ("macro_auc", "macro AUC is lowest", "lesions", "lesions"),
        )
        if (group := subgroups["worst"][metric])
    ]
    if not said:
        return "Every group of patients is too small to call one the worst."
    whole = number(subgroups["all"]["mel_sensitivity"])
    return f"Of groups large enough to compare, {'; '.join(said)}; over all, melanoma sensitivity is {whole}."


def threshold_sentence(sweep: dict[str, Any]) -> str:
    """What the threshold for a sensitivity chosen on validation does on test."""
    points = [point for point in sweep["points"].values() if point.get("rule", "recall") == "recall" and point["constraint"]]
    point = min(points, key=lambda each: each["constraint"] != PREFERRED_RECALL)
    target = DIAGNOSES.get(sweep["target"], sweep["target"])
    test, intervals = point["test"], point["intervals"]
    rates = {rate: number(test[rate], intervals.get(rate)) for rate in ("sensitivity", "specificity", "flagged", "precision")}
    return (
        f"The {target} threshold chosen for a sensitivity of at least {point['constraint']:.2f} on validation gives "
        f"{rates['sensitivity']} on test, {judge(point)}, at a specificity of {rates['specificity']}; it flags "
        f"{rates['flagged']} of the images, of which {rates['precision']} are {target}."
    )


def judge(point: dict[str, Any]) -> str:
    """Whether a point by sensitivity keeps on test what was asked for on validation."""
    asked = point["constraint"]
    if point["test"]["sensitivity"] >= asked:
        return "which keeps what was asked"
    high = point["intervals"]["sensitivity"]["high"]
    return "which falls short of it" + (", by no more than chance explains" if high is not None and high >= asked else "")


def leak_sentence(leak: dict[str, Any]) -> str:
    """What siblings of the test images in the training list add."""
    every, share = leak["all"]["metrics"], leak["siblings"]["image_level"]["share"]
    gains = [
        f"{words} by {gain(every[name])}"
        for name, words in (("accuracy", "accuracy"), ("macro_auc", "macro AUC"), ("mel_sensitivity", "melanoma sensitivity"))
    ]
    recipe, trainings = leak["recipe"], len(leak["recipe"]["seeds"])
    groups = [gain(leak[group]["metrics"]["accuracy"]) if leak[group] else "-" for group in ("with_siblings", "without_siblings")]
    return (
        f"The measured leak: an image-level split, which leaves {share:.0%} of the test images a sibling in the training list, "
        f"changes {', '.join(gains[:-1])} and {gains[-1]} on the same images ({recipe['backbone']}, {recipe['epochs']} epochs, "
        f"{trainings} training{'s' if trainings > 1 else ''} of each kind): accuracy by {groups[0]} where there is a sibling, "
        f"and by {groups[1]} where there is none, which is no leak."
    )


def gain(difference: dict[str, float]) -> str:
    """A difference with its sign and its interval."""
    return f"{difference['inflation']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def selective_sentence(selective: dict[str, Any]) -> str:
    """What answering only where confident gives."""
    points = selective["abstention"]
    name = PREFERRED_COVERAGE if PREFERRED_COVERAGE in points else next(iter(points))
    test = points[name]["test"]
    return (
        f"Answering only where it is as sure as of the surest {float(name):.0%} of validation, it answers "
        f"{number(test['coverage'])} of test with an accuracy of {value_of(test, 'accuracy')}, and still gives "
        f"{value_of(test, 'melanomas_missed')} of all melanomas another diagnosis."
    )
