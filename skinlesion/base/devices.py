"""The device that a stage computes on, and the processor by name."""

import platform
from pathlib import Path

import torch

from skinlesion.base.errors import PipelineError


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


def cpu_model() -> str:
    """The processor's name with family and model, as Linux has them, or what the platform calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").partition("\n\n")[0].splitlines() if cpuinfo.is_file() else []
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    named = [known[name] for name in ("model name", "cpu family", "model", "CPU implementer", "CPU part") if name in known]
    return " ".join([*named, platform.machine()]) if named else f"{platform.processor()} {platform.machine()}"
