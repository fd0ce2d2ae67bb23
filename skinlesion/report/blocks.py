"""What a report is made of. Whoever says something builds blocks; html.py and markdown.py alone know how they look.

In every text a pair of backticks encloses code. Texts are plain otherwise, and are escaped when they are written, because files
of a user are in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Note:
    """A text that must not be overlooked, as that a figure is of another classifier."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Points:
    """A list of texts."""

    kind: ClassVar[str] = "points"
    texts: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names with a text each."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table. The first `labels` columns are text, aligned left; the others are numbers, aligned right."""

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1


@dataclass(frozen=True)
class Figure:
    """A drawing. `svg` is an SVG element, already safe to stand in the page; `caption` says what it shows."""

    kind: ClassVar[str] = "figure"
    caption: str
    svg: str


@dataclass(frozen=True)
class References:
    """Publications: text and address."""

    kind: ClassVar[str] = "references"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Details:
    """Text that is folded away until it is asked for, as it stands in a file."""

    kind: ClassVar[str] = "details"
    summary: str
    text: str


Block = Paragraph | Note | Points | Facts | Table | Figure | References | Details


@dataclass(frozen=True)
class Section:
    """A heading with what stands under it. `name` is its anchor in the page."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """The whole page. `banners` run across its top; `brief` is what the Markdown text for a pull request holds."""

    title: str
    subtitle: str
    banners: Sequence[str]
    sections: Sequence[Section]
    brief: Sequence[Block] = field(default_factory=tuple)
