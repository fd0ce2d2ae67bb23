"""Measure a recorded run anew with today's stages, from its own prediction tables: `python -m tools.remeasure NAME`.

Reads   results/NAME/; params.yaml, dvc.yaml and .dvc/plots; data/raw, data/splits, plots/split and data/prepared, which must be
        those that the run was measured on; metrics/extras, data/extras and
        plots/extras of optional stages that are of the images alone
Writes  results/NAME/, all of it or nothing: metrics and plots of the stages behind the predictions, failures and report; as they
        were remain the predictions, what training, Grad-CAM and neighbors gave, and their parameters. Other parameters, which may
        not have existed then, are the workspace's.

Records follow the code in this way without another training, and above all without another look at the test images by a network.
The classifier itself is not in a record: of it the report shows what the record says.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from skinlesion.artifacts.paths import CLASSIFIER, METRICS, PLOTS
from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.splits import read_split, read_split_facts
from skinlesion.artifacts.tables import labels_of, logits_of
from skinlesion.audits.findings import EXPORT, EXTRAS, found_extras, outdated, read_extra
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_folder, file_digest, read_json, scratch_folder, write_json
from skinlesion.config.params import PARAMS_FILE, Params, load_params, read_params
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.analysis.failures import FAILURES
from skinlesion.evaluation.metrics.calibration import check_calibrated, fit_calibrator
from skinlesion.evaluation.results.decisions import CLASSIFIER_SHA256
from skinlesion.evaluation.results.predictions import read_predictions
from skinlesion.explanation.cam.summary import summarize_figures
from skinlesion.explanation.cam.tables import read_images_table
from skinlesion.model.backbones import normalization
from skinlesion.model.classifier import CONFIG_FILE, ENSEMBLE_FILE, ClassifierConfig
from skinlesion.model.network import NetworkSpec
from skinlesion.report.compose import compose
from skinlesion.report.figures import Plots
from skinlesion.report.html import render_html
from skinlesion.report.inputs import read_inputs
from skinlesion.report.markdown import render_markdown
from stages import assemble, baselines, evaluate, failures, selective, subgroups, threshold_sweep
from tools.record_results import EXTRA_TABLES, copy_extra_tables, describe_recorder, render_plots
from tools.records import PREDICTED_SPLITS, RESULTS, check_digests, check_predictions, file_digests

# What the record keeps of the stages before the predictions, and of Grad-CAM, which needs the network.
# Of gradcam's parameters it keeps those that are still known: what its maps are of stands in its metrics.
KEPT_SECTIONS = ("download", "split", "prepare", "synthesize", "ensemble", "train")
KEPT_METRICS = ("split", "gradcam")
# Of stages that need the network too, and that a record may be older than: metrics and section have one name.
KEPT_IF_MEASURED = ("neighbors",)
KEPT_PLOTS = (
    *(f"gradcam_{name}" for name in ("energy", "faithfulness", "groups", "curves", "sanity")),
    "neighbors_share",
)
BORROWED = ("data/raw", "data/splits", "data/prepared", "plots/split", "dvc.yaml", "extras/dvc.yaml", ".dvc/plots")
REMEASURED = (
    "metrics/",
    "plots/",
    "models/calibration.json",
    "models/conformal.json",
    "models/operating_points.json",
    "data/failures",
    "data/extras",
    "report",
)

logger = logging.getLogger(__name__)


def check_same_data(provenance: dict[str, Any]) -> None:
    """Refuse a workspace with other lists or otherwise prepared images than the run was measured on."""
    of_run, facts, prepared = provenance["classifier"], read_split_facts(), read_prepared()
    here = (facts.fingerprint, prepared.size, prepared.fit, prepared.color_constancy)
    if here != tuple(of_run[name] for name in ("fingerprint", "size", "fit", "color_constancy")):
        raise PipelineError(
            f"the workspace's lists or prepared images are not those of {provenance['name']}: take `download`, `split` and "
            f"`prepare` of {RESULTS / provenance['name'] / 'params.yaml'} into params.yaml and run `dvc repro split prepare`"
        )


def merge_params(record: Path) -> dict[str, Any]:
    """The workspace's params with, as the record has them, the sections that are kept and what else is still known."""
    today, recorded = read_params(), read_params(record / PARAMS_FILE)
    for section, values in today.items():
        for key in values:
            if key in recorded.get(section, {}):
                values[key] = recorded[section][key]
    if method := recorded.get("gradcam", {}).get("method"):  # of a record from when there was one, and of test alone
        today["gradcam"] |= {"methods": [method], "split": "test"}
    for section in (*KEPT_SECTIONS, *kept_if_measured(record)):
        if recorded.get(section, {}).keys() != today[section].keys():
            raise PipelineError(f"{record} has other keys in its section `{section}` than today's params: record the run again")
    return today


