"""The page of all plots, with banner and links: `python -m tools.plots_page [REVISION ...] [--out FOLDER]` (`make plots`).

Reads   what `dvc plots show` reads; with revisions (commits, branches, experiments), what `dvc plots diff` compares;
        data/raw/provenance.json, to say on the page where the images are synthetic; whether there is a
        plots/gradcam/index.html, which the page links to
Writes  FOLDER/index.html, the pictures that it shows beside it in FOLDER/static/

The page is .dvc/plots_page.html. Plain `dvc plots show` and `dvc plots diff` take it too (`plots.html_template` of .dvc/config):
DVC's own loads Vega from a content delivery network. `--renew` gives it the Vega of the installed vl-convert.
"""

import argparse
import html
import os
import re
import sys
import tempfile
import urllib.parse
from pathlib import Path

import vl_convert

from skinlesion.artifacts.paths import PLOTS
from skinlesion.artifacts.raw import RAW, read_provenance
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_file
from skinlesion.report.vega import VEGA_LITE
from tools.dvc_commands import run_dvc

TEMPLATE = Path(__file__).resolve().parents[1] / ".dvc/plots_page.html"
LIBRARY = re.compile(r'(?<=<script id="library">).*?(?=</script>)', re.DOTALL)
PLAIN_BANNER = re.compile(r'<div class="banner">.*?</div>')  # of plain DVC, which cannot know
SYNTHETIC = "Synthetic sample: figures say nothing about real skin"


def banner(raw: Path = RAW) -> str:
    """What the page says across its top about the images of the workspace: an HTML element, or nothing for real ones."""
    if not (raw / "provenance.json").is_file():
        text = f"Source of the images unknown: {(raw / 'provenance.json').as_posix()} is not in the workspace"
    elif read_provenance(raw)["synthetic"]:
        text = SYNTHETIC
    else:
        return ""
    return f'<div class="banner" role="alert">{text}</div>'


def link_to_cases(folder: Path, plots: Path = PLOTS) -> str:
    """The way from a page in `folder` to the explained cases of the workspace: an HTML element, or nothing without them."""
    index = plots / "gradcam" / "index.html"
    if not index.is_file():
        return ""
    address = urllib.parse.quote(Path(os.path.relpath(index, folder)).as_posix())
    return f'<p><a href="{address}">Grad-CAM, case by case: where the network looked, all missed melanomas first</a></p>'


def page_template(folder: Path, revisions: list[str]) -> str:
    """The HTML that DVC puts its plots into for a page in `folder`: with subject, banner and link."""
    subject = "Plots of the workspace."
    if revisions:
        names = html.escape(", ".join(revisions))
        subject = f"Revisions compared: {names}. A banner, if there is one, speaks of the workspace."
    page = PLAIN_BANNER.sub(banner(), TEMPLATE.read_text(encoding="utf-8"))
    for place, content in {"subject": subject, "cases": link_to_cases(folder)}.items():
        page = page.replace(f"<!-- {place} -->", content)
    return page


def vega() -> str:
    """Vega and its relatives as JavaScript that can stand in a page."""
    bundle = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]  # the stub lacks its default
    return bundle.replace("</script", r"<\/script")


def renew() -> None:
    """Write vl-convert's Vega into the page's template."""
    page = LIBRARY.sub(lambda _: vega(), TEMPLATE.read_text(encoding="utf-8"))
    with atomic_file(TEMPLATE) as partial:
        partial.write_text(page, encoding="utf-8")


def write_page(folder: Path, revisions: list[str]) -> Path:
    """Write the page and say where it is.

    Raises
    ------
    PipelineError
        DVC fails, or there is no plot to show.
    """
    page = folder / "index.html"
    page.unlink(missing_ok=True)  # DVC leaves an old page in place when it has nothing to show
    command = ["diff", *revisions] if revisions else ["show"]
    with tempfile.TemporaryDirectory() as scratch:
        template = Path(scratch) / "template.html"
        template.write_text(page_template(folder, revisions), encoding="utf-8")
        run_dvc("plots", *command, "--out", str(folder), "--html-template", str(template))
    if not page.is_file():
        raise PipelineError(f"DVC found no plots, so {page} was not written: run `dvc repro` first")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.plots_page", description=__doc__.partition("\n")[0])
    parser.add_argument("revisions", nargs="*", metavar="REVISION", help="compare these (one: with the workspace) instead")
    parser.add_argument("--out", type=Path, default=Path("dvc_plots"), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--renew", action="store_true", help="write the installed Vega into .dvc/plots_page.html first")
    arguments = parser.parse_args()
    if arguments.renew:
        renew()
    sys.stdout.write(f"{write_page(arguments.out, arguments.revisions)}\n")


if __name__ == "__main__":
    run_stage(main)
