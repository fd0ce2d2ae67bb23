"""The API under load: `python -m benchmarks.serving`, after `make run`.

Starts the API for each engine, sends it single JPEGs from several clients, each the next when it has the answer to the last, and
says images per second, how long answers took (median and 95th percentile), how many requests failed, and the server's memory at
the beginning, in the middle and at the end. With several rounds the engines alternate, there and back. Ends with exit code 1
where a request failed, or memory grew by more than 5 % in the second half of a round.

What is served is the workspace's classifier, or with --backbone a network of random weights, where no answer is worth anything
and the network is the work. JPEGs are synthetic, 600 x 450 pixels like HAM10000's. Server and clients share the machine's cores;
`client` is the clients' part of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Timer
from typing import Any

import pandas as pd
import torch

from benchmarks.explanations import make_config
from benchmarks.http_load import Load, load_server, make_request
from benchmarks.training import AS_PLAIN, positive
from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.raw import RAW, image_path, list_images
from skinlesion.base.cores import available_cores
from skinlesion.base.devices import cpu_model
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
WARM_UP_SECONDS = 15.0  # until batches of every size have had their memory
START_SECONDS = 120
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """An API that runs, and what was measured of it, a value a round."""

    process: subprocess.Popen[bytes]
    port: int
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def memory(self) -> float:
        """Resident memory, MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024 / 1e6

    def cpu(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def serve(root: Path, engine: str, log: Path) -> Iterator[Server]:
    """Serve a workspace by an engine until the block ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SKINLESION_")}
    settings = {"ROOT": root.resolve(), "ENGINE": engine, "DEVICE": "cpu", "PORT": 0, "RATE_LIMIT": 0, "DRAIN_SECONDS": 0}
    environment |= {f"SKINLESION_{name}": str(value) for name, value in settings.items()}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield Server(process, wait_until_ready(process, log))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port, once requests are answered.

    Raises
    ------
    PipelineError
        The API ended, or was not ready in time; with the end of its log.
    """
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        if found := re.search(r"at http://127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8")):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/ready", timeout=10):
                    return int(found[1])
            except urllib.error.URLError:
                pass  # not yet
        time.sleep(0.1)
    raise PipelineError(f"the API did not start: {log.read_text(encoding='utf-8').strip()[-1000:]}")


def measure(server: Server, requests: list[bytes], *, clients: int, seconds: float) -> dict[str, Any]:
    """Load a server for a time."""
    memory = {"start": server.memory()}
    middle = Timer(seconds / 2, lambda: memory.update(middle=server.memory()))
    middle.start()
    cpu = server.cpu()
    load: Load = load_server(server.port, requests, clients=clients, seconds=seconds)
    middle.join()
    cores = load.seconds * available_cores()
    return {
        "images": len(load.latencies),
        "images_per_second": len(load.latencies) / load.seconds,
        "p50_ms": 1000 * load.quantile(0.5),
        "p95_ms": 1000 * load.quantile(0.95),
        "errors": load.errors,
        "error_rate": load.errors / max(1, load.errors + len(load.latencies)),
        "server_cpu_share": (server.cpu() - cpu) / cores,
        "client_cpu_share": load.client_cpu / cores,
        "memory_mb": memory | {"end": server.memory()},
    }


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
    points = whose | {
        "target": "mel",
        "classes": ["mel"],
        "score": "sum",
        "rule": "at least",
        "chosen_on": "val",
        "points": {"half": point},
    }
    write_operating_points(points, root / OPERATING_POINTS)


def export_workspace(root: Path, images: list[Path], size: int) -> None:
    """Export the network of `build_workspace` as the extra `export` does, with ranges of activations from these JPEGs."""
    # Only for who asks for these engines: both take seconds to import.
    from extras.export import export_member
    from skinlesion.serving.export.onnx_network import EXPORT, EXPORT_FILE

    params = load_params().export
    raw = root / RAW / "images"
    raw.mkdir(parents=True)
    for path in images:
        shutil.copy(path, raw)
    listed = pd.DataFrame({"image_id": [path.stem for path in images]})
    options: dict[str, Any] = {"size": size, "fit": "squash", "color_constancy": "none", "workers": available_cores()}
    with contextlib.chdir(root):
        write_prepared(list(listed["image_id"]), **options)
        with atomic_folder(EXPORT) as folder:
            members = {name: export_member(each, folder, listed, params) for name, each in load_ensemble().items()}
            write_json(folder / EXPORT_FILE, {"members": members})


def draw_requests(folder: Path) -> list[bytes]:
    """Requests with a JPEG each."""
    folder.mkdir()
    draw_sample(folder, seed=0, lesions=LESIONS, width=600, height=450)
    return [make_request(path.read_bytes()) for path in list_jpegs(folder)]


def list_jpegs(folder: Path) -> list[Path]:
    """The drawn JPEGs."""
    return [image_path(name, folder) for name in list_images(folder)]


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
        ratios = [ratio(a["images_per_second"], b["images_per_second"]) for a, b in zip(found, first, strict=True)]
        summary[engine] = values | {"to_first": median(ratios)}
    return summary


def ratio(value: float, first: float) -> float:
    """One over the other; NaN where the first engine answered nothing."""
    return value / first if first else float("nan")


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
    facts = {
        "machine": cpu_model(),
        "cores": available_cores(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "classifier": f"{options.backbone}, {options.size} px, random weights" if options.backbone else "of the workspace",
        "clients": options.clients,
        "seconds": options.seconds,
        "rounds": options.rounds,
    }
    sys.stdout.write(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items()) + "\n")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, root = Path(name), options.workspace
        requests = draw_requests(folder / "raw")
        if options.backbone:
            root = folder / "workspace"
            build_workspace(root, options.backbone, options.size)
            if set(options.engines) != {"torch"}:
                export_workspace(root, list_jpegs(folder / "raw"), options.size)
        servers = {engine: stack.enter_context(serve(root, engine, folder / f"{engine}.log")) for engine in options.engines}
        for server in servers.values():
            load_server(server.port, requests, clients=options.clients, seconds=WARM_UP_SECONDS)
        for number in range(options.rounds):
            # There and back, so that a machine that grows slower or faster is so for all.
            for engine in options.engines if number % 2 == 0 else reversed(options.engines):
                found = measure(servers[engine], requests, clients=options.clients, seconds=options.seconds)
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
