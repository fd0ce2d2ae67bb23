"""The leak demonstration: one recipe trained with and without siblings of its test images in the training list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion.report.blocks import Block, Facts, Paragraph, Table
from skinlesion.report.formats import bounded, count, decimal, level, name_of, percent

GROUPS = {
    "all": "all test images",
    "with_siblings": "those with a sibling in the leaking training list",
    "without_siblings": "those without (a control: about 0)",
}
CONTROL = "Nothing can leak to test images without a sibling: only what exceeds their inflation is the leak's."


def section(content: Mapping[str, Any]) -> list[Block]:
    """The share of siblings, and what they add to each metric."""
    siblings = content["siblings"]["image_level"]
    facts = [
        ("test images with a sibling in training, dealt by images", percent(siblings["share"])),
        ("melanomas of test with one", percent(siblings["per_class"].get("mel", {}).get("share"))),
    ]
    facts += [
        (f"{name_of(metric)}, inflation in {GROUPS[group]}", bounded(part["metrics"][metric], "inflation", signed=True))
        for group, metric in (("all", "macro_auc"), ("with_siblings", "accuracy"), ("without_siblings", "accuracy"))
        if (part := content.get(group))
    ]
    return [
        Facts(facts),
        Paragraph(CONTROL),
        *(inflation_table(content, group, said) for group, said in GROUPS.items() if content.get(group)),
    ]


def inflation_table(content: Mapping[str, Any], group: str, said: str) -> Table:
    """Metrics of both trainings and their difference in one group of test images."""
    part = content[group]
    rows = [
        [
            name_of(metric),
            decimal(values["lesion_level"]),
            decimal(values["image_level"]),
            bounded(values, "inflation", signed=True),
            decimal(values["p"]),
        ]
        for metric, values in part["metrics"].items()
    ]
    sizes = f"{count(part['images'])} images of {count(part['lesions'])} lesions"
    caption = f"Inflation by a leak in {said}: {sizes}; {level(content['bootstrap'])}"
    return Table(caption, ["metric", "dealt by lesions", "dealt by images", "inflation", "p"], rows)
