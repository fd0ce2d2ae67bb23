"""Whether a CPU trains a network faster in bfloat16: measured once for each network and processor, then remembered.

Some processors have instructions for bfloat16, and also on them it depends on the network: what convolutions gain is lost
again where many small layers cast back and forth.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from skinlesion.artifacts.patients import WIDTH
from skinlesion.base.devices import cpu_model
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import read_json, scratch_folder, write_json

logger = logging.getLogger(__name__)

FLOAT32, BFLOAT16 = "32-true", "bf16-mixed"  # Fabric's names
NEEDED_GAIN = 1.1  # bfloat16 rounds to 8 bits: for less speed than this it is not worth it
MOST_IMAGES = 16
WORTH_MEASURING = MOST_IMAGES * 96 * 96  # pixels a batch; below, steps are mostly overhead and a training is short anyway
WARM_UP_STEPS, TIMED_STEPS = 2, 3


def faster_on_cpu(network: nn.Module, *, size: int, batch_size: int, channels_last: bool = True) -> str:
    """The precision in which this CPU trains `network`, by Fabric's name: `bf16-mixed` if it is a tenth faster, else `32-true`.

    Where the processor has no instructions for bfloat16, or batches are small, it is `32-true` without a measurement. Else some
    training steps are timed in both (seconds, up to a minute for a large network), and the choice is kept in the scratch
    folder `precision`: two measurements could differ, and then a repeated or resumed training would not give the same bytes.
    On another checkout or machine it is measured again; to have the same there, name the precision. Processes that ask at the
    same time wait for the first one's choice.

    Parameters
    ----------
    network : takes float32 (N, 3, size, size), and metadata if its `needs_metadata` says so. Neither it nor the random
        generators are touched.
    batch_size : of the training; at most 16 images are timed.
    channels_last : memory order of the training.

    Raises
    ------
    PipelineError
        The file of the remembered choice is damaged.
    """
    images = min(batch_size, MOST_IMAGES)
    if images * size * size < WORTH_MEASURING or not has_fast_bfloat16():
        return FLOAT32
    facts = {
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "network": hashlib.sha256(repr(network).encode()).hexdigest(),
        "size": size,
        "images": images,
        "channels_last": channels_last,
    }
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    path = scratch_folder("precision") / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        return _remembered(path) if path.is_file() else _measured(network, path, facts)


def has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by instructions of its own (AVX-512 BF16, AMX, or Arm's), and torch uses them."""
    if not torch.backends.mkldnn.is_available():
        return False
    if platform.machine() in ("aarch64", "arm64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # On x86 that operator also says yes to processors on which bfloat16 is emulated, and slow.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _remembered(path: Path) -> str:
    """The choice in a file that `_measured` wrote."""
    choice = read_json(path).get("precision")
    if choice not in (FLOAT32, BFLOAT16):
        raise PipelineError(f"{path} names no precision: delete it to measure again, or set train.precision to 32 or bf16")
    return choice


def _measured(network: nn.Module, path: Path, facts: dict[str, Any]) -> str:
    """Measure, decide, and write the choice to `path`."""
    seconds = time_training_steps(network, size=facts["size"], images=facts["images"], channels_last=facts["channels_last"])
    gain = seconds[FLOAT32] / seconds[BFLOAT16]
    choice = BFLOAT16 if gain >= NEEDED_GAIN else FLOAT32
    logger.info("a training step in bfloat16 has %.2f times the speed of float32 here: taking %s", gain, choice)
    write_json(path, {"precision": choice, "seconds": seconds, **facts})
    return choice


def time_training_steps(network: nn.Module, *, size: int, images: int, channels_last: bool) -> dict[str, float]:
    """Median seconds of a forward and backward pass of a copy of `network` by precision, on a batch of noise, by turns."""
    with torch.random.fork_rng(devices=[]):  # dropout draws numbers
        trial = copy.deepcopy(network).cpu().train()
        batch = torch.randn(images, 3, size, size)
        if channels_last:
            trial, batch = trial.to(memory_format=torch.channels_last), batch.contiguous(memory_format=torch.channels_last)
        inputs = [batch, torch.zeros(images, WIDTH)] if getattr(network, "needs_metadata", False) else [batch]
        seconds: dict[str, list[float]] = {FLOAT32: [], BFLOAT16: []}
        for _ in range(WARM_UP_STEPS + TIMED_STEPS):
            for precision, times in seconds.items():
                times.append(_time_step(trial, inputs, enabled=precision == BFLOAT16))
    return {precision: statistics.median(times[WARM_UP_STEPS:]) for precision, times in seconds.items()}


def _time_step(network: nn.Module, inputs: list[torch.Tensor], *, enabled: bool) -> float:
    """Seconds of one pass forward and backward, under autocast to bfloat16 if `enabled`."""
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        logits = network(*inputs)
    logits.float().square().mean().backward()
    seconds = time.perf_counter() - started
    network.zero_grad(set_to_none=True)
    return seconds
