"""The API under load: `python -m benchmarks.serving`, after `make run`.

Starts the API for each engine, has Locust (in requirements/dev.txt) send it single JPEGs from several clients, and prints images
per second, how long answers took (median and 95th percentile, which Locust rounds to two digits), how many requests failed, and
the server's memory at the beginning, in the middle and at the end. With several rounds the engines alternate, there and back.
Ends with exit code 1 where a request failed, or memory grew by more than 5 % in the second half of a round.

What is served is the workspace's classifier, or with --backbone a network of random weights, where no answer is worth anything
and the network is the work. JPEGs are synthetic, 600 x 450 pixels like HAM10000's. Server and clients share the machine's cores;
`client` is Locust's part of them, with its start.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from threading import Timer
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from benchmarks.api_server import Server, serve
from benchmarks.explanations import make_config
from benchmarks.timing import describe_machine, print_facts
from benchmarks.training import AS_PLAIN, positive
from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.raw import RAW, list_images
from skinlesion.base.cores import available_cores
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_folder, write_json
from skinlesion.config.params import load_params
from skinlesion.data.preparing import write_prepared
from skinlesion.data.sample.sample import draw_sample
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.evaluation.results.decisions import CALIBRATION, OPERATING_POINTS, write_calibration, write_operating_points
from skinlesion.model.classifier import load_ensemble, save_classifier
from skinlesion.model.network import NetworkSpec, build_network
from skinlesion.serving.engines import ENGINES

MORE_MEMORY = 1.05  # times that of a round's middle, at its end: more is a leak
LESIONS = 24  # about 32 images
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
WARM_UP_SECONDS = 15  # until batches of every size have had their memory
STOP_SECONDS = 30  # for the answers to the last requests


def load_server(port: int, images: Path, *, clients: int, seconds: int) -> dict[str, float]:
    """What Locust counts while its clients send the JPEGs of a folder to a server; times are of all requests.

    Raises
    ------
    PipelineError
        Locust ended with an error, or sent nothing.
    """
    options = {"locustfile": LOCUSTFILE, "host": f"http://127.0.0.1:{port}", "users": clients, "spawn-rate": clients}
    options |= {"run-time": f"{seconds}s", "stop-timeout": STOP_SECONDS, "exit-code-on-error": 0}
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "locust", "--headless", "--json", "--skip-log", *words]
    ended = subprocess.run(command, env=os.environ | {"IMAGES": str(images)}, capture_output=True, text=True, check=False)
    if ended.returncode or not (counted := json.loads(ended.stdout)):
        stderr = ended.stderr.strip()[-1000:]
        raise PipelineError(f"Locust (pip install -r requirements/dev.txt) ended with {ended.returncode} and no result: {stderr}")
    [found] = counted
    taken = np.repeat([float(each) for each in found["response_times"]], list(found["response_times"].values()))
    answered = found["num_requests"] - found["num_failures"]
    return {
        "images": answered,
        "images_per_second": answered / (found["last_request_timestamp"] - found["start_time"]),
        "p50_ms": float(np.quantile(taken, 0.5)),
        "p95_ms": float(np.quantile(taken, 0.95)),
        "errors": found["num_failures"],
        "error_rate": found["num_failures"] / found["num_requests"],
    }


def measure(server: Server, images: Path, *, clients: int, seconds: int) -> dict[str, Any]:
    """Load a server for a time."""
    memory = {"start": server.memory()}
    middle = Timer(seconds / 2, lambda: memory.update(middle=server.memory()))
    middle.start()
    before, started = (server.cpu(), children_cpu()), time.perf_counter()
    load = load_server(server.port, images, clients=clients, seconds=seconds)
    middle.join()
    cores = (time.perf_counter() - started) * available_cores()
    shares = {"server_cpu_share": (server.cpu() - before[0]) / cores, "client_cpu_share": (children_cpu() - before[1]) / cores}
    return load | shares | {"memory_mb": memory | {"end": server.memory()}}


def children_cpu() -> float:
    """Processor seconds of the processes that were started here and have ended."""
    return float(sum(psutil.Process().cpu_times()[2:4]))


def build_workspace(root: Path, backbone: str, size: int) -> None:
    """A workspace with a network of random weights, as far as the API reads it."""
    params = load_params().train.model_copy(update=AS_PLAIN | {"backbone": backbone})
    config = make_config(params, size=size)
    torch.manual_seed(0)
    network = build_network(NetworkSpec(**config.network), num_classes=len(CLASSES), size=size)
    save_classifier(network.state_dict(), config, root / CLASSIFIER / config.name)
    write_json(root / CLASSIFIER / "ensemble.json", {"members": [{"name": config.name}]})
    whose = {"classifier_sha256": classifier_digest(root / CLASSIFIER)}
    calibration = whose | {"method": "temperature", "scale": [1.0] * 7, "bias": [0.0] * 7, "fitted_on": "val", "temperature": 1.0}
    write_calibration(calibration | {"test_time": "none"}, root / CALIBRATION)
    point = {"threshold": 0.5, "val": {"sensitivity": None, "specificity": None}}
    points = whose | {"target": "mel", "classes": ["mel"], "score": "sum", "rule": "at least", "chosen_on": "val"}
    write_operating_points(points | {"points": {"half": point}}, root / OPERATING_POINTS)


def export_workspace(root: Path, images: Path, size: int) -> None:
    """Export the network of `build_workspace` as the extra `export` does, with ranges of activations from these JPEGs."""
    # Only where these engines are asked for: both take seconds to import.
    from extras.export import export_member
    from skinlesion.serving.export.onnx_network import EXPORT, EXPORT_FILE

    params = load_params().export
    shutil.copytree(images, root / RAW / "images")
    listed = pd.DataFrame({"image_id": list_images(root / RAW)})
    options: dict[str, Any] = {"size": size, "fit": "squash", "color_constancy": "none", "workers": available_cores()}
    with contextlib.chdir(root):
        write_prepared(list(listed["image_id"]), **options)
        with atomic_folder(EXPORT) as folder:
            members = {name: export_member(each, folder, listed, params) for name, each in load_ensemble().items()}
            write_json(folder / EXPORT_FILE, {"members": members})


def describe(engine: str, found: dict[str, Any]) -> str:
    """A line for people."""
    memory = found["memory_mb"]
    sizes = ", ".join(f"{memory[moment]:.0f}" for moment in ("start", "middle", "end"))
    return (
        f"{engine:<10} {found['images_per_second']:6.1f} images/s  p50 {found['p50_ms']:6.1f} ms  p95 {found['p95_ms']:6.1f} ms  "
        f"errors {100 * found['error_rate']:.2f} %  cpu: server {100 * found['server_cpu_share']:.0f} %, "
        f"client {100 * found['client_cpu_share']:.0f} %  memory {sizes} MB"
    )


def summarize(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Medians of the rounds of each engine, and its images per second over those of the first engine, within a round."""
    first = next(iter(rounds.values()))
    summary = {}
    for engine, found in rounds.items():
        values = {name: median(each[name] for each in found) for name in ("images_per_second", "p50_ms", "p95_ms")}
        speeds = [(each["images_per_second"], other["images_per_second"]) for each, other in zip(found, first, strict=True)]
        summary[engine] = values | {"to_first": median(speed / other if other else float("nan") for speed, other in speeds)}
    return summary


