"""Training images per second, ours against the loop that most public scripts have: `python -m benchmarks.training`.

ours   the training that the `train` stage builds, from the prepared uint8 array: preset light, channels_last, with
       train.precision=auto; then with train.compile=true besides; --settings names others
plain  each JPEG opened, decoded and resized each epoch (Pillow), the same augmentation on the picture, float32,
       contiguous, AdamW, cross-entropy

Both have the same backbone from random weights, images, image size, batch, loading processes and threads, and each runs in a
process of its own. JPEGs are synthetic, 600 x 450 pixels like HAM10000's, a few dozen that repeat. Besides end to end, the
step is measured alone on one batch, and loading without a step. Rounds alternate; ratios are taken within a round. Not in
the times: start of the processes, warm-up, compilation (a minute or more before the first step of a training), preparation.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import contestant, timing
from benchmarks.contestant import Contestant
from benchmarks.plain_loop import PlainLoop, decoding_loader, usual_transform
from benchmarks.stage_loop import StageLoop, draw_images, read_images
from benchmarks.timing import describe_machine, print_facts
from skinlesion.base.devices import choose_device
from skinlesion.base.errors import run_stage
from skinlesion.base.files import write_json
from skinlesion.config.augmentation import AugmentationParams
from skinlesion.config.params import load_params
from skinlesion.config.schema import MachineParams
from skinlesion.config.training import TrainParams
from skinlesion.training import loading
from skinlesion.training.augmentation.presets import resolve

logger = logging.getLogger(__name__)

BACKBONES = ("resnet50", "mobilenet_v2", "efficientnet_b0")
# Of ours by name: train.precision and train.compile.
SETTINGS = {
    f"{precision}-compiled" if compiled else precision: (precision, compiled)
    for precision in ("auto", "32", "bf16")
    for compiled in (False, True)
}
DEFAULT_SETTINGS = ("auto", "auto-compiled")
PLAIN = "plain"
LESIONS = 36  # about 48 images
BATCHES_A_WORKER = 16  # of loading alone, at least
STEPS = {"cpu": 2, "cuda": 200}  # about an epoch of HAM10000 where that takes seconds
LIGHT = AugmentationParams.model_validate(dict.fromkeys(AugmentationParams.model_fields) | {"preset": "light"})
# What the plain loop lacks is off, whatever params.yaml says; the rest is taken from its section `train`.
AS_PLAIN = {
    "weights": "none",
    "head": "linear",
    "dropout": None,
    "dropout_samples": 1,
    "attention": "none",
    "metadata": False,
    "accumulate": 1,
    "freeze_epochs": 0,
    "optimizer": "adamw",
    "layer_decay": 1.0,
    "sam_rho": 0.0,
    "clip_norm": None,
    "average": "none",
    "loss": "cross_entropy",
    "sampler": "shuffle",
    "one_view_per_lesion": False,
    "augmentation": LIGHT,
}
MACHINE_AS_PLAIN = {"devices": 1, "num_nodes": 1, "channels_last": True}


@dataclass
class Speeds:
    """Images per second of one way to train, a value a round: end to end, of loading alone, and (of ours) of the step alone."""

    precision: str
    compiled: bool = False
    end_to_end: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)


def build_plain(folder: Path, images: int, machine: MachineParams, params: TrainParams) -> PlainLoop:
    """The plain loop over a list of `images` images, those of the folder again and again."""
    device, listed = choose_device(machine.device), read_images(folder).repeated(images)
    size = listed.prepared.size
    loader = decoding_loader(
        listed.paths,
        listed.labels(),
        usual_transform(resolve(params.augmentation), size=size, backbone=params.backbone),
        batch_size=params.batch_size,
        pin_memory=device.type == "cuda",
    )
    return PlainLoop.over(loader, backbone=params.backbone, size=size, device=device)


def build_ours(folder: Path, images: int, machine: MachineParams, params: TrainParams) -> StageLoop:
    """The stage's training over the same list."""
    return StageLoop.over(read_images(folder).repeated(images), params, machine)


def benchmark(
    folder: Path, params: TrainParams, machine: MachineParams, *, settings: list[str], steps: int, rounds: int
) -> dict[str, Speeds]:
    """Speeds of `plain` and of ours in each of `settings` with the backbone and batch size of `params`, on one `machine`.

    Raises
    ------
    PipelineError
        Out of memory, or torch cannot compile the network.
    """
    images, speeds = (steps + 1) * params.batch_size, {}
    loaded = BATCHES_A_WORKER * loading.worker_count()
    with ExitStack() as stack:
        contestants = {name: stack.enter_context(Contestant(name)) for name in (PLAIN, *settings)}
        for name, each in contestants.items():
            precision, compiled = SETTINGS[name] if name != PLAIN else ("32", False)
            chosen = params.model_copy(update={"precision": precision, "compile": compiled})
            started = time.perf_counter()
            build = partial(build_plain if name == PLAIN else build_ours, folder, images, machine)
            speeds[name] = Speeds(each.call(contestant.prepare, build, chosen), compiled)
            logger.info("%s, %s: warm-up took %.0f s", params.backbone, name, time.perf_counter() - started)
        for number in range(rounds):
            # There and back, so that a machine that grows slower or faster is so for all.
            for name in list(contestants) if number % 2 == 0 else reversed(contestants):
                measure = partial(contestants[name].call, contestant.measure)
                speeds[name].end_to_end.append(measure(timing.time_end_to_end, steps))
                speeds[name].loading.append(measure(timing.time_loading, loaded))
                if name != PLAIN:
                    speeds[name].step.append(measure(timing.time_step, steps))
            found = ", ".join(f"{name} {each.end_to_end[-1]:.1f}" for name, each in speeds.items())
            logger.info("%s, round %d of %d, images/s: %s", params.backbone, number + 1, rounds, found)
    return speeds


