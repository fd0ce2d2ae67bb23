"""What a report is made of: chapters of blocks. Only html.py and markdown.py know how a block looks.

In every text a pair of backticks encloses code. Texts are plain otherwise, and are escaped when they are written, because files
of a user are in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


class Block:
    """A piece of a chapter."""

    @property
    def kind(self) -> str:
        """The name of its class in lower case, by which a page chooses how it looks."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Paragraph(Block):
    """A paragraph of text."""

    text: str


@dataclass(frozen=True)
class Note(Block):
    """A text that must not be overlooked, as that a figure is of another classifier."""

    text: str


@dataclass(frozen=True)
class Points(Block):
    """A list of texts."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Facts(Block):
    """Names with a text each."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table(Block):
    """A table. The first `labels` columns are text, aligned left; the others are numbers, aligned right."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1


@dataclass(frozen=True)
class Figure(Block):
    """A drawing. `svg` is an SVG element, already safe to stand in the page; `caption` says what it shows."""

    caption: str
    svg: str


@dataclass(frozen=True)
class References(Block):
    """Publications: text and address."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Details(Block):
    """Text that is folded away until it is asked for, as it stands in a file."""

    summary: str
    text: str


@dataclass(frozen=True)
class Chapter:
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
    chapters: Sequence[Chapter]
    brief: Sequence[Block] = field(default_factory=tuple)
