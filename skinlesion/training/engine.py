"""Lightning Fabric for devices and a precision by name, and the switches that make a training repeatable."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.accelerator import Accelerator
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.single_device import SingleDeviceStrategy

from skinlesion.base.cpu_memory import keep_freed_memory
from skinlesion.base.devices import choose_device
from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import MachineParams
from skinlesion.config.training import TrainParams

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]  # Fabric's names
FABRIC_NAMES: dict[str, Precision] = {"auto": "32-true", "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


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


def choose_precision(params: TrainParams, device: torch.device) -> Precision:
    """Fabric's name for `train.precision` on a device.

    `auto` is mixed precision on CUDA, bf16 if the GPU has it, else 16; elsewhere it is 32 bits.

    Raises
    ------
    PipelineError
        16 bits without a GPU: gradients would underflow with no scaler at hand. 16 bits with sharpness-aware minimization, since
        their scaler skips steps. Mixed precision on an XPU, which Fabric 2.6 would silently not apply.
    """
    precision = params.precision
    if precision == "16" and device.type == "cpu":
        raise PipelineError("train.precision=16 needs a GPU: choose bf16 or 32 on a CPU")
    if precision in ("bf16", "16") and device.type == "xpu":
        raise PipelineError(f"train.precision={precision} is not supported on an XPU: choose 32 or auto")
    if precision == "auto" and device.type == "cuda":
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"
        if precision == "16" and params.sam_rho > 0:
            raise PipelineError("train.precision=auto is 16 on this GPU, which does not go with sam_rho: set train.precision=32")
    return FABRIC_NAMES[precision]


def make_fabric(params: TrainParams, machine: MachineParams, *, seed: int) -> Fabric:
    """A launched Fabric, all random generators seeded alike in every process, algorithms deterministic where torch has them.

    With several devices or nodes the processes are started here, or were by torchrun, and share the work by DDP.

    Raises
    ------
    PipelineError
        More devices than there are, processes that nobody starts, or as `choose_precision`.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for to make matrix products repeatable
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property; True costs time
    torch.backends.cudnn.benchmark = False
    chosen = choose_device(machine.device)
    precision = choose_precision(params, chosen)
    if chosen.type == "cpu":
        keep_freed_memory()
    devices = count_devices(machine.devices, chosen)
    check_launcher(devices * machine.num_nodes, machine.num_nodes)
    if chosen.type == "xpu":
        accelerator = XPUAccelerator()
        strategy = SingleDeviceStrategy(device=torch.device("xpu", 0), accelerator=accelerator)
        fabric = Fabric(accelerator=accelerator, strategy=strategy, devices=1, precision=precision)
    elif devices * machine.num_nodes > 1:
        # While the backbone is frozen its gradients never come, and DDP would wait for them.
        ddp = DDPStrategy(find_unused_parameters=params.freeze_epochs > 0)
        fabric = Fabric(accelerator=chosen.type, strategy=ddp, devices=devices, num_nodes=machine.num_nodes, precision=precision)
    else:
        fabric = Fabric(accelerator=chosen.type, devices=1, precision=precision)
    fabric.launch()
    fabric.seed_everything(seed, workers=True, verbose=False)
    return fabric


def count_devices(devices: int | Literal["auto"], kind: torch.device) -> int:
    """How many devices of a kind `machine.devices` means on this machine.

    Raises
    ------
    PipelineError
        There are fewer, or the kind cannot be used several at once.
    """
    if kind.type in ("mps", "xpu"):
        if devices not in (1, "auto"):
            raise PipelineError(f"machine.devices={devices}: training uses one {kind.type} device; several work on cuda and cpu")
        return 1
    if kind.type == "cpu":
        return 1 if devices == "auto" else devices
    present = torch.cuda.device_count()
    if devices == "auto":
        return present
    if devices > present:
        raise PipelineError(f"machine.devices={devices}, and this machine has {present} GPU(s): take fewer, or auto")
    return devices


def check_launcher(processes: int, nodes: int) -> None:
    """Refuse to wait for processes that nobody starts, or to train twice what was meant to be shared.

    Raises
    ------
    PipelineError
        Several nodes without torchrun (or NODE_RANK), or torchrun with another number of processes than params ask for.
    """
    if TorchElasticEnvironment.detect():
        started = int(os.environ["WORLD_SIZE"])
        if started != processes:
            raise PipelineError(
                f"torchrun started {started} process(es), and machine.devices x machine.num_nodes is {processes}: make them equal"
            )
    elif nodes > 1 and "NODE_RANK" not in os.environ:
        raise PipelineError(
            f"machine.num_nodes={nodes} needs the stage to be started on every node, by torchrun or with NODE_RANK, MASTER_ADDR "
            "and MASTER_PORT set: see the README, or set num_nodes to 1"
        )


def precision_of(fabric: Fabric) -> str:
    """Fabric's name of the precision in which it computes."""
    return str(fabric.strategy.precision.precision)


@contextmanager
def ending_together(fabric: Fabric) -> Iterator[None]:
    """End the processes that this one started when it fails: they would wait for it in a collective call."""
    try:
        yield
    except BaseException:
        for process in getattr(fabric.strategy.launcher, "procs", []):
            process.kill()
        raise


@contextmanager
def explained_failures(params: TrainParams) -> Iterator[None]:
    """Turn torch's reports of exhausted memory, and of a network that it could not compile, into ones that name the way out."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator has no class of its own
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise PipelineError(
                f"train.compile: torch could not compile '{params.backbone}' ({str(error).splitlines()[0][:200]}): install a C++ "
                "compiler (g++) if there is none, or set train.compile=false"
            ) from None
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise PipelineError(
            f"out of memory at train.batch_size {params.batch_size}: lower it (and raise train.accumulate to keep the images a "
            f"step), or prepare.size, or take a smaller backbone ({str(error).splitlines()[0][:200]})"
        ) from None
