"""Write the report on the run: one page that needs no network, and a short text for pull requests.

Reads   params.yaml; metrics/*.json and metrics/train/ of the members; data/raw/provenance.json; data/splits/facts.json;
        models/classifier/ (ensemble.json, config.json of each member); the tables of the plots that it shows, as dvc.yaml defines
        them; metrics/extras/*.json and metrics/export.json, as far as the extras were run
Writes  report/index.html, report/report.md

It measures nothing: every number stands in one of these files. The extras are not deps, or `dvc repro` would run them; that one
was run is seen by extras/dvc.lock.
"""

import logging
from pathlib import Path

from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder
from skinlesion.base.locks import one_at_a_time
from skinlesion.report.compose import compose
from skinlesion.report.figures import Plots
from skinlesion.report.html import render_html
from skinlesion.report.inputs import read_inputs
from skinlesion.report.markdown import render_markdown

REPORT = Path("report")

logger = logging.getLogger(__name__)


@one_at_a_time("report")
def main() -> None:
    report = compose(read_inputs(), Plots())
    with atomic_folder(REPORT) as folder:
        (folder / "index.html").write_text(render_html(report), encoding="utf-8")
        (folder / "report.md").write_text(render_markdown(report), encoding="utf-8")
    logger.info("wrote %s and %s", REPORT / "index.html", REPORT / "report.md")


if __name__ == "__main__":
    run_stage(main)
