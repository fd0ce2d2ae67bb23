"""The plots of the workspace beside those of another revision, as PNG files."""

import io
import re
from pathlib import Path
from typing import Any

import vl_convert
from PIL import Image

from skinlesion.report.vega import VEGA_LITE
from tools.dvc_commands import run_dvc_json
from tools.record_results import plots_without_file

WORKSPACE = "workspace"
PIXELS_PER_INCH = 108  # where 72 is the size of dvc_plots: sharp enough on a dense screen
COLORS = 64  # a palette: plots have few colors, and every run's pictures stay in the repository


def draw(folder: Path, *, base: str, names: dict[str, str]) -> tuple[list[str], bool]:
    """Draw every Vega plot of `dvc plots diff BASE` into `folder`.

    Pictures are left out: they can show images of the data set, which its licence does not let everybody publish; the page of all
    plots, which stays with the run, has them.

    names : what the revisions are called in the plots, by what DVC calls them.

    Returns
    -------
    The names of the plots, in the order of dvc.yaml; each is in `folder` as NAME.png. Whether any of them shows the base.

    Raises
    ------
    PipelineError
        DVC fails, or cannot draw a plot of the workspace that has its file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = run_dvc_json("plots", "diff", base)
    missing = plots_without_file([error for error in shown.get("errors", []) if error.get("rev") == WORKSPACE])
    drawn, of_base = [], False
    for plot, entries in shown.get("data", {}).items():
        entry: dict[str, Any] = next(iter(entries), {})
        if entry.get("type") != "vega" or plot in missing:
            continue
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", plot)
        (folder / f"{name}.png").write_bytes(_png(entry["content"], names))
        drawn.append(name)
        of_base |= base in entry.get("revisions", [])
    return drawn, of_base


def _png(content: dict[str, Any], names: dict[str, str]) -> bytes:
    """A filled template as PNG of `COLORS`, on white, its revisions renamed."""
    rows = [{**row, "rev": names.get(row["rev"], row["rev"])} for row in content["data"]["values"]]
    specification = {**content, "background": "white", "data": {**content["data"], "values": rows}}
    drawn = Image.open(io.BytesIO(vl_convert.vegalite_to_png(specification, vl_version=VEGA_LITE, ppi=PIXELS_PER_INCH)))
    packed = io.BytesIO()
    drawn.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(packed, format="PNG", optimize=True)
    return packed.getvalue()
