"""The precision of a CPU: the decision from given times, what is remembered, and a real measurement that leaves no trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from skinlesion.artifacts.patients import WIDTH
from skinlesion.base.devices import cpu_model
from skinlesion.training import precision
from skinlesion.training.precision import faster_on_cpu
from tests.conftest import refuses

LARGE = {"size": 96, "batch_size": 16}  # as small as a batch can be that is worth measuring

SetTimes = Callable[[float, float], list[dict[str, Any]]]


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture
def set_times(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> SetTimes:
    """Say how long a step takes in float32 and in bfloat16, on a processor that has it; a list of what was measured."""

    def set_them(float32: float, bfloat16: float) -> list[dict[str, Any]]:
        measured: list[dict[str, Any]] = []

        def measure(network: nn.Module, **what: Any) -> dict[str, float]:
            measured.append(what)
            return {"32-true": float32, "bf16-mixed": bfloat16}

        monkeypatch.setattr(precision, "time_training_steps", measure)
        monkeypatch.setattr(precision, "has_fast_bfloat16", lambda: True)
        return measured

    return set_them


@pytest.mark.parametrize(
    ("float32", "bfloat16", "expected"),
    [(1.0, 0.5, "bf16-mixed"), (1.1, 1.0, "bf16-mixed"), (1.09, 1.0, "32-true"), (1.0, 2.0, "32-true")],
)
def test_bfloat16_must_be_a_tenth_faster(
    network: nn.Module, set_times: SetTimes, float32: float, bfloat16: float, expected: str
) -> None:
    set_times(float32, bfloat16)
    assert faster_on_cpu(network, **LARGE) == expected


def test_the_choice_is_remembered(network: nn.Module, set_times: SetTimes) -> None:
    first = set_times(2.0, 1.0)
    assert faster_on_cpu(network, **LARGE) == "bf16-mixed"
    again = set_times(1.0, 2.0)
    assert faster_on_cpu(network, **LARGE) == "bf16-mixed"
    assert first == [{"size": 96, "images": 16, "channels_last": True}]
    assert again == []


@pytest.mark.parametrize("other", ["network", "size", "batch_size", "channels_last", "cpu", "threads", "torch"])
def test_what_decides_the_speed_is_measured_apart(
    network: nn.Module, set_times: SetTimes, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    set_times(2.0, 1.0)
    large = {"size": 200, "batch_size": 8}
    assert faster_on_cpu(network, **large) == "bf16-mixed"
    set_times(1.0, 2.0)
    if other == "network":
        network = nn.Sequential(*network, nn.ReLU())
    elif other == "cpu":
        monkeypatch.setattr(precision, "cpu_model", lambda: "another")
    elif other == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    elif other == "torch":
        monkeypatch.setattr(torch, "__version__", "99")
    else:
        large |= {"size": {"size": 201}, "batch_size": {"batch_size": 9}, "channels_last": {"channels_last": False}}[other]
    assert faster_on_cpu(network, **large) == "32-true"


def test_the_memory_is_in_the_main_root(
    network: nn.Module, set_times: SetTimes, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(workspace / "root"))
    set_times(2.0, 1.0)
    faster_on_cpu(network, **LARGE)
    [file] = (workspace / "root/.resume/precision").glob("*.json")
    assert json.loads(file.read_text())["precision"] == "bf16-mixed"


def test_a_damaged_memory_is_named(network: nn.Module, set_times: SetTimes, workspace: Path) -> None:
    set_times(2.0, 1.0)
    faster_on_cpu(network, **LARGE)
    [file] = (workspace / ".resume/precision").glob("*.json")
    file.write_text('{"precision": "8"}', encoding="utf-8")
    refuses(f"{file.name} names no precision: delete it to measure again", lambda: faster_on_cpu(network, **LARGE))


@pytest.mark.parametrize(
    "small", [{"size": 64, "batch_size": 32}, {"size": 95, "batch_size": 99}, {"size": 96, "batch_size": 15}]
)
def test_small_batches_are_not_measured(network: nn.Module, set_times: SetTimes, workspace: Path, small: dict[str, int]) -> None:
    measured = set_times(2.0, 1.0)
    assert faster_on_cpu(network, **small) == "32-true"
    assert measured == []
    assert not (workspace / ".resume").exists()


def test_a_processor_without_bfloat16_is_not_measured(
    network: nn.Module, set_times: SetTimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = set_times(2.0, 1.0)
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda: False)
    assert faster_on_cpu(network, **LARGE) == "32-true"
    assert measured == []


@pytest.mark.parametrize(
    ("machine", "avx512", "amx", "operator", "expected"),
    [
        ("x86_64", True, False, True, True),
        ("x86_64", False, True, True, True),
        ("x86_64", False, False, True, False),  # emulated
        ("aarch64", False, False, True, True),
        ("aarch64", False, False, False, False),
    ],
)
def test_which_processors_have_bfloat16(
    monkeypatch: pytest.MonkeyPatch, machine: str, avx512: bool, amx: bool, operator: bool, expected: bool
) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: operator)
    assert precision.has_fast_bfloat16() is expected
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert precision.has_fast_bfloat16() is False


def test_this_machine_is_asked_without_an_error() -> None:
    assert precision.has_fast_bfloat16() in (True, False)
    assert cpu_model().strip()


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_measurement_leaves_network_and_random_numbers_alone(network: nn.Module, channels_last: bool) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    seconds = precision.time_training_steps(network, size=16, images=2, channels_last=channels_last)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert sorted(seconds) == ["32-true", "bf16-mixed"]
    assert all(0 < value < 10 for value in seconds.values())


def test_the_median_of_the_timed_steps_counts(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    times: dict[bool, list[None]] = {False: [], True: []}

    def time_step(network: nn.Module, inputs: list[torch.Tensor], *, enabled: bool) -> float:
        times[enabled].append(None)
        return (9.0, 8.0, 3.0, 1.0, 2.0)[len(times[enabled]) - 1] * (10 if enabled else 1)

    monkeypatch.setattr(precision, "_time_step", time_step)
    seconds = precision.time_training_steps(network, size=8, images=2, channels_last=True)
    assert seconds == {"32-true": 2.0, "bf16-mixed": 20.0}


class Recorder(nn.Module):
    """A network with metadata that notes what it is given."""

    needs_metadata = True
    seen: list[tuple[Any, ...]] = []  # noqa: RUF012 (shared with the copies that are timed)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor, metadata: torch.Tensor) -> torch.Tensor:
        in_order = images.is_contiguous(memory_format=torch.channels_last)
        logits = self.layer(images.mean((2, 3)))
        self.seen.append((self.training, tuple(images.shape), tuple(metadata.shape), in_order, logits.dtype))
        return logits


@pytest.mark.parametrize("channels_last", [True, False])
def test_training_steps_of_both_precisions_are_timed_by_turns(channels_last: bool) -> None:
    network = Recorder().eval()
    network.seen.clear()
    precision.time_training_steps(network, size=8, images=5, channels_last=channels_last)
    step = (True, (5, 3, 8, 8), (5, WIDTH), channels_last)
    assert network.seen == [(*step, torch.float32), (*step, torch.bfloat16)] * 5
