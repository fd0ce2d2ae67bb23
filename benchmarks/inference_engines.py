"""Images per second of the engines that a classifier can run on: `python -m benchmarks.inference_engines`.

torch    eager, as `evaluate` runs it: channels last in memory, in inference mode
float32  the ONNX graph of the extra `export` in ONNX Runtime
int8     the same, quantised with the `export` section of params.yaml; its ranges are taken from the images below

All three predict the same prepared images, uint8, through `inference.predict_batch`, so normalisation is in the times,
on as many threads. The networks have random weights, which change neither the work nor its time. That float32 gives torch's
logits is checked first, to 1e-4 of the largest. Rounds alternate there and back, an image and then a batch a call; ratios are
taken within a round. Not in the times: loading, export, and a warm-up of all. On a machine that does other work besides, torch,
whose threads wait for each other in every layer, loses most, and the ratios flatter ONNX Runtime: look at `load before`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.explanations import make_config, quartiles
from benchmarks.stage_loop import draw_images, read_images
from benchmarks.training import AS_PLAIN, positive
from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.base.cores import available_cores
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.devices import cpu_model
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import write_json
from skinlesion.config.params import ExportParams, load_params
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import Network, predict_batch
from skinlesion.model.classifier import Classifier, ClassifierConfig
from skinlesion.model.network import NetworkSpec, build_network
from skinlesion.serving.export.onnx_export import export_network, quantize_network
from skinlesion.serving.export.onnx_network import OnnxNetwork
from skinlesion.serving.export.parity import graph_inputs
from skinlesion.serving.export.timing import Engine, describe_seconds, seconds_of_calls

NETWORKS = ("resnet18:64", "mobilenet_v2:144", "resnet50:224")
LESIONS = 48  # about 64 images
TOLERANCE = 1e-4  # of the largest logit


def network_and_side(text: str) -> tuple[str, int]:
    """`resnet18:64`."""
    backbone, _, side = text.partition(":")
    if not backbone or not side.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a torchvision name, a colon and pixels, as resnet18:64, not '{text}'")
    return backbone, positive(side)


def engine(network: Network, config: ClassifierConfig) -> Engine:
    """One call of a network with a batch of uint8 images."""
    return lambda images: predict_batch(network, config, images, None, test_time="none")


def build_engines(
    classifier: Classifier, images: PreparedImages, listed: Any, folder: Path, params: ExportParams
) -> dict[str, Engine]:
    """The three engines, exported to `folder`; PipelineError where float32 does not give torch's logits."""
    model, config = classifier
    plain, small = folder / "model.onnx", folder / "model-int8.onnx"
    export_network(classifier, plain, weights_sha256="")
    calibration = graph_inputs(config, images, listed, params.batch_size)
    how = {"name": config.name, "float32_layers": params.float32_layers, "weights_sha256": ""}
    quantize_network(plain, small, calibration, **how)
    torchs: Network = model.to(memory_format=torch.channels_last)
    graphs = {
        name: OnnxNetwork(path, threads=torch.get_num_threads()) for name, path in {"float32": plain, "int8": small}.items()
    }
    engines = {name: engine(network, config) for name, network in {"torch": torchs, **graphs}.items()}
    few = torch.from_numpy(np.array(images.images[:8]))
    expected, found = (engines[name](few).logits for name in ("torch", "float32"))
    apart = float(np.abs(found - expected).max() / np.abs(expected).max())
    if apart > TOLERANCE:
        raise PipelineError(f"{config.backbone}: logits differ by {apart:.1e} of the largest, above {TOLERANCE:.0e}")
    return engines


def benchmark(engines: dict[str, Engine], images: torch.Tensor, *, rounds: int) -> dict[str, Any]:
    """What each engine takes a call, and its images per second as a multiple of torch's within a round."""
    seconds = seconds_of_calls(engines, images, rounds=rounds)
    return {
        name: describe_seconds(values, images=len(images)) | {"times_torch": quartiles(seconds["torch"], values)}
        for name, values in seconds.items()
    }


def describe(network: str, batch: int, found: dict[str, Any]) -> str:
    """A line for people."""
    parts = [f"{network:<16} {batch:>3} a call"]
    for name, each in found.items():
        ratio = "" if name == "torch" else f" = {each['times_torch']['median']:.2f} x ({each['times_torch']['low']:.2f} to "
        ratio += "" if name == "torch" else f"{each['times_torch']['high']:.2f})"
        parts.append(f"{name} {each['images_per_second']:7.1f}/s, p95 {each['p95_ms']:6.1f} ms{ratio}")
    return "  ".join(parts)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference_engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    default = [network_and_side(text) for text in NETWORKS]
    add(
        "--networks", nargs="+", type=network_and_side, default=default, help=f"with their pixels (default: {' '.join(NETWORKS)})"
    )
    add("--batch", type=positive, default=16, help="images a call besides one (default: %(default)s)")
    add("--lesions", type=positive, default=LESIONS, help="of the sample, about 1.3 images each (default: %(default)s)")
    add("--threads", type=positive, default=available_cores(), help="of each engine (default: %(default)s)")
    add("--rounds", type=positive, default=30, help="(default: %(default)s)")
    add("--json", type=Path, metavar="PATH", help="write the figures there")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    whole = load_params()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    facts = {
        "machine": cpu_model(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "rounds": options.rounds,
        "float32_layers": whole.export.float32_layers,
    }
    sys.stdout.write(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()) + "\n")
    results: dict[str, dict[str, Any]] = {}
    for backbone, side in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            draw_images(Path(folder), size=side, lesions=options.lesions)
            images = read_images(Path(folder))
            config = make_config(whole.train.model_copy(update={**AS_PLAIN, "backbone": backbone}), size=side)
            torch.manual_seed(0)
            model = build_network(NetworkSpec(**config.network), num_classes=len(CLASSES), size=side).eval()
            engines = build_engines(Classifier(model, config), images.prepared, images.listed, Path(folder), whole.export)
            pixels = torch.from_numpy(np.array(images.prepared.images))
            for batch in sorted({1, min(options.batch, len(pixels))}):
                found = benchmark(engines, pixels[:batch], rounds=options.rounds)
                results.setdefault(f"{backbone}:{side}", {})[str(batch)] = found
                sys.stdout.write(describe(f"{backbone}:{side}", batch, found) + "\n")
                sys.stdout.flush()
    sys.stdout.write("medians of the rounds, in brackets the quartiles; wanted: at least 2 of float32 or int8\n")
    if options.json is not None:
        write_json(options.json, facts | {"networks": results})


if __name__ == "__main__":
    run_stage(main)
