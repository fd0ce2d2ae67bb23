"""What the log of a `dvc repro` says of the run: which stages ran, on what device, how fast, for how long."""

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class RunLog:
    """What happened to each stage, and how the networks were trained."""

    ran: tuple[str, ...]
    restored: tuple[str, ...]  # from the run cache or the remote, without being run
    trainings: tuple[str, ...]  # as `base-0 (resnet18) on 1 x cuda in bf16-mixed`
    images_per_second: float | None  # median over all epochs; None where nothing was trained
    seconds: int | None


def read_log(path: Path) -> RunLog:
    """Read what `ci/repro.sh` wrote."""
    text = path.read_text(encoding="utf-8", errors="replace")
    speeds = [float(speed.replace(",", "")) for speed in re.findall(r"^epoch .*?, ([\d,.]+) images/s", text, re.MULTILINE)]
    took = re.search(r"^dvc repro took (\d+) seconds", text, re.MULTILINE)
    restored = {
        *re.findall(r"^Stage '([^']+)' is cached - skipping run", text, re.MULTILINE),
        *re.findall(r"^Pulling data for stage: '([^']+)'", text, re.MULTILINE),
    }
    ran = tuple(re.findall(r"^Running stage '([^']+)'", text, re.MULTILINE))
    return RunLog(
        ran=ran,
        restored=tuple(sorted(restored.difference(ran))),
        trainings=tuple(re.findall(r"^training (.+ on \d+ x .+)$", text, re.MULTILINE)),
        images_per_second=median(speeds) if speeds else None,
        seconds=int(took[1]) if took else None,
    )
