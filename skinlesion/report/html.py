"""A report as one page that needs nothing else: styles and drawings stand in it, and no script."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from skinlesion.report.blocks import Report


def prose(text: str) -> Markup:
    """A text of a block as HTML: escaped, and what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def environment() -> Environment:
    """The templates of this folder; what they are given is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"prose": prose, "drawing": Markup}
    return made


def render_html(report: Report) -> str:
    """The page."""
    return environment().get_template("page.html").render(report=report)
