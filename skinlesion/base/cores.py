"""How many processor cores there are for us."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Cores that this process may use, which in a container or under a scheduler can be fewer than the machine has.

    By the affinity, and by the share of time that a control group allows (Linux kernel documentation, cgroup v2, `cpu.max`), as
    Docker's `cpus` and Kubernetes' limits set it; a part of a core counts as one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, allowed_cores())))


def allowed_cores(folder: Path = CGROUP) -> float:
    """Cores' worth of time that the control group in `folder` allows; infinite where it sets no limit, or is not there."""
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):  # no control groups of version 2 here, or a file of another form
        return math.inf
