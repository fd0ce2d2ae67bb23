"""The near-duplicate audit: pairs of images under two lesion ids that show one lesion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skinlesion.report.blocks import Block, Facts
from skinlesion.report.formats import count, decimal, percent


def section(content: Mapping[str, Any]) -> list[Block]:
    """How many pairs there are, how many cross the split, and how many of known siblings the method finds."""
    accepted, known, false = content["accepted"], content["known_siblings"], content["false_matches"]
    crossing = content["crossing_the_split"]
    rows = [
        ("images", count(content["images"])),
        ("pairs of one diagnosis under two lesion ids, taken for views of one lesion", count(accepted["same_dx"])),
        ("pairs of one diagnosis, by diagnosis", ", ".join(f"{dx} {count(n)}" for dx, n in accepted["by_dx"].items()) or "none"),
        ("pairs under two diagnoses (one is wrong, or the match)", count(accepted["different_dx"])),
        ("pairs across the split", count(sum(crossing.values()))),
        ("pairs across the split, by lists", ", ".join(f"{name} {count(n)}" for name, n in crossing.items())),
        ("candidates that were verified", count(content["candidates"]["pairs"])),
        ("recall on pairs of known siblings", f"{percent(known['recall_on_known_siblings'])} of {count(known['pairs'])}"),
        ("false matches expected among pairs of one diagnosis", decimal(false["expected_among_same_dx"], digits=1)),
    ]
    return [Facts(rows)]
