"""The short text of a report for a pull request, in GitHub's Markdown."""

from collections.abc import Callable
from html import escape
from typing import Any

from skinlesion.report.blocks import Report


def plain(text: str) -> str:
    """A text of a block for a line of Markdown: no HTML of a user's file, no new cell, no new line."""
    return escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def render_markdown(report: Report) -> str:
    """Title, banners and what the report's `brief` holds."""
    parts = [f"# {plain(report.title)}", *(f"> **{plain(banner)}**" for banner in report.banners), plain(report.subtitle)]
    return "\n\n".join([*parts, *(_WRITERS[block.kind](block) for block in report.brief)]) + "\n"


def _table(block: Any) -> str:
    """A table under its caption, numbers aligned right."""
    rule = ["---" if column < block.labels else "---:" for column in range(len(block.header))]
    lines = [block.header, rule, *block.rows]
    return f"**{plain(block.caption)}**\n\n" + "\n".join(f"| {' | '.join(plain(cell) for cell in line)} |" for line in lines)


# The kinds of block that a brief text has.
_WRITERS: dict[str, Callable[[Any], str]] = {
    "paragraph": lambda block: plain(block.text),
    "facts": lambda block: "\n".join(f"- {plain(name)}: {plain(text)}" for name, text in block.rows),
    "table": _table,
}
