"""Export the classifier to ONNX, in float32 and in int8, and measure what that costs in accuracy and gains in speed and size.

Reads   params `export`, of `evaluate` calibration_bins; models/classifier, calibration.json and operating_points.json;
        data/prepared; data/splits/val.csv; data/predictions/test.csv
Writes  models/export/ (a folder a member with model.onnx and model-int8.onnx; export.json, for `export.onnx_network`);
        metrics/export.json (parity of both with torch on the test list, metrics of int8 and their paired difference from torch's,
        bytes, and time of a call on this machine)

Torch's side of the comparison are the predictions of `evaluate`. Nothing is chosen here: int8 takes the ranges of activations
from images of validation, calibration and thresholds are those of the main pipeline. An export whose float32 graph does not give
torch's probabilities is refused and leaves nothing behind.
"""

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.audits.findings import write_extra
from skinlesion.audits.robustness.measures import SUMMARY, measure_table
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, file_digest, write_json
from skinlesion.base.locks import one_at_a_time
from skinlesion.config.contents import OperatingPoints
from skinlesion.config.params import load_params
from skinlesion.config.schema import BootstrapParams
from skinlesion.config.serving import ExportParams
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.decisions import CLASSIFIER_SHA256, read_calibration, read_operating_points
from skinlesion.evaluation.results.predictions import read_predictions
from skinlesion.model.classifier import WEIGHTS_FILE, Classifier, load_ensemble
from skinlesion.serving.export.onnx_export import OPSET, export_network, quantize_network
from skinlesion.serving.export.onnx_network import EXPORT, EXPORT_FILE, MODEL_FILES, PRECISIONS, load_onnx_ensemble
from skinlesion.serving.export.parity import check_parity, describe_parity, graph_inputs, predict_table
from skinlesion.serving.export.timing import measure_speed

LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime")

logger = logging.getLogger(__name__)


def export_member(classifier: Classifier, folder: Path, calibration: pd.DataFrame, params: ExportParams) -> dict[str, Any]:
    """Write the graphs of a member; what export.json says of it.

    calibration : rows of the validation list.
    """
    name = classifier.config.name
    weights = CLASSIFIER / name / WEIGHTS_FILE
    digest = file_digest(weights, "sha256")
    paths = {precision: folder / name / MODEL_FILES[precision] for precision in PRECISIONS}
    (folder / name).mkdir()
    logger.info("exporting %s (%s)", name, classifier.config.backbone)
    export_network(classifier, paths["float32"], weights_sha256=digest)
    batches = graph_inputs(classifier.config, read_prepared(), calibration, params.batch_size)
    layers = params.float32_layers
    quantize_network(paths["float32"], paths["int8"], batches, name=name, float32_layers=layers, weights_sha256=digest)
    files = {each: {"bytes": path.stat().st_size, "sha256": file_digest(path, "sha256")} for each, path in paths.items()}
    return {"weights_sha256": digest, "weights_bytes": weights.stat().st_size, "files": files}


def compare(tables: dict[str, pd.DataFrame], points: OperatingPoints, how: BootstrapParams, *, bins: int) -> dict[str, Any]:
    """Metrics and the rates of the operating points (`sensitivity@youden`) of `torch` and `int8`, and the paired `difference`.

    Each has a `value` and, from the bootstrap over lesions, `low` and `high`; the difference is int8 less torch.
    """
    measured = {name: measure_table(table, points, how, bins=bins) for name, table in tables.items()}
    measured["difference"] = measured["int8"].less(measured["torch"])
    return {name: each.with_intervals(how.confidence) for name, each in measured.items()}


@one_at_a_time("export")
def main() -> None:
    whole = load_params()
    params = whole.export
    keep_freed_memory()
    calibration, points = read_calibration(), read_operating_points()
    test, val = read_predictions("test"), read_split("val")
    members, prepared, test_time = load_ensemble(), read_prepared(), calibration.test_time
    chosen = val.sample(min(params.calibration_images, len(val)), random_state=params.seed)
    with atomic_folder(EXPORT) as folder:
        described: dict[str, Any] = {
            "opset": OPSET,
            "versions": {name: version(name) for name in LIBRARIES},
            "int8": {"calibrated_on": "val", "calibration_images": len(chosen), "float32_layers": params.float32_layers},
            "members": {name: export_member(classifier, folder, chosen, params) for name, classifier in members.items()},
        }
        write_json(folder / EXPORT_FILE, described)
        exported: dict[str, Any] = {precision: load_onnx_ensemble(folder, precision) for precision in PRECISIONS}
        options: dict[str, Any] = {"prepared": prepared, "calibrator": Calibrator.of(calibration)}
        options |= {"test_time": test_time, "batch_size": params.batch_size}
        tables = {precision: predict_table(each, listed=test, **options) for precision, each in exported.items()}
        parity = {precision: describe_parity(table, test, points) for precision, table in tables.items()}
        check_parity(parity["float32"], members, test, **options)
        for classifier in members.values():
            # As `evaluate` runs it; the stubs of torch lack the option.
            classifier.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        speed = measure_speed({"torch": members, **exported}, test, params, test_time=test_time)
        compared = compare({"torch": test, "int8": tables["int8"]}, points, whole.bootstrap, bins=whole.evaluate.calibration_bins)
    files = described["members"].values()
    graphs: dict[str, int] = {name: sum(each["files"][name]["bytes"] for each in files) for name in PRECISIONS}
    content = {
        CLASSIFIER_SHA256: classifier_digest(),
        "thresholds": {name: point.threshold for name, point in points.points.items()},
        "split": "test",
        "images": len(test),
        "lesions": int(test["lesion_id"].nunique()),
        "side": prepared.size,
        "test_time": test_time,
        **{name: described[name] for name in ("opset", "versions", "int8")},
        "backbones": {name: classifier.config.backbone for name, classifier in members.items()},
        "bytes": {"torch": sum(each["weights_bytes"] for each in files), **graphs},
        "parity": parity,
        "bootstrap": describe_draws(whole.bootstrap),
        "compared": compared,
        "speed": speed,
    }
    write_extra("export", content, of=["predictions"])
    log(content)


def log(content: dict[str, Any]) -> None:
    """Say what was found."""
    for name, each in content["parity"].items():
        found = (name, each["largest_difference"], 100 * each["same_diagnosis"], content["bytes"][name] / 1e6)
        logger.info("%s: probabilities differ by %.2g at most, same diagnosis for %.1f %% of the images, %.1f MB", *found)
    for name in SUMMARY:
        int8, apart = (content["compared"][which][name] for which in ("int8", "difference"))
        logger.info("int8 %s %.3f, less torch %+.3f (%+.3f to %+.3f)", name, int8["value"], *apart.values())
    for batch, engines in content["speed"]["batches"].items():
        times = ", ".join(f"{name} {each['p50_ms']:.1f} ms ({each['times_torch']:.1f} x)" for name, each in engines.items())
        logger.info("%s image(s) a call: %s", batch, times)


if __name__ == "__main__":
    run_stage(main)
