"""Measure the trained classifier, as it is, on images of another source, and put it beside the internal test.

Reads   section `external` of params.yaml, and of `evaluate` how the test images were looked at (`test_time`) and judged
        (`calibration_bins`); data/external; models/classifier, models/calibration.json and models/operating_points.json;
        data/predictions/test.csv; data/raw and data/splits, to prove that no external image is among them
Writes  data/extras/external/predictions.csv (a prediction table, as those of `evaluate`); metrics/extras/external.json;
        plots/extras/external/ (both sets by metric, as CSV)

Nothing is fitted or chosen: temperature and thresholds are those from validation.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.artifacts.paths import PLOTS
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.raw import RAW, list_images, read_metadata
from skinlesion.artifacts.splits import SPLIT_NAMES, read_split
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, write_table
from skinlesion.audits.external import comparison
from skinlesion.audits.external.dataset import EXTERNAL as EXTERNAL_FOLDER
from skinlesion.audits.external.dataset import read_external
from skinlesion.audits.external.overlap import prove_disjoint, read_contents
from skinlesion.audits.findings import write_extra
from skinlesion.base.cores import available_cores
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.devices import choose_device
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.audits import NearCopies
from skinlesion.config.params import load_params
from skinlesion.config.schema import MachineParams, TestTime
from skinlesion.data.preparing import write_prepared
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import predict_ensemble
from skinlesion.evaluation.inference.predictions import check_same_split, prediction_table, vote
from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.metrics.tables import describe_table
from skinlesion.evaluation.results.decisions import read_calibration, read_operating_points
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS, read_predictions
from skinlesion.model.classifier import Classifier, load_ensemble

PREDICTIONS = Path("data/extras/external")
PREDICTION_COLUMNS = (*DESCRIPTIVE_COLUMNS, *LOGIT_COLUMNS, *PROBABILITY_COLUMNS)

logger = logging.getLogger(__name__)


@one_at_a_time("external")
def main() -> None:
    whole = load_params()
    evaluated, how = whole.evaluate, whole.bootstrap
    keep_freed_memory()
    metadata, provenance = read_external()
    splits = {name: read_split(name) for name in SPLIT_NAMES}
    members = load_ensemble()
    check_same_split(splits, members)
    proof = prove_external(metadata, splits, whole.external.near_copies)

    calibrator = Calibrator.of(read_calibration())
    table = predict_external(metadata, members, calibrator, whole.machine, evaluated.test_time)
    tables = {comparison.EXTERNAL: table, comparison.TEST: read_predictions("test")}
    compared, absent = comparison.compare_headline(tables, how), comparison.absent_classes(tables)
    points = comparison.compare_points(tables, read_operating_points(), how)
    with atomic_folder(PLOTS / "extras" / "external") as folder:
        for name, frame in comparison.plot_tables(compared, points).items():
            write_table(frame, folder / f"{name}.csv", comparison.PLOT_COLUMNS)

    described = {name: describe_table(each, calibrator, evaluated.calibration_bins) for name, each in tables.items()}
    content = {
        "data": {name: provenance[name] for name in ("source", "synthetic", "origin", "licence", "lesions_known", "left_out")},
        "proof": proof,
        "test_time": evaluated.test_time,
        "calibration": calibrator.method,
        "bootstrap": describe_draws(how) | {"unit_external": "lesion" if provenance["lesions_known"] else "image"},
        "absent_classes": absent,
        "challenge": {
            "metric": comparison.CHALLENGE,
            "classes": {name: len(CLASSES) - len(missing) for name, missing in absent.items()},
            **{name: values[comparison.CHALLENGE_METRIC] for name, values in compared.items()},
        },
        **described,
        "compared": compared,
        "operating_points": points,
    }
    write_extra("external", content, of=["predictions"])
    say(content)


def prove_external(metadata: pd.DataFrame, splits: dict[str, pd.DataFrame], near_copies: NearCopies) -> dict[str, Any]:
    """The proof that no external image is in data/raw, by ids and by content."""
    lists = pd.concat([split.assign(list=name) for name, split in splits.items()])
    theirs = read_contents(metadata["image_id"], EXTERNAL_FOLDER, workers=available_cores())
    ours = read_contents(list_images(), RAW, workers=available_cores())
    return prove_disjoint(metadata, read_metadata(), lists, (theirs, ours), near_copies=near_copies)


def predict_external(
    metadata: pd.DataFrame, members: dict[str, Classifier], calibrator: Calibrator, machine: MachineParams, test_time: TestTime
) -> pd.DataFrame:
    """Prepare the images in the classifier's way, predict them, and write and return the prediction table."""
    config = next(iter(members.values())).config
    way: dict[str, Any] = {"size": config.size, "fit": config.fit, "color_constancy": config.color_constancy}
    with atomic_folder(PREDICTIONS) as folder:
        # Beside the table for as long as it takes, because there is room for such an array where the data lies.
        prepared = folder / "prepared"
        write_prepared(list(metadata["image_id"]), **way, workers=available_cores(), raw=EXTERNAL_FOLDER, folder=prepared)
        device, batch = choose_device(machine.device), machine.batch_size
        options: dict[str, Any] = {"device": device, "batch_size": batch, "test_time": test_time}
        predicted = predict_ensemble(members, read_prepared(prepared), metadata, **options)
        shutil.rmtree(prepared)
        table = prediction_table(metadata, vote(predicted, test_time), calibrator)
        write_table(table, folder / "predictions.csv", PREDICTION_COLUMNS)
    return table


def say(content: dict[str, Any]) -> None:
    """The headline, on the log."""
    proof = content["proof"]
    logger.info("none of %d external images is among %d", proof["external"]["images"], proof["internal"]["images"])
    for name in (comparison.EXTERNAL, comparison.TEST):
        if missing := content["absent_classes"][name]:
            logger.warning("%s has no image of %s: means over classes run over the others", name, ", ".join(missing))
    for metric in ("balanced_accuracy", "macro_auc", "mel_sensitivity"):
        shown = [content["compared"][name][metric] for name in (comparison.EXTERNAL, comparison.TEST, "difference")]
        line = "%s: external %.3f (%.3f to %.3f), test %.3f (%.3f to %.3f), difference %+.3f (%+.3f to %+.3f)"
        logger.info(line, metric, *(value for each in shown for value in each.values()))


if __name__ == "__main__":
    run_stage(main)
