"""The plots of dvc.yaml as drawings that can stand in a page: DVC's own templates, filled from the CSV files of the workspace.

What `dvc plots show` draws, without DVC, which is locked while a stage runs.
"""

import json
import re
from collections.abc import Hashable
from html import escape
from pathlib import Path
from typing import Any

import vl_convert
from dvc_render import VegaRenderer
from ruamel.yaml import YAML

from skinlesion.artifacts.tables import parse_csv
from skinlesion.base.errors import PipelineError
from skinlesion.report.blocks import Figure
from skinlesion.report.vega import VEGA_LITE

PIPELINE_FILE = Path("dvc.yaml")
TEMPLATES = Path(".dvc/plots")
REVISION = "this run"  # what the templates, made to compare revisions, call the one that there is


class Plots:
    """The plots that a `dvc.yaml` defines, by name."""

    def __init__(self, file: Path = PIPELINE_FILE) -> None:
        try:
            listed = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8")).get("plots", [])
        except FileNotFoundError:
            raise PipelineError(f"{file} not found in {Path.cwd()}: run from the project's root") from None
        self._file = file
        self._defined = {name: plot for entry in listed if isinstance(entry, dict) for name, plot in entry.items()}

    def draw(self, name: str) -> Figure:
        """A plot as a figure; its title is the caption.

        Raises
        ------
        PipelineError
            There is no such plot, or a file of it is missing.
        """
        if name not in self._defined:
            raise PipelineError(
                f"{self._file} defines no plot '{name}', which the report shows: known are {', '.join(self._defined)}"
            )
        plot = self._defined[name]
        rows = [row for file in plot["y"] for row in read_rows(Path(file))]
        properties: dict[str, Any] = {key: plot[key] for key in ("template", "x", "x_label", "y_label") if key in plot}
        properties |= {"y": next(iter(plot["y"].values())), "title": "", "template_dir": str(TEMPLATES)}
        filled = VegaRenderer(rows, name, **properties).get_filled_template()
        # No panel names the revision: there is but one, and the report says which.
        shown = json.loads(json.dumps({**filled, "background": "#ffffff"}).replace("'revision: ' + datum.rev", "''"))
        svg = vl_convert.vegalite_to_svg(shown, vl_version=VEGA_LITE)
        return Figure(plot["title"], inline_svg(svg, name=name, label=plot["title"]))


def read_rows(path: Path) -> list[dict[Hashable, Any]]:
    """The rows of a plot's CSV file as text, as DVC gives them to a template, of one revision."""
    try:
        table = parse_csv(path, name=str(path), dtype="str")
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: run the stage that writes it first, or `dvc repro`") from None
    rows: list[dict[Hashable, Any]] = table.assign(rev=REVISION).to_dict(orient="records")
    return rows


def inline_svg(svg: str, *, name: str, label: str) -> str:
    """An SVG document made fit to stand beside others in a page: ids of its own, and a name for those who cannot see it."""
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    # Numbered anew, because vl_convert counts its ids on from drawing to drawing.
    ids = {old: f"{prefix}-{number}" for number, old in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)))}
    svg = re.sub(r'\bid="([^"]+)"', lambda found: f'id="{ids[found[1]]}"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{ids[found[1]]})", svg)
    svg = re.sub(r'href="#([^"]+)"', lambda found: f'href="#{ids[found[1]]}"', svg)
    return svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
