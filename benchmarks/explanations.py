"""Maps per second, ours against the loop that most public notebooks have: `python -m benchmarks.explanations`.

ours   `compute_maps` over the prepared uint8 array in batches, batch norms folded into the convolutions as in the stage, then
       each map on the pixels of its original
loop   an image at a time: JPEG opened, resized and normalised by torchvision, a pass with its whole graph, the most probable
       class, `GradCAM(model, layer)` of torchcam set up anew, its map resized to the image (Pillow, bicubic)

Both have the same backbone from random weights, layer, images, classes and threads. That both give the same maps is checked
first, to 1e-4; on a GPU with both in float32, after which the loop has torch's default there, convolutions in TF32. They share a
process, and so what the stage does about its memory (`skinlesion.base.cpu_memory`), which notebooks do not. JPEGs are synthetic,
600 x 450 pixels like HAM10000's. Besides end to end, `maps alone` leaves out reading, resizing and placing on both sides. Rounds
alternate; ratios are taken within a round. Not in the times: preparation, which a run does once for all stages, and a warm-up of
both.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchcam import methods as torchcam_methods
from torchvision import transforms

from benchmarks.stage_loop import Images, draw_images, read_images
from benchmarks.timing import describe_machine, print_facts, synchronize
from benchmarks.training import AS_PLAIN, positive
from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.devices import choose_device
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import write_json
from skinlesion.config.params import load_params
from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam.fusing import fuse_batch_norms
from skinlesion.explanation.cam.layers import find_layer
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.members import MemberMaps, place_mean
from skinlesion.explanation.cam.methods import MapOptions, check_method
from skinlesion.model.backbones import normalization
from skinlesion.model.classifier import ClassifierConfig
from skinlesion.model.float32 import full_float32
from skinlesion.model.network import NetworkSpec, SkinNetwork, build_network

BACKBONES = ("resnet50", "mobilenet_v2", "efficientnet_b0")
METHODS = ("GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM")  # of one pass, which the loop can make too
LESIONS = 48  # about 64 images
KINDS = ("end_to_end", "maps_alone")  # of speeds, maps per second: with reading and placing, and of the network alone
TOLERANCE = 1e-4  # of a map's strongest cell


@dataclass(frozen=True)
class Explained:
    """What both sides explain.

    network, plain : the same weights for ours, batch norms folded, and for the loop, in torch's own memory order.
    classes : class index of each image, the network's most probable one.
    options : how its maps are made.
    """

    network: SkinNetwork
    plain: SkinNetwork
    config: ClassifierConfig
    images: Images
    classes: list[int]
    options: MapOptions

    @property
    def rows(self) -> np.ndarray:
        """Positions of the images in the prepared array."""
        return self.images.prepared.rows_of(self.images.listed["image_id"])


def ours(task: Explained) -> np.ndarray:
    """Maps of all images, as the stage computes them: (N, side, side)."""
    return compute_maps(task.network, task.config, task.images.prepared.images, task.classes, task.options, rows=task.rows)


def ours_placed(task: Explained) -> None:
    """Maps of all images, each on its original's pixels."""
    target = find_layer(task.network.backbone, task.options.layer, size=task.config.size)
    maps = MemberMaps(target, ours(task))
    sizes = task.images.prepared.index.loc[task.rows, ["width", "height"]].to_numpy()
    for position, (width, height) in enumerate(sizes):
        place_mean([maps], position, width, height, size=task.config.size, fit=task.config.fit)


def read_plainly(task: Explained) -> Iterator[tuple[torch.Tensor, tuple[int, int]]]:
    """Each JPEG as torchvision makes an input of it, and its width and height."""
    size = task.config.size
    steps = [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(task.config.mean, task.config.std)]
    transform = transforms.Compose(steps)
    for path in task.images.paths:
        with Image.open(path) as image:
            yield transform(image.convert("RGB")), image.size


def explain_one(task: Explained, image: torch.Tensor) -> np.ndarray:
    """The map of one input (3, size, size), as notebooks make it: (side, side)."""
    with getattr(torchcam_methods, task.options.method)(task.plain, f"backbone.{task.options.layer}") as extractor:
        scores = task.plain(image[None].to(task.options.device))
        return extractor(scores[0].argmax().item(), scores, normalized=False)[0][0].cpu().numpy()


def loop_placed(task: Explained) -> None:
    """The loop end to end."""
    for image, size in read_plainly(task):
        Image.fromarray(explain_one(task, image), mode="F").resize(size, Image.Resampling.BICUBIC)


def check_same_maps(task: Explained, inputs: list[torch.Tensor]) -> float:
    """The greatest difference between both sides' maps, each scaled to a strongest cell of 1.

    Raises
    ------
    PipelineError
        It is above `TOLERANCE`: then times would not compare.
    """
    with full_float32():
        plain = np.stack([explain_one(task, image) for image in inputs])
    strongest = plain.max(axis=(1, 2), keepdims=True)
    plain = np.divide(plain, strongest, out=np.zeros_like(plain), where=strongest > 0)
    difference = float(np.abs(plain - ours(task)).max())
    if difference > TOLERANCE:
        raise PipelineError(
            f"{task.config.backbone}, {task.options.method}: maps differ by {difference:.1e}, above {TOLERANCE:.0e}"
        )
    return difference


