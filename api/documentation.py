"""The documentation at /docs: the OpenAPI document as one page without scripts, which loads nothing and so works offline.

FastAPI's own page loads Swagger UI from a content delivery network, whose scripts would run beside patients' images.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from api.problems import KINDS

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; color: #1b1b1b; background: #fff }
h2 { margin-top: 2.5rem; border-top: 1px solid #ccc; padding-top: 1rem } code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { background: #f4f4f4; padding: .75rem; overflow-x: auto } .notice { border: 2px solid #8a1f11; padding: .5rem 1rem }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 } td, th { border: 1px solid #ccc; padding: .3rem .5rem;
text-align: left; vertical-align: top } td:first-child { white-space: nowrap } h2 code, h3 code { font-size: 1em }
.method { color: #0b5394 }
.scroll { overflow-x: auto }
"""
EXAMPLES = {
    "/predict": "curl -F files=@first.jpg -F files=@second.jpg -F operating_point=recall_0.90 http://127.0.0.1:8000/predict",
    "/explain": "curl -F file=@first.jpg -o map.png 'http://127.0.0.1:8000/explain?diagnosis=mel&opacity=0.5'",
}


def draw_page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    notice, _, rest = document["info"]["description"].partition("\n\n")
    paths = "".join(_draw_path(path, operations) for path, operations in document["paths"].items())
    schemas = "".join(_draw_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    kinds = _draw_table(
        ("kind", "status", "meaning"),
        [(f'<code id="{name}">{name}</code>', str(kind.status), escape(kind.title)) for name, kind in KINDS.items()],
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document['info']['title'])} API</title><style>{STYLE}</style></head><body><main>"
        f'<h1>{escape(document["info"]["title"])} API</h1><p class="notice">{_inline(notice)}</p><p>{_inline(rest)}</p>'
        '<p>For programs: <a href="/openapi.json">openapi.json</a></p>'
        f"{paths}<h2>Problems</h2><p>Every error is <code>application/problem+json</code>; its <code>type</code> leads here.</p>"
        f"{kinds}"
        f"<h2>Members of the answers</h2>{schemas}</main></body></html>"
    )


def _draw_path(path: str, operations: dict[str, Any]) -> str:
    parts = []
    for method, operation in operations.items():
        parts.append(f'<h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>')
        parts.append("".join(f"<p>{_inline(paragraph)}</p>" for paragraph in operation["description"].split("\n\n")))
        if path in EXAMPLES:
            parts.append(f"<pre>{escape(EXAMPLES[path])}</pre>")
        parameters = {
            each["name"]: each["schema"] | {"description": each.get("description", "")}
            for each in operation.get("parameters", [])
        }
        if parameters:
            parts.append("<h3>Query parameters</h3>" + _draw_members(parameters))
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            parts.append(f"<h3>Fields ({escape(kind)})</h3>" + _draw_members(content["schema"]["properties"]))
        parts.append("<h3>Answers</h3>" + _draw_answers(operation["responses"]))
    return "".join(parts)


def _draw_answers(responses: dict[str, Any]) -> str:
    rows = []
    for status, response in sorted(responses.items()):
        kinds = "<br>".join(
            f"<code>{escape(kind)}</code> {_type(content['schema'])}" for kind, content in response.get("content", {}).items()
        )
        rows.append((status, kinds))
    return _draw_table(("status", "content"), rows)


def _draw_schema(name: str, schema: dict[str, Any]) -> str:
    members = _draw_members(schema.get("properties", {}))
    return (
        f'<h3 id="schema-{escape(name)}"><code>{escape(name)}</code></h3><p>{_inline(schema.get("description", ""))}</p>{members}'
    )


def _draw_members(properties: dict[str, Any]) -> str:
    rows = [
        (f"<code>{escape(name)}</code>", _type(schema), _inline(schema.get("description", "")))
        for name, schema in properties.items()
    ]
    return _draw_table(("name", "type", "meaning"), rows)


def _draw_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Cells of rows are HTML."""
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words, as HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"]) + _values(schema)
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return escape(str(schema.get("format") or schema.get("type") or "any")) + _values(schema)


def _values(schema: dict[str, Any]) -> str:
    """The values and limits of a schema, as HTML."""
    said = ""
    if "enum" in schema:
        said += ": " + ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "minimum" in schema and "maximum" in schema:
        said += f", {schema['minimum']:g} to {schema['maximum']:g}"
    if schema.get("default") is not None:
        said += f"; default <code>{escape(str(schema['default']))}</code>"
    return said


def _inline(text: str) -> str:
    """A paragraph of Markdown as far as it is used here: code and bold."""
    said = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", said)
