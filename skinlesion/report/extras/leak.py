"""The leak demonstration: one recipe trained with and without siblings of its test images in the training list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion.report.blocks import Block, Paragraph, Table
from skinlesion.report.formats import DASH, bounded, count, decimal, level, name_of, percent, rate

GROUPS = {
    "all": "all test images",
    "with_siblings": "those with a sibling in the leaking training list",
    "without_siblings": "those without (a control: about 0)",
}


def section(content: Mapping[str, Any]) -> list[Block]:
    """The share of siblings, and what they add to each metric."""
    everyone, siblings = content["all"], content["siblings"]["image_level"]
    gained = everyone["metrics"]["macro_auc"]
    melanomas = siblings["per_class"].get("mel", {}).get("share")
    return [
        Paragraph(
            f"Dealt by images instead of lesions, {percent(siblings['share'])} of the test images ({percent(melanomas)} of the "
            f"melanomas) have a sibling in training; that changes macro AUC by {bounded(gained, 'inflation', signed=True)}, from "
            f"{rate(gained['lesion_level'])} to {rate(gained['image_level'])}. Accuracy changes by "
            f"{group_gain(content, 'with_siblings')} on those with a sibling, and by "
            f"{group_gain(content, 'without_siblings')} on those without, where nothing can leak: only what exceeds "
            "the second is the leak's."
        ),
        *(inflation_table(content, group, said) for group, said in GROUPS.items() if content.get(group)),
    ]


def group_gain(content: Mapping[str, Any], group: str) -> str:
    """The change of accuracy in one group of test images; a dash where it holds none."""
    part = content.get(group)
    return bounded(part["metrics"]["accuracy"], "inflation", signed=True) if part else DASH


def inflation_table(content: Mapping[str, Any], group: str, said: str) -> Table:
    """Metrics of both trainings and their difference in one group of test images."""
    part = content[group]
    rows = [
        [
            name_of(metric),
            rate(values["lesion_level"]),
            rate(values["image_level"]),
            bounded(values, "inflation", signed=True),
            decimal(values["p"]),
        ]
        for metric, values in part["metrics"].items()
    ]
    sizes = f"{count(part['images'])} images of {count(part['lesions'])} lesions"
    caption = f"Inflation by a leak in {said}: {sizes}; {level(content['bootstrap'])}"
    return Table(caption, ["metric", "dealt by lesions", "dealt by images", "inflation", "p"], rows)
