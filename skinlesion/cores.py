"""How many processor cores there are for us."""

from __future__ import annotations

import os


def available_cores() -> int:
    """Cores that this process may use, which in a container or under a scheduler can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
