"""Peak memory of a training must not grow with the number of images: measured at N and 10 N."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.conftest import WriteParams
from tests.training.training_cases import TINY, start_train, write_inputs

FEW, MANY = 2_000, 20_000
ARRAY_MEGABYTES = (MANY - FEW) * 32 * 32 * 3 / 1e6  # 55: what one copy of the array more would cost


def anonymous_megabytes(pid: int) -> float:
    """Memory of a process that no file backs; 0 once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("RssAnon")), 0.0)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def peak_megabytes() -> dict[str, float]:
    """The highest anonymous memory of the stage and of the largest of its loading processes."""
    process, peak = start_train(), {"stage": 0.0, "worker": 0.0}
    while process.poll() is None:
        peak["stage"] = max(peak["stage"], anonymous_megabytes(process.pid))
        peak["worker"] = max([peak["worker"], *map(anonymous_megabytes, children(process.pid))])
        time.sleep(0.02)
    assert process.returncode == 0, process.stderr.read()
    return peak


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_times_the_images_take_no_more_memory(workspace: Path, write_params: WriteParams) -> None:
    network = {"train.backbone": "squeezenet1_1", "train.batch_size": 256, "train.epochs": 1, "train.warmup_epochs": 0.5}
    write_params(TINY | network | {"train.augmentation.preset": "none", "train.batch_norm_images": 100_000})
    peaks = []
    for name, images in (("few", FEW), ("many", MANY)):
        folder = workspace / name
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            write_inputs(folder, images=images)
            (folder / "params.yaml").write_bytes((workspace / "params.yaml").read_bytes())
            peaks.append(peak_megabytes())
    for part in ("stage", "worker"):
        # The lists themselves, an id and a few numbers an image, may grow by some 15 MB for the many, and peaks vary by as much
        # from run to run. A copy of the array would come on top of both.
        assert peaks[1][part] - peaks[0][part] < 0.8 * ARRAY_MEGABYTES, peaks
