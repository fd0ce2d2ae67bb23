"""Record the run in the workspace: `python -m tools.record_results NAME` (`make record NAME=...`).

Reads   params.yaml, dvc.lock, extras/dvc.lock; metrics/*.json, metrics/train/*.json of the members, metrics/extras/*.json,
        metrics/export.json and data/extras/*/*.csv of the optional stages; data/predictions/{val,test}.csv;
        data/failures/failures.csv; report/; plots/gradcam/images.csv;
        data/raw/provenance.json; data/prepared/index.csv; models/classifier/{ensemble.json,NAME/config.json}; every plot of
        dvc.yaml
Writes  results/NAME/ (tools/records.py says what lies there), all of it or nothing

It refuses a workspace that is not up to date, so that the record is of this code and these parameters, and prediction tables
that do not give the metrics. What an optional stage found of another classifier or other images is left out. Pictures are
recorded of synthetic images only: HAM10000's are not ours to copy.
"""

import argparse
import logging
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import vl_convert
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from skinlesion.artifacts.paths import CLASSIFIER, METRICS, PLOTS
from skinlesion.artifacts.prepared import INDEX_COLUMNS, PREPARED
from skinlesion.artifacts.raw import read_provenance
from skinlesion.artifacts.tables import read_table
from skinlesion.audits.findings import extra_path, found_extras, outdated, read_extra
from skinlesion.base.errors import PipelineError, name_some, run_stage
from skinlesion.base.files import atomic_folder, read_json, write_json
from skinlesion.base.versions import git_commit
from skinlesion.config.params import PARAMS_FILE
from skinlesion.evaluation.analysis.failures import FAILURES
from skinlesion.evaluation.results.predictions import PREDICTIONS
from skinlesion.report.vega import VEGA_LITE
from tools.dvc_commands import run_dvc, run_dvc_json
from tools.mend import LOCK_FILES
from tools.optional_plots import plots_of_extras
from tools.records import METRIC_FILES, PREDICTED_SPLITS, RESULTS, check_predictions, file_digests

REPORT = Path("report")
EXTRA_TABLES = Path("data/extras")
MAPS = PLOTS / "gradcam" / "images.csv"
ENSEMBLE = CLASSIFIER / "ensemble.json"
SHARED = ("size", "fit", "color_constancy", "fingerprint", "data")
MEMBER_KEYS = ("backbone", "seed", "epoch", "needs_metadata", "weights_sha256", "git_commit", "versions")

logger = logging.getLogger(__name__)


def check_name(name: str) -> None:
    """Refuse a name that is no plain folder name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise PipelineError(
            f"'{name}' cannot name a record: take lower-case letters, digits, '-', '_' and '.', as in ham10000-200x150-baseline"
        )


def check_up_to_date() -> None:
    """Refuse a workspace in which `dvc repro` would have something to do."""
    changed = run_dvc_json("status", "dvc.yaml")
    if changed:
        raise PipelineError(
            f"the workspace is not up to date ({name_some(changed)}): the record would not be of this code and these "
            "parameters; run `dvc repro`, then record again (`dvc status` says what changed)"
        )


def member_names() -> list[str]:
    """Names of the ensemble's members, in order; not by `skinlesion.model.classifier`, which takes seconds to import."""
    members = read_json(ENSEMBLE).get("members")
    if not members:
        raise PipelineError(f"{ENSEMBLE} names no members: run `assemble` again")
    return [member["name"] for member in members]


def read_metrics() -> dict[str, dict[str, Any]]:
    """The metrics of every stage, checked against each other, the classifier and the prediction tables."""
    trained = [f"train/{member}" for member in member_names()]
    metrics = {name: read_json(METRICS / f"{name}.json") for name in (*METRIC_FILES, *trained)}
    fingerprints = {metrics["split"].get("fingerprint"), read_json(ENSEMBLE).get("fingerprint")}
    if len(fingerprints) != 1 or None in fingerprints:
        raise PipelineError(f"{CLASSIFIER} was not trained on the lists that metrics/split.json describes: run `dvc repro`")
    check_predictions(metrics["evaluate"], PREDICTIONS)
    return metrics


def split_extras() -> tuple[list[str], list[str]]:
    """Names of the optional stages that were run: those whose finding is of this workspace, and those that are outdated."""
    found = {name: read_extra(name) for name in found_extras()}
    old = [name for name, content in found.items() if content and outdated(content)]
    if old:
        logger.warning("left out, since of another run: %s; `dvc repro extras/dvc.yaml` measures them anew", name_some(old))
    return [name for name in found if name not in old], old


def read_locks() -> dict[str, str]:
    """MD5 of every output, by path, from the lock files; they also keep stages that are no more, which are left out."""
    return {path: md5 for file in LOCK_FILES if file.is_file() for path, md5 in _read_lock(file).items()}


