"""The benchmarks: what the clock holds, what the two sides are made of, and that the command runs."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch._inductor.exc
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import contestant, plain_loop, stage_loop, timing, training
from skinlesion.base.errors import PipelineError
from skinlesion.data.sample.sample import draw_sample
from skinlesion.training import setup
from skinlesion.training.augmentation.presets import PRESETS, resolve
from tests.conftest import WriteParams, refuses

TINY = {"train.batch_size": 8, "machine.device": "cpu", "train.epochs": 3}


class FakeLoop:
    """Loading a batch of 4 takes 2 s and a step 10 s; nothing happens at the same time."""

    device = torch.device("cpu")

    def __init__(self, batches: int) -> None:
        self.now, self.number, self.steps = 0.0, batches, 0

    def batches(self) -> Iterator[tuple[str, list[int]]]:
        for _ in range(self.number):
            self.now += 2.0
            yield "images", [0] * 4

    def step(self, batch: tuple[str, list[int]]) -> None:
        self.now += 10.0
        self.steps += 1


def test_the_clock_holds_as_many_loaded_batches_as_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = FakeLoop(batches=6)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: loop.now)
    assert timing.time_end_to_end(loop, None, steps=5) == pytest.approx(4 / 12)  # a step and a load for 4 images
    assert timing.time_step(loop, next(loop.batches()), steps=3) == pytest.approx(4 / 10)
    assert timing.time_loading(loop, None, batches=7) == pytest.approx(4 / 2)  # two epochs
    with pytest.raises(ValueError, match=r"more than 4 \+ 1 batches"):
        timing.time_end_to_end(loop, None, steps=4)


def test_the_fastest_setting_is_marked() -> None:
    speeds = {
        "plain": training.Speeds("32-true", end_to_end=[4.0, 5.0], loading=[5.0, 5.0]),
        "auto": training.Speeds("bf16-mixed", end_to_end=[8.0, 10.0], loading=[20.0, 30.0], step=[10.0, 10.0]),
        "32-compiled": training.Speeds("32-true", True, end_to_end=[12.0, 15.0], loading=[20.0, 30.0], step=[15.0, 20.0]),
    }
    summary = training.summarize(speeds)
    assert summary["fastest"] == "32-compiled"
    assert summary["ours"]["auto"]["to_plain"]["median"] == 2.0
    assert summary["ours"]["auto"]["to_step"] == {"median": 0.9, "min": 0.8, "max": 1.0}
    first, second = (" ".join(line.split()) for line in training.describe("resnet50", summary))
    assert first == (
        "resnet50 ours 9.0 img/s (bf16-mixed) plain 4.5 img/s ratio 2.00 (2.00 to 2.00) "
        "step alone 10.0 img/s, end to end 0.90 of it loading alone 25.0 img/s, 5.00 times plain's"
    )
    assert second.startswith("resnet50 ours 13.5 img/s (32-true, compiled) plain 4.5 img/s ratio 3.00")
    assert second.endswith("<- fastest")


def test_the_usual_transform_without_augmentation_is_resize_and_normalize(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(45, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    transform = plain_loop.usual_transform(PRESETS["none"], size=32, backbone="resnet18")
    (image, label), *_ = plain_loop.DecodedEachTime([tmp_path / "image.png"], [5], transform)
    resized = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)) / 255
    wanted = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(image.permute(1, 2, 0), wanted, atol=1e-5)
    assert image.dtype == torch.float32 and label == 5


def test_the_usual_transform_augments_as_the_preset_does() -> None:
    steps = plain_loop.usual_transform(PRESETS["light"], size=32, backbone="resnet18").transforms
    crop, horizontal, vertical, rotation, jitter = steps[1:-2]
    assert (crop.scale, crop.size) == ((0.8, 1.0), (32, 32))
    assert horizontal.p == vertical.p == 0.5
    assert rotation.degrees == [-20.0, 20.0]
    assert jitter.brightness == jitter.contrast == jitter.saturation == (0.9, 1.1)


def test_the_plain_step_is_adamw_on_cross_entropy() -> None:
    torch.manual_seed(0)
    network, twin = nn.Linear(4, 7), nn.Linear(4, 7)
    twin.load_state_dict(network.state_dict())
    images, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 6])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loop = plain_loop.PlainLoop(network, optimizer, DataLoader([]), torch.device("cpu"))
    reference = torch.optim.AdamW(twin.parameters(), lr=1e-3)
    for _ in range(2):
        loop.step([images, labels])
        reference.zero_grad()
        loss = -twin(images).log_softmax(1)[range(5), labels].mean()
        loss.backward()
        reference.step()
    torch.testing.assert_close(network.weight, twin.weight)


def test_the_plain_network_is_float32_in_torchs_own_memory_order() -> None:
    loop = plain_loop.PlainLoop.over(DataLoader([]), backbone="mobilenet_v3_small", size=32, device=torch.device("cpu"))
    kernel = next(parameter for parameter in loop.network.parameters() if parameter.shape[1:].numel() > 9)
    assert kernel.is_contiguous() and kernel.dtype == torch.float32 and loop.network.training


@pytest.fixture(autouse=True)
def asked_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Width and height of the JPEGs that are asked for; what is drawn is smaller, which takes a fiftieth of the time."""
    asked: list[tuple[int, int]] = []

    def draw(folder: Path, *, seed: int, lesions: int, width: int, height: int) -> pd.DataFrame:
        asked.append((width, height))
        return draw_sample(folder, seed=seed, lesions=lesions, width=80, height=64)

    monkeypatch.setattr(stage_loop, "draw_sample", draw)
    return asked


