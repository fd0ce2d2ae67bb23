"""The documentation at /docs: the OpenAPI document as one page without scripts, which loads nothing and so works offline.

FastAPI's own page loads Swagger UI from a content delivery network, whose scripts would run beside patients' images.
"""

import re
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from api.problems import KINDS

EXAMPLES = {
    "/predict": "curl -F files=@first.jpg -F files=@second.jpg -F operating_point=recall_0.90 http://127.0.0.1:8000/predict",
    "/explain": "curl -F file=@first.jpg -o map.png 'http://127.0.0.1:8000/explain?diagnosis=mel&opacity=0.5'",
}


def draw_page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    return _ENVIRONMENT.get_template("documentation.html").render(document, kinds=KINDS, examples=EXAMPLES)


def _inline(text: str) -> Markup:
    """A paragraph of Markdown as HTML, with the two things that are used here: code and bold."""
    coded = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", coded))


_ENVIRONMENT = Environment(loader=PackageLoader("api"), autoescape=True)
_ENVIRONMENT.filters["inline"] = _inline