def _read_lock(file: Path) -> dict[str, str]:
    try:
        lock = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        stages = set(run_dvc("stage", "list", str(file.with_suffix(".yaml")), "--name-only").split())
        known = {stage.rpartition(":")[2] for stage in stages}  # of another file than dvc.yaml, they are named with it
        outs = [out for name, stage in lock["stages"].items() if name in known for out in stage.get("outs", [])]
        return {out["path"]: out["md5"] for out in outs}
    except (YAMLError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(f"{file} is damaged ({error!r}): run `dvc repro`") from None


def render_plots(folder: Path, *, name: str, pictures: bool, extras: list[str]) -> list[str]:
    """Write the plots of the workspace to `folder`: Vega plots as SVG, pictures as they are if `pictures`.

    name : stands in the plots for the revision, which DVC calls 'workspace'. extras : the optional stages whose plots are wanted.

    Returns
    -------
    The plots that were left out: pictures, and those without data or of which a file is missing.

    Raises
    ------
    PipelineError
        DVC has the files of a plot and cannot draw it.
    """
    left_out = []
    unwanted = {plot for plot, extra in plots_of_extras().items() if extra not in extras}
    folder.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        shown = run_dvc_json("plots", "show", "--out", scratch)
        without_file = plots_without_file(shown.get("errors", []))
        wanted = {plot: entries for plot, entries in shown.get("data", {}).items() if plot not in unwanted}
        for plot, (entry, *_) in ((plot, entries or [{}]) for plot, entries in wanted.items()):
            stem = plot.removeprefix("plots/")
            if plot in without_file:
                left_out.append(plot)
            elif entry.get("type") == "vega":
                data = entry["content"]["data"]
                data["values"] = [{**row, "rev": name} for row in data["values"]]
                svg = vl_convert.vegalite_to_svg(entry["content"], vl_version=VEGA_LITE)
                (folder / f"{_flat(stem)}.svg").write_text(svg, encoding="utf-8")
            elif entry.get("type") == "image" and pictures:
                shutil.copyfile(entry["url"], folder / _flat(stem))
            else:
                left_out.append(plot)
    return left_out


def plots_without_file(errors: list[dict[str, str]]) -> set[str]:
    """The plots of which a file is missing, from what `dvc plots show --json` gives as errors; any other error is raised."""
    others = [error for error in errors if error.get("type") != "FileNotFoundError"]
    if others:
        failed = name_some(f"{error.get('name', '?')} ({error.get('msg', 'no reason given')})" for error in others)
        raise PipelineError(f"DVC cannot draw {failed}: run the stage that writes it, or correct `plots` in dvc.yaml")
    return {error["name"] for error in errors}


def _flat(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def describe_classifier() -> dict[str, Any]:
    """What identifies the classifier, and what each of its members was made of."""
    configs = {name: CLASSIFIER / name / "config.json" for name in member_names()}
    members = [
        {"name": name, "weights": read_json(path).get("params", {}).get("weights"), **take(path, MEMBER_KEYS)}
        for name, path in configs.items()
    ]
    return {**take(ENSEMBLE, SHARED), "members": members}


def take(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Some values of a JSON file."""
    content = read_json(path)
    missing = [key for key in keys if key not in content]
    if missing:
        raise PipelineError(f"{path} lacks {', '.join(missing)}: run `dvc repro`")
    return {key: content[key] for key in keys}


def describe_originals() -> dict[str, int]:
    """Most frequent size, in pixels, of the images before they were prepared, and how many have it."""
    sizes = read_table(PREPARED / "index.csv", INDEX_COLUMNS).groupby(["width", "height"]).size()
    width, height = sizes.idxmax()
    return {"width": int(width), "height": int(height), "images": int(sizes.max()), "of": int(sizes.sum())}


def record(name: str, *, replace: bool = False) -> Path:
    """Record the run in the workspace as `results/NAME`; the folder's path."""
    check_name(name)
    target = RESULTS / name
    if target.exists() and not replace:
        raise PipelineError(f"{target} exists: take another name, or --replace it")
    check_up_to_date()
    data, metrics, commit = read_provenance(), read_metrics(), git_commit()
    provenance = {
        "name": name,
        "synthetic": data["synthetic"],
        "data": data,
        "originals": describe_originals(),
        "classifier": describe_classifier(),
        "recorder": {"git_commit": commit and commit.removesuffix("-dirty"), "dirty": commit and commit.endswith("-dirty")},
        "outs_md5": read_locks(),
    }
    extras, left_out_extras = split_extras()
    with atomic_folder(target) as folder:
        shutil.copyfile(PARAMS_FILE, folder / "params.yaml")
        (folder / "metrics" / "train").mkdir(parents=True)
        (folder / "metrics" / "extras").mkdir()
        for path in (*(METRICS / f"{metric}.json" for metric in metrics), *map(extra_path, extras)):
            shutil.copyfile(path, folder / "metrics" / path.relative_to(METRICS))
        (folder / "predictions").mkdir()
        for split in PREDICTED_SPLITS:
            shutil.copyfile(PREDICTIONS / f"{split}.csv", folder / "predictions" / f"{split}.csv")
        shutil.copyfile(FAILURES / "failures.csv", folder / "failures.csv")
        shutil.copyfile(MAPS, folder / "maps.csv")
        shutil.copytree(REPORT, folder / "report")
        for table in (path for extra in extras for path in sorted(EXTRA_TABLES.glob(f"{extra}/*.csv"))):
            (folder / "extras" / table.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(table, folder / "extras" / table.parent.name / table.name)
        left_out = render_plots(folder / "plots", name=name, pictures=data["synthetic"], extras=extras)
        described = provenance | {"extras_left_out": left_out_extras, "plots_left_out": left_out}
        write_json(folder / "provenance.json", described | {"files_sha256": file_digests(folder)})
    logger.info("recorded %s: %d files", target, sum(path.is_file() for path in target.rglob("*")))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.record_results", description=__doc__.partition("\n")[0])
    parser.add_argument("name", metavar="NAME", help="folder under results/, as in ham10000-200x150-baseline")
    parser.add_argument("--replace", action="store_true", help="overwrite a record of that name")
    arguments = parser.parse_args()
    record(arguments.name, replace=arguments.replace)


if __name__ == "__main__":
    run_stage(main)