@pytest.fixture
def images(workspace: Path) -> stage_loop.Images:
    """28 images of 32 px, and their JPEGs."""
    (workspace / "drawn").mkdir()
    stage_loop.draw_images(workspace / "drawn", size=32, lesions=21)
    return stage_loop.read_images(workspace / "drawn")


class InThisProcess(contestant.Contestant):
    """A contestant that saves the start of a process, and so can be looked into."""

    def __init__(self, name: str) -> None:
        self.name, self.pool, self.held = name, ThreadPoolExecutor(1), {}

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        for key, value in self.held.items():
            setattr(contestant.Held, key, value)
        result = function(*arguments)
        self.held = {key: getattr(contestant.Held, key) for key in ("loop", "batch", "params")}
        return result


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contestants are no processes."""
    monkeypatch.setattr(training, "Contestant", InThisProcess)


def test_images_are_drawn_in_the_size_of_ham10000(images: stage_loop.Images, asked_sizes: list[tuple[int, int]]) -> None:
    assert asked_sizes == [(600, 450)]
    assert images.prepared.images.shape == (len(images.paths), 32, 32, 3)


def test_a_repeated_list_begins_again(images: stage_loop.Images) -> None:
    number = len(images.listed)
    repeated = images.repeated(number + 2)
    assert repeated.paths == [*images.paths, *images.paths[:2]]
    assert [path.stem for path in repeated.paths] == repeated.listed["image_id"].tolist()
    assert repeated.labels() == [*images.labels(), *images.labels()[:2]]


@pytest.mark.usefixtures("images", "in_this_process")
def test_ours_is_the_stages_training_under_each_setting(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"train.metadata": True, "machine.channels_last": False, "train.augmentation.preset": "strong"}
    write_params(TINY | {"train.backbone": "mobilenet_v3_small"} | others)
    asked, compiled = [], []
    build = setup.build_training
    monkeypatch.setattr(torch, "compile", lambda network, **_: compiled.append(network) or network)
    monkeypatch.setattr(setup, "build_training", lambda *parts, **named: asked.append(named) or build(*parts, **named))
    params = training.load_params().train.model_copy(update=training.AS_PLAIN | {"batch_size": 8})
    machine = training.load_params().machine.model_copy(update=training.MACHINE_AS_PLAIN)
    speeds = training.benchmark(Path("drawn"), params, machine, settings=list(training.SETTINGS), steps=1, rounds=1)
    params_asked = [each["params"] for each in asked]
    assert [(each.precision, each.compile) for each in params_asked] == list(product(("auto", "32", "bf16"), (False, True)))
    assert len(compiled) == 3
    assert all(each["machine"].channels_last for each in asked)
    assert all(not each.metadata and each.batch_size == 8 for each in params_asked)
    assert all(resolve(each.augmentation) == PRESETS["light"] for each in params_asked)
    precisions = {name: each.precision for name, each in speeds.items()}
    floats = dict.fromkeys(["plain", "auto", "auto-compiled", "32", "32-compiled"], "32-true")  # auto on a CPU
    assert precisions == floats | {"bf16": "bf16-mixed", "bf16-compiled": "bf16-mixed"}
    assert all(len(each.end_to_end) == len(each.loading) == 1 for each in speeds.values())
    assert all(len(each.step) == (name != "plain") for name, each in speeds.items())


@pytest.mark.usefixtures("images", "in_this_process")
def test_every_round_starts_where_the_last_one_ended(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(TINY | {"train.backbone": "mobilenet_v3_small"})
    order: list[str] = []
    monkeypatch.setattr(timing, "time_end_to_end", lambda loop, *_: order.append(type(loop).__name__) or 1.0)
    params = training.load_params().train.model_copy(update=training.AS_PLAIN)
    training.benchmark(Path("drawn"), params, training.load_params().machine, settings=["32"], steps=1, rounds=3)
    assert order == ["PlainLoop", "StageLoop", "StageLoop", "PlainLoop", "PlainLoop", "StageLoop"]


def test_every_contestant_has_a_process_of_its_own_in_this_folder(workspace: Path) -> None:
    with contestant.Contestant("one") as one, contestant.Contestant("two") as two:
        processes = {os.getpid(), one.call(os.getpid), two.call(os.getpid)}
        assert len(processes) == 3
        assert one.call(os.getpid) in processes
        assert Path(two.call(os.getcwd)) == workspace.resolve()
        refuses("process of 'two' was ended, probably for want of memory", two.call, os._exit, 9)


@pytest.mark.operations
def test_the_training_benchmark_prints_and_writes_all(write_params: WriteParams, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(TINY)
    options = "--backbones mobilenet_v3_small --settings 32 --size 32 --batch 4 --steps 2 --rounds 2 --device cpu"
    training.main([*options.split(), "--json", "speeds.json"])
    printed = capsys.readouterr().out.splitlines()
    assert "size 32, batch 4, rounds 2, steps 2" in printed[0]
    assert printed[1].startswith("mobilenet_v3_small") and "(32-true)" in printed[1] and printed[1].endswith("<- fastest")
    assert "at least 2.5 to plain" in printed[2]
    written = json.loads(Path("speeds.json").read_text(encoding="utf-8"))
    measured = written["backbones"]["mobilenet_v3_small"]
    ours, plain = measured["ours"]["32"], measured["plain"]
    assert len(ours["end_to_end"]) == len(plain["end_to_end"]) == written["rounds"] == 2
    gains = sorted(first / second for first, second in zip(ours["end_to_end"], plain["end_to_end"], strict=True))
    assert ours["to_plain"] == pytest.approx({"median": sum(gains) / 2, "min": gains[0], "max": gains[1]})


@pytest.mark.usefixtures("in_this_process")
def test_a_compiler_that_is_missing_is_explained(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(TINY)

    def fail(loop: object) -> None:
        raise torch._inductor.exc.InvalidCxxCompiler

    monkeypatch.setattr(contestant, "warm_up", fail)
    options = "--backbones mobilenet_v3_small --settings 32-compiled --size 32 --batch 4 --device cpu"
    refuses(r"set train\.compile=false", training.main, options.split())


@pytest.mark.parametrize("argument", ["--rounds=0", "--settings=fast", "--device=tpu"])
def test_a_wrong_argument_is_refused(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        training.main([argument])
    assert argument.partition("=")[0] in capsys.readouterr().err


def test_a_backbone_is_written_before_the_next_is_measured(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(TINY)
    speeds = {
        "plain": training.Speeds("32-true", end_to_end=[4.0], loading=[4.0]),
        "auto": training.Speeds("bf16-mixed", end_to_end=[8.0], loading=[8.0], step=[10.0]),
    }

    def measured(folder: Path, params: Any, machine: Any, **options: Any) -> dict[str, training.Speeds]:
        if params.backbone == "resnet18":
            raise PipelineError("out of memory")
        return speeds

    monkeypatch.setattr(training, "benchmark", measured)
    with pytest.raises(PipelineError):
        training.main(["--backbones", "mobilenet_v2", "resnet18", "--size", "32", "--device", "cpu", "--json", "speeds.json"])
    assert list(json.loads(Path("speeds.json").read_text(encoding="utf-8"))["backbones"]) == ["mobilenet_v2"]