def kept_if_measured(record: Path) -> list[str]:
    """Those of `KEPT_IF_MEASURED` that the record has."""
    return [name for name in KEPT_IF_MEASURED if (record / "metrics" / f"{name}.json").is_file()]


def lay_out(record: Path, workspace: Path, params: dict[str, Any]) -> None:
    """Lay a workspace in which the stages behind the predictions find what they read."""
    for name in BORROWED:
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).symlink_to(Path(name).resolve())
    (workspace / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n", encoding="utf-8")
    with (workspace / PARAMS_FILE).open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    shutil.copytree(record / "metrics" / "train", workspace / METRICS / "train")
    for name in (*KEPT_METRICS, *kept_if_measured(record)):
        shutil.copyfile(record / "metrics" / f"{name}.json", workspace / METRICS / f"{name}.json")
    # What optional stages found: the record's own comes last and so counts.
    for source, target in (
        *((path, path) for path in (EXTRAS, EXTRA_TABLES, PLOTS / "extras")),
        *((record / "metrics" / "extras", EXTRAS), (record / "extras", EXTRA_TABLES)),
    ):
        if source.is_dir():
            shutil.copytree(source, workspace / target, dirs_exist_ok=True)
    for source in (EXPORT, record / "metrics" / EXPORT.name):
        if source.is_file():
            shutil.copyfile(source, workspace / EXPORT)


def write_configs(provenance: dict[str, Any], params: Params) -> None:
    """`models/classifier` without weights: what the record says of each member, which decides the rest of its config."""
    of_run = provenance["classifier"]
    shared = {name: of_run[name] for name in ("size", "fit", "color_constancy", "fingerprint", "data")}
    shared["images_sha256"] = file_digest(PREPARED / "images.npy", "sha256")
    configs = {member["name"]: describe_member(member, shared, params) for member in of_run["members"]}
    for name, config in configs.items():
        write_json(CLASSIFIER / name / CONFIG_FILE, {"needs_metadata": config.needs_metadata} | asdict(config))
    write_json(CLASSIFIER / ENSEMBLE_FILE, assemble.describe(configs))


def describe_member(member: dict[str, Any], shared: dict[str, Any], params: Params) -> ClassifierConfig:
    """The config of a recorded member, from what the record says of it, what all members share, and the params."""
    name = member["name"].rpartition("-")[0]
    trained = params.member(name)
    mean, std = normalization(member["backbone"])
    recorded = {key: member[key] for key in ("seed", "backbone", "epoch", "weights_sha256", "git_commit", "versions")}
    derived = {"network": asdict(NetworkSpec.of(trained)), "params": trained.model_dump(), "mean": mean, "std": std}
    return ClassifierConfig(member=name, classes=CLASSES, **recorded, **derived, **shared)


def measure_predictions(record: Path, params: Params) -> None:
    """Run `evaluate` from the tables on, with the calibration that gave them."""
    tables = {split: read_predictions(split, record / "predictions") for split in PREDICTED_SPLITS}
    calibrator = fit_calibrator(labels_of(tables["val"]), logits_of(tables["val"]), params.evaluate.calibration)
    for split, table in tables.items():
        check_calibrated(table, calibrator, name=str(record / "predictions" / f"{split}.csv"))
    recorded = read_json(record / "metrics" / "evaluate.json")
    alone = {name: recorded[name] for name in ("members", "spread")}
    train, digest = read_split("train"), recorded.get(CLASSIFIER_SHA256)
    measured = evaluate.measure_and_write(tables, calibrator, train, params.evaluate, alone, classifier=digest)
    check_predictions(measured, record / "predictions")


def drop_outdated_extras() -> None:
    """Leave of the workspace's extras those that are of these images alone."""
    for name, path in found_extras().items():
        content = read_extra(name)
        if content is None or outdated(content):
            path.unlink()


def measure_maps(record: Path) -> None:
    """Sum up the figures of each image's maps anew, where the record has them."""
    if not (record / "maps.csv").is_file():
        return
    path = METRICS / "gradcam.json"
    content = read_json(path)
    summary = summarize_figures(*read_images_table(record / "maps.csv"))
    for name, each in content["faithfulness"]["methods"].items():
        summary["methods"][name] = {key: each[key] for key in ("layers", "zero_maps")} | summary["methods"][name]
    write_json(path, content | {"faithfulness": content["faithfulness"] | summary})


def measure(record: Path, provenance: dict[str, Any]) -> None:
    """Everything behind the predictions, in a workspace that `lay_out` has laid."""
    params = load_params()
    write_configs(provenance, params)
    measure_predictions(record, params)
    drop_outdated_extras()
    for stage in (threshold_sweep, baselines, selective, subgroups, failures):
        stage.main()
    measure_maps(record)
    kept = {name: record / "plots" / f"{name}.svg" for name in KEPT_PLOTS}
    drawn = {name: path for name, path in kept.items() if path.is_file()}
    report = compose(read_inputs(may_lack=KEPT_IF_MEASURED), Plots(drawn=drawn))
    for name, text in (("index.html", render_html(report)), ("report.md", render_markdown(report))):
        path = Path("report") / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def collect(record: Path, folder: Path, provenance: dict[str, Any]) -> None:
    """Put the new record together: from the workspace, which is the working directory, and what it lacks from the old record."""
    shutil.copytree(record / "predictions", folder / "predictions")
    shutil.copyfile(PARAMS_FILE, folder / PARAMS_FILE.name)
    shutil.copytree(METRICS, folder / "metrics")
    shutil.copyfile(FAILURES / "failures.csv", folder / "failures.csv")
    if (record / "maps.csv").is_file():
        shutil.copyfile(record / "maps.csv", folder / "maps.csv")
    shutil.copytree("report", folder / "report")
    extras = list(found_extras())
    copy_extra_tables(extras, folder)
    render_plots(folder / "plots", name=provenance["name"], pictures=False, extras=extras)
    for old in (record / "plots").iterdir():
        if not (folder / "plots" / old.name).exists():
            shutil.copyfile(old, folder / "plots" / old.name)
    kept = {path: md5 for path, md5 in provenance["outs_md5"].items() if not path.startswith(REMEASURED)}
    described = provenance | {"outs_md5": kept, "remeasured": describe_recorder()}
    described.pop("files_sha256")
    write_json(folder / "provenance.json", described | {"files_sha256": file_digests(folder)})


@contextlib.contextmanager
def temporary_workspace(name: str) -> Iterator[Path]:
    """An empty folder below the project, in which git tells the project's commit; removed at the end."""
    workspace = scratch_folder("remeasure").resolve() / name
    shutil.rmtree(workspace, ignore_errors=True)
    (workspace / ".dvc").mkdir(parents=True)
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def remeasure(name: str) -> Path:
    """Measure the record `results/NAME` anew; its folder."""
    record = (RESULTS / name).resolve()
    if not (record / "provenance.json").is_file():
        raise PipelineError(f"{RESULTS / name} is no recorded run: `ls {RESULTS}` lists them")
    provenance = read_json(record / "provenance.json")
    check_digests(record, provenance["files_sha256"])
    check_same_data(provenance)
    params = merge_params(record)
    with temporary_workspace(name) as workspace, atomic_folder(record) as folder:
        lay_out(record, workspace, params)
        partial = folder.resolve()
        with contextlib.chdir(workspace):
            measure(record, provenance)
            collect(record, partial, provenance)
    logger.info("measured %s anew", RESULTS / name)
    return RESULTS / name


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.remeasure", description=__doc__.partition("\n")[0])
    parser.add_argument("name", metavar="NAME", help="folder under results/, as in ham10000-200x150-baseline")
    remeasure(parser.parse_args().name)


if __name__ == "__main__":
    run_stage(main)
