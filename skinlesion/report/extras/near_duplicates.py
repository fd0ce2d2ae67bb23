"""The near-duplicate audit: pairs of images under two lesion ids that show one lesion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion.report.blocks import Block, Paragraph
from skinlesion.report.formats import bounded, count, percent


def section(content: Mapping[str, Any]) -> list[Block]:
    """How many pairs there are, how many cross the split, and how many of known siblings the method finds."""
    recall = content["recall_on_known_siblings"]
    found = bounded(recall) if isinstance(recall, Mapping) else percent(recall)
    return [
        Paragraph(
            f"Among {count(content['images'])} images, {count(content['accepted_pairs'])} pairs under two lesion ids were taken "
            f"for views of one lesion; {count(content['pairs_crossing_split'])} of them lie in two splits. Of known "
            f"siblings the method finds {found}."
        ),
    ]
