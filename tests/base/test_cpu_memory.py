"""Freed memory stays with the process, so that the next block of its size costs no page faults."""

import resource
import subprocess
import sys

import pytest

from skinlesion.base import cpu_memory
from tests.conftest import ROOT

FAULTS = """
import resource
import torch
from skinlesion.base.cpu_memory import keep_freed_memory
told = {told}
for _ in range(20):
    torch.full((64_000_000,), 1, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.full((64_000_000,), 1, dtype=torch.uint8)
print(told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(told: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", FAULTS.format(told=told)], cwd=ROOT, text=True, capture_output=True, check=True)
    answer, faults = done.stdout.split()
    return answer, int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_block_that_was_freed_costs_nothing_again() -> None:
    told, kept = count_faults("keep_freed_memory()")
    if told == "False":
        pytest.skip("this C library has no mallopt")
    pages = 5 * 64_000_000 // resource.getpagesize()
    assert kept < pages / 100
    assert count_faults("None")[1] > 10 * max(kept, 1)


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cpu_memory.keep_freed_memory() is False