def ratios(above: list[float], below: list[float]) -> dict[str, float]:
    """Median, least and greatest of the ratios of the rounds."""
    each = [first / second for first, second in zip(above, below, strict=True)]
    return {"median": statistics.median(each), "min": min(each), "max": max(each)}


def summarize(speeds: dict[str, Speeds]) -> dict[str, Any]:
    """All speeds, with the ratios of each setting of ours."""
    plain = speeds[PLAIN]
    summary: dict[str, Any] = {"plain": asdict(plain), "ours": {}}
    for name, ours in speeds.items():
        if name != PLAIN:
            summary["ours"][name] = asdict(ours) | {
                "to_plain": ratios(ours.end_to_end, plain.end_to_end),
                "to_step": ratios(ours.end_to_end, ours.step),
                "loading_to_plain": ratios(ours.loading, plain.loading),
            }
    summary["fastest"] = max(summary["ours"], key=lambda name: summary["ours"][name]["to_plain"]["median"])
    return summary


def describe(backbone: str, summary: dict[str, Any]) -> list[str]:
    """A line for each setting of ours; the fastest is marked."""
    plain = statistics.median(summary["plain"]["end_to_end"])
    lines = []
    for name, ours in summary["ours"].items():
        kind = f"({ours['precision']}{', compiled' if ours['compiled'] else ''})"
        gain, share, loads = ours["to_plain"], ours["to_step"], ours["loading_to_plain"]
        lines.append(
            f"{backbone:<16} ours {statistics.median(ours['end_to_end']):7.1f} img/s {kind:<23} plain {plain:7.1f} img/s  "
            f"ratio {gain['median']:.2f} ({gain['min']:.2f} to {gain['max']:.2f})  "
            f"step alone {statistics.median(ours['step']):7.1f} img/s, end to end {share['median']:.2f} of it  "
            f"loading alone {statistics.median(ours['loading']):7.1f} img/s, {loads['median']:.2f} times plain's"
            f"{'  <- fastest' if name == summary['fastest'] else ''}"
        )
    return lines


def positive(text: str) -> int:
    """A whole number of at least 1 from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--backbones", nargs="+", default=list(BACKBONES), help=f"torchvision names (default: {' '.join(BACKBONES)})")
    described = f"of ours, as train.precision and train.compile (default: {' '.join(DEFAULT_SETTINGS)})"
    add("--settings", nargs="+", choices=SETTINGS, default=list(DEFAULT_SETTINGS), help=described)
    add("--size", type=positive, default=224, help="pixels (default: %(default)s)")
    add("--batch", type=positive, default=32, help="images a step (default: %(default)s)")
    add("--steps", type=positive, help="of each measurement (default: 2, on a GPU 200)")
    add("--rounds", type=positive, default=3, help="(default: %(default)s)")
    add("--device", choices=["auto", "cpu", "cuda", "mps", "xpu"], default="auto", help="(default: %(default)s)")
    add("--json", type=Path, metavar="PATH", help="write every value of every round there")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device = choose_device(options.device)
    steps = options.steps or STEPS.get(device.type, STEPS["cpu"])
    params = load_params().train.model_copy(update=AS_PLAIN | {"batch_size": options.batch})
    machine = load_params().machine.model_copy(update=MACHINE_AS_PLAIN | {"device": options.device})
    facts = describe_machine(device) | {
        "loading_processes": loading.worker_count(),
        "size": options.size,
        "batch": options.batch,
        "rounds": options.rounds,
        "steps": steps,
    }
    print_facts(facts)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        draw_images(Path(folder), size=options.size, lesions=LESIONS)
        for backbone in options.backbones:
            chosen = params.model_copy(update={"backbone": backbone})
            speeds = benchmark(Path(folder), chosen, machine, settings=options.settings, steps=steps, rounds=options.rounds)
            results[backbone] = summarize(speeds)
            sys.stdout.write("\n".join(describe(backbone, results[backbone])) + "\n")
            sys.stdout.flush()
            if options.json is not None:  # after each, or one that fails would take the others with it
                write_json(options.json, facts | {"backbones": results})
    aims = "2.5 to plain (aim 3)" if device.type == "cpu" else "5 to plain, and 0.95 of the step alone"
    sys.stdout.write(f"medians of the rounds, in brackets the least and the greatest; wanted: at least {aims}\n")


if __name__ == "__main__":
    run_stage(main)
