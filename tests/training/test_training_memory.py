"""Peak memory of a training must not grow with the number of images: measured at N and 10 N."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import WriteParams
from tests.training.training_cases import TINY, finish, start_train, write_inputs

FEW, MANY = 2_000, 20_000
ARRAY_MEGABYTES = (MANY - FEW) * 32 * 32 * 3 / 1e6  # 55: what one copy of the array more would cost


def anonymous_megabytes(process: psutil.Process) -> float:
    """Memory of a process that no file backs; 0 once it has ended."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return (memory.rss - memory.shared) / 1e6


def peak_megabytes() -> dict[str, float]:
    """The highest anonymous memory of the stage and of the largest of its loading processes."""
    process, peak = start_train(), {"stage": 0.0, "worker": 0.0}
    stage = psutil.Process(process.pid)
    while process.poll() is None:
        peak["stage"] = max(peak["stage"], anonymous_megabytes(stage))
        peak["worker"] = max([peak["worker"], *map(anonymous_megabytes, stage.children())])
        time.sleep(0.02)
    finish(process)
    return peak


@pytest.mark.skipif(sys.platform != "linux", reason="what is shared is counted on Linux alone")
def test_ten_times_the_images_take_no_more_memory(workspace: Path, write_params: WriteParams) -> None:
    network = {"train.backbone": "squeezenet1_1", "train.batch_size": 256, "train.epochs": 1, "train.warmup_epochs": 0.5}
    write_params(TINY | network | {"train.augmentation.preset": "none", "train.batch_norm_images": 100_000})
    peaks = []
    for name, images in (("few", FEW), ("many", MANY)):
        folder = workspace / name
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            write_inputs(images=images)
            (folder / "params.yaml").write_bytes((workspace / "params.yaml").read_bytes())
            peaks.append(peak_megabytes())
    for part in ("stage", "worker"):
        # The lists themselves, an id and a few numbers an image, may grow by some 15 MB for the many, and peaks vary by as much
        # from run to run. A copy of the array would come on top of both.
        assert peaks[1][part] - peaks[0][part] < 0.8 * ARRAY_MEGABYTES, peaks
