"""A recorded run, `results/NAME/`: what lies in it, and the proof that its metrics are those of its prediction tables.

params.yaml               the parameters of the run
metrics/*.json            what the stages measured; metrics/train/ holds a file a member of the ensemble, metrics/extras/ one an
                          optional stage that was run (export.json: of the export)
predictions/{val,test}.csv  the tables from which every figure can be computed again
failures.csv, extras/     the list of failures; the tables of the optional stages
maps.csv                  the figures of each image's maps, from which the measures of their faithfulness follow
report/                   the report, as a page and as Markdown
plots/*.svg               the plots; pictures only where the images are synthetic
provenance.json           where data, classifier and code came from; sha256 of every file above
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, roc_auc_score

from skinlesion.artifacts.tables import predicted_of
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest, read_json
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.classification import LEADING
from skinlesion.evaluation.results.predictions import read_predictions
from skinlesion.report.formats import name_of
from skinlesion.report.inputs import METRIC_FILES as METRIC_FILES  # and train/NAME of each member

RESULTS = Path("results")
PREDICTED_SPLITS: tuple[str, ...] = ("val", "test")
TOLERANCE = 1e-9

IF_MEASURED: tuple[str, ...] = ("subgroups", "selective", "extras/leak")  # of what README shows, what a record may lack

# The metrics of evaluate.json that stand for a run wherever it is summed up, and what a person calls them.
HEADLINE = {name: name_of(name) for name in LEADING}


def number(value: float | None, interval: dict[str, float | None] | None = None) -> str:
    """A rate with three decimals, its interval in brackets; a dash where it is undefined."""
    if value is None:
        return "-"
    if not interval or interval["low"] is None:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


@dataclass(frozen=True)
class Record:
    """What README says a recorded run by: the contents of its `provenance.json` and, by name, of its metrics.

    metrics : of `evaluate`, `threshold_sweep` and `gradcam`, and of `IF_MEASURED` those that it has.
    """

    name: str
    provenance: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    has_report: bool

    @property
    def link(self) -> str:
        """The run's name, linked to its folder."""
        return f"[{self.name}]({RESULTS.as_posix()}/{self.name}/)"

    @property
    def link_with_report(self) -> str:
        """The same, with links to its report where it has one."""
        place = f"{RESULTS.as_posix()}/{self.name}/report"
        return self.link + (f", report: [page]({place}/index.html), [Markdown]({place}/report.md)" if self.has_report else "")


def read_record(folder: Path) -> Record:
    """Read a recorded run."""
    names = ["evaluate", "threshold_sweep", "gradcam"]
    names += [name for name in IF_MEASURED if (folder / "metrics" / f"{name}.json").is_file()]
    metrics = {name: read_json(folder / "metrics" / f"{name}.json") for name in names}
    return Record(folder.name, read_json(folder / "provenance.json"), metrics, (folder / "report").is_dir())


def list_records(results: Path = RESULTS) -> list[Path]:
    """The folders of all recorded runs, by name."""
    return sorted(path.parent for path in results.glob("*/provenance.json"))


def recompute(table: pd.DataFrame) -> dict[str, float]:
    """`images`, `lesions`, `accuracy` and `macro_auc` (one against the rest, mean over the classes present) of a table."""
    present = [dx for dx in CLASSES if 0 < table["dx"].eq(dx).sum() < len(table)]
    areas = [roc_auc_score(table["dx"].eq(dx), table[f"probability_{dx}"]) for dx in present]
    return {
        "images": len(table),
        "lesions": int(table["lesion_id"].nunique()),
        "accuracy": float(accuracy_score(table["dx"], predicted_of(table))),
        "macro_auc": float(np.mean(areas)),
    }


def check_predictions(metrics: dict[str, Any], folder: Path) -> None:
    """Compute metrics again, with scikit-learn, from the prediction tables in `folder`, and hold them against `metrics`.

    metrics : the content of `evaluate.json`.

    Raises
    ------
    PipelineError
        A table is missing or damaged, or a figure differs by more than `TOLERANCE`.
    """
    for split in PREDICTED_SPLITS:
        for name, value in recompute(read_predictions(split, folder)).items():
            recorded = metrics.get(split, {}).get(name)
            if recorded is None or abs(recorded - value) > TOLERANCE:
                raise PipelineError(
                    f"{folder / f'{split}.csv'} gives {name} {value!r}, and evaluate.json says {recorded!r}: table and metrics "
                    "are not of one run; run `dvc repro`"
                )


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder` but its own provenance.json, by path relative to it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): file_digest(path, "sha256") for path in files}
    named.pop("provenance.json", None)
    return named
