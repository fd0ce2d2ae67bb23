"""How many cores there are: no more than a control group allows."""

import math
import os
from pathlib import Path

import pytest

from skinlesion.base import cores


@pytest.mark.parametrize(
    ("content", "allowed"),
    [("max 100000", math.inf), ("200000 100000", 2), ("150000 100000", 1.5), ("", math.inf), ("x y", math.inf)],
)
def test_a_control_groups_share_of_time(tmp_path: Path, content: str, allowed: float) -> None:
    assert cores.allowed_cores(tmp_path) == math.inf
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert cores.allowed_cores(tmp_path) == allowed


@pytest.mark.parametrize(("allowed", "expected"), [(math.inf, 4), (2.5, 3), (0.2, 1), (64.0, 4)])
def test_the_smaller_of_affinity_and_share_counts(monkeypatch: pytest.MonkeyPatch, allowed: float, expected: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(cores, "allowed_cores", lambda: allowed)
    assert cores.available_cores() == expected