def check(rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Look for what no benchmark should pass over.

    Raises
    ------
    PipelineError
        Requests failed, or an engine's memory grew by more than `MORE_MEMORY` from the middle of a round to its end.
    """
    for engine, found in rounds.items():
        failed, asked = sum(each["errors"] for each in found), sum(each["errors"] + each["images"] for each in found)
        if failed or not asked:
            raise PipelineError(f"{engine}: {failed} of {asked} requests failed: send fewer at a time (--clients)")
        for number, each in enumerate(found, 1):
            middle, end = each["memory_mb"]["middle"], each["memory_mb"]["end"]
            if end > MORE_MEMORY * middle:
                raise PipelineError(
                    f"{engine}: memory grew from {middle:.0f} to {end:.0f} MB in the second half of round {number}: "
                    "measure longer (--seconds), and look for what is kept if it goes on"
                )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--engines", nargs="+", choices=ENGINES, default=["torch"], help="the last two need the extra `export` (default: torch)")
    add("--workspace", type=Path, default=Path(), help="where models/ is (default: here)")
    add("--backbone", help="serve a network of this name, torchvision's, with random weights, in place of the workspace's")
    add("--size", type=positive, default=224, help="its input, pixels (default: %(default)s)")
    add("--clients", type=positive, default=16, help="(default: %(default)s)")
    add("--seconds", type=positive, default=60, help="a round and engine (default: %(default)s)")
    add("--rounds", type=positive, default=1, help="(default: %(default)s)")
    add("--json", type=Path, metavar="PATH", help="write every value of every round there")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    facts = describe_machine(torch.device("cpu")) | {
        "cores": available_cores(),
        "classifier": f"{options.backbone}, {options.size} px, random weights" if options.backbone else "of the workspace",
        "clients": options.clients,
        "seconds": options.seconds,
        "rounds": options.rounds,
    }
    print_facts(facts)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, root = Path(name), options.workspace
        images = folder / "raw" / "images"
        images.parent.mkdir()
        draw_sample(images.parent, seed=0, lesions=LESIONS, width=600, height=450)
        if options.backbone:
            root = folder / "workspace"
            build_workspace(root, options.backbone, options.size)
            if set(options.engines) != {"torch"}:
                export_workspace(root, images, options.size)
        settings = {"device": "cpu", "rate_limit": 0}
        servers = {
            engine: stack.enter_context(serve(root, folder / f"{engine}.log", engine=engine, **settings))
            for engine in options.engines
        }
        for server in servers.values():
            load_server(server.port, images, clients=options.clients, seconds=WARM_UP_SECONDS)
        for number in range(options.rounds):
            # There and back, so that a machine that grows slower or faster is so for all.
            for engine in options.engines if number % 2 == 0 else reversed(options.engines):
                found = measure(servers[engine], images, clients=options.clients, seconds=options.seconds)
                servers[engine].rounds.append(found)
                sys.stdout.write(describe(engine, found) + "\n")
                sys.stdout.flush()
    rounds = {engine: server.rounds for engine, server in servers.items()}
    summary = summarize(rounds)
    for engine, values in summary.items():
        sys.stdout.write(f"{engine}: {values['to_first']:.2f} times the images/s of {options.engines[0]}\n")
    if options.json is not None:
        write_json(options.json, facts | {"summary": summary, "engines": rounds})
    check(rounds)


if __name__ == "__main__":
    run_stage(main)
