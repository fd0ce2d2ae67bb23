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
    tables = [inflation_table(content, group, name) for group, name in GROUPS.items() if content.get(group)]
    return [Facts(facts), Paragraph(CONTROL), *tables]


def inflation_table(content: Mapping[str, Any], group: str, name: str) -> Table:
    """Metrics of both trainings and their difference in one group of test images."""
    part = content[group]
    rows = []
    for metric, values in part["metrics"].items():
        by_lesions, by_images, p = (decimal(values[key]) for key in ("lesion_level", "image_level", "p"))
        rows.append([name_of(metric), by_lesions, by_images, bounded(values, "inflation", signed=True), p])
    sizes = f"{count(part['images'])} images of {count(part['lesions'])} lesions"
    caption = f"Inflation by a leak in {name}: {sizes}; {level(content['bootstrap'])}"
    return Table(caption, ["metric", "dealt by lesions", "dealt by images", "inflation", "p"], rows)
