"""The device that a stage computes on, by name."""

from __future__ import annotations

import torch

from skinlesion.errors import PipelineError


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
