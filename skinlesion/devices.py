"""The device that a stage computes on, by name, and arithmetic on it that is as exact as on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from skinlesion.errors import PipelineError

_switching = threading.Lock()
_inside: list[object] = []  # who is within `full_float32` at present
_switched = ExitStack()


def available_devices() -> list[str]:
    """The kinds of device on this machine, the fastest first; `cpu` is always the last."""
    present = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [name for name, is_there in present.items() if is_there]


def choose_device(name: str) -> torch.device:
    """Turn `auto | cpu | cuda | mps | xpu` into a device; `auto` is the first of `available_devices`.

    Raises
    ------
    PipelineError
        The machine, or this build of torch, has no such device.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        raise PipelineError(
            f"device '{name}' is not available here (available: {', '.join(available)}): choose one of them or auto"
        )
    return torch.device(name)


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions on a GPU in float32, and by the same algorithm every time; also a decorator.

    By its default torch rounds their inputs to TF32, of 10 bits, and what a GPU says would then differ from what a CPU says in
    the third digit. Matrix products are in float32 by default. The switch is the process's, not the thread's: it is thrown
    back when the last of those within has left.
    """
    me = object()
    with _switching:
        if not _inside:
            _switched.enter_context(
                torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            )
        _inside.append(me)
    try:
        yield
    finally:
        with _switching:
            _inside.remove(me)
            if not _inside:
                _switched.close()