def make_config(params: TrainParams, *, size: int) -> ClassifierConfig:
    """The config of an untrained network."""
    mean, std = normalization(params.backbone)
    return ClassifierConfig(
        member="benchmark",
        seed=0,
        backbone=params.backbone,
        network=asdict(NetworkSpec.of(params)),
        classes=CLASSES,
        size=size,
        fit="squash",
        color_constancy="none",
        mean=mean,
        std=std,
        params={},
        epoch=0,
        weights_sha256=None,
        fingerprint="",
        images_sha256="",
        data={"source": "sample", "synthetic": True},
        git_commit=None,
        versions={},
    )


def prepare_task(images: Images, params: TrainParams, method: str, *, device: torch.device, batch_size: int) -> Explained:
    """A network from random weights, the layer that `auto` finds, and the classes that it predicts."""
    config = make_config(params, size=images.prepared.size)
    torch.manual_seed(0)
    network = build_network(NetworkSpec(**config.network), num_classes=len(CLASSES), size=config.size).eval().to(device)
    layer = find_layer(network.backbone, "auto", size=config.size).name
    fused = fuse_batch_norms(network, size=config.size, keep=layer)
    options = MapOptions(check_method(method), device, layer, batch_size)
    task = Explained(fused, network, config, images, [], options)
    with torch.inference_mode():
        scores = [task.plain(image[None].to(device))[0] for image, _ in read_plainly(task)]
    return replace(task, classes=[int(each.argmax()) for each in scores])


def per_second(function: Callable[[], Any], images: int, device: torch.device) -> float:
    """Images per second of a function that explains `images`."""
    synchronize(device)
    started = time.perf_counter()
    function()
    synchronize(device)
    return images / (time.perf_counter() - started)


def benchmark(task: Explained, *, rounds: int) -> dict[str, Any]:
    """Speeds of both sides and their ratios, a value a round."""
    inputs = [image for image, _ in read_plainly(task)]
    difference = check_same_maps(task, inputs)  # which warms both up
    sides: dict[str, dict[str, Callable[[], Any]]] = {
        "ours": {"end_to_end": lambda: ours_placed(task), "maps_alone": lambda: ours(task)},
        "loop": {"end_to_end": lambda: loop_placed(task), "maps_alone": lambda: [explain_one(task, each) for each in inputs]},
    }
    speeds: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in KINDS} for name in sides}
    for number in range(rounds):
        # There and back, so that a machine that grows slower or faster is so for both.
        for name in list(sides) if number % 2 == 0 else reversed(sides):
            for kind, explain in sides[name].items():
                speeds[name][kind].append(per_second(explain, len(inputs), task.options.device))
    ratios = {kind: quartiles(speeds["ours"][kind], speeds["loop"][kind]) for kind in KINDS}
    return {"layer": task.options.layer, "greatest_difference": difference, "speeds": speeds, "ratios": ratios}


def quartiles(above: list[float], below: list[float]) -> dict[str, float]:
    """Quartiles of the ratios of the rounds."""
    return dict(zip(("low", "median", "high"), np.quantile(np.divide(above, below), [0.25, 0.5, 0.75]).tolist(), strict=True))


def describe_speeds(backbone: str, method: str, found: dict[str, Any]) -> str:
    """A line for people."""
    parts = [f"{backbone:<16} {method:<9}"]
    for kind, ratio in found["ratios"].items():
        ours_, loop_ = (statistics.median(found["speeds"][name][kind]) for name in ("ours", "loop"))
        parts.append(
            f"{kind.replace('_', ' ')}: ours {ours_:6.1f}/s, loop {loop_:6.1f}/s, ratio {ratio['median']:.2f} "
            f"({ratio['low']:.2f} to {ratio['high']:.2f})"
        )
    return "  ".join(parts)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.explanations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--backbones", nargs="+", default=list(BACKBONES), help=f"torchvision names (default: {' '.join(BACKBONES)})")
    add("--methods", nargs="+", choices=METHODS, default=["GradCAM"], help="(default: GradCAM)")
    add("--size", type=positive, default=224, help="pixels (default: %(default)s)")
    add("--batch", type=positive, default=32, help="images a pass of ours (default: %(default)s)")
    add("--lesions", type=positive, default=LESIONS, help="of the sample, about 1.3 images each (default: %(default)s)")
    add("--rounds", type=positive, default=5, help="(default: %(default)s)")
    add("--device", choices=["auto", "cpu", "cuda", "mps", "xpu"], default="auto", help="(default: %(default)s)")
    add("--json", type=Path, metavar="PATH", help="write every value of every round there")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    device = choose_device(options.device)
    keep_freed_memory()
    params = load_params().train.model_copy(update=AS_PLAIN)
    facts = describe_machine(device) | {"size": options.size, "batch": options.batch, "rounds": options.rounds}
    print_facts(facts)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        draw_images(Path(folder), size=options.size, lesions=options.lesions)
        images = read_images(Path(folder))
        for backbone in options.backbones:
            for method in options.methods:
                chosen = params.model_copy(update={"backbone": backbone})
                task = prepare_task(images, chosen, method, device=device, batch_size=options.batch)
                found = benchmark(task, rounds=options.rounds)
                results.setdefault(backbone, {})[method] = found
                sys.stdout.write(describe_speeds(backbone, method, found) + "\n")
                sys.stdout.flush()
                if options.json is not None:  # after each, or one that fails would take the others with it
                    write_json(options.json, facts | {"images": len(images.listed), "backbones": results})
    sys.stdout.write("medians of the rounds, in brackets the quartiles; wanted: at least 5\n")


if __name__ == "__main__":
    run_stage(main)
