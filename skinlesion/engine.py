"""Lightning Fabric for a device and a precision by name, and the switches that make a training repeatable."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.accelerators import Accelerator
from lightning.fabric.strategies import SingleDeviceStrategy

from skinlesion.devices import choose_device
from skinlesion.errors import PipelineError


class XPUAccelerator(Accelerator):
    """Intel GPUs, which Fabric 2.6 does not know by itself."""

    def setup_device(self, device: torch.device) -> None:
        torch.xpu.set_device(device)

    def teardown(self) -> None:
        torch.xpu.empty_cache()

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return list(range(int(devices)))

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        return [torch.device("xpu", index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        return torch.xpu.device_count()

    @staticmethod
    def is_available() -> bool:
        return torch.xpu.is_available()

    @staticmethod
    def name() -> str:
        return "xpu"


def fabric_precision(precision: str, device: torch.device) -> str:
    """Fabric's name for `auto | 32 | bf16 | 16` on a device.

    `auto` is mixed precision where it surely helps, on CUDA: bf16 if the GPU has it, else 16. On a CPU bf16 helps large
    networks on recent processors and hurts elsewhere, so there it has to be asked for.

    Raises
    ------
    PipelineError
        16 bits without a GPU: gradients would underflow with no scaler at hand. Mixed precision on an XPU, which Fabric
        2.6 would silently not apply.
    """
    if precision == "16" and device.type == "cpu":
        raise PipelineError("train.precision=16 needs a GPU: choose bf16 or 32 on a CPU")
    if precision in ("bf16", "16") and device.type == "xpu":
        raise PipelineError(f"train.precision={precision} is not supported on an XPU: choose 32 or auto")
    if precision == "auto":
        if device.type != "cuda":
            return "32-true"
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision]


def make_fabric(*, device: str, precision: str, seed: int) -> Fabric:
    """A launched Fabric on one device, all random generators seeded, algorithms deterministic where torch has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for to make matrix products repeatable
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    torch.backends.cudnn.benchmark = False
    chosen = choose_device(device)
    plugin = fabric_precision(precision, chosen)
    if chosen.type == "xpu":
        accelerator = XPUAccelerator()
        strategy = SingleDeviceStrategy(device=torch.device("xpu", 0), accelerator=accelerator)
        fabric = Fabric(accelerator=accelerator, strategy=strategy, devices=1, precision=plugin)
    else:
        fabric = Fabric(accelerator=chosen.type, devices=1, precision=plugin)
    fabric.launch()
    fabric.seed_everything(seed, workers=True, verbose=False)
    return fabric
