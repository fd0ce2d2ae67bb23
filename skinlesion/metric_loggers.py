"""Where the curves of a training go: one small interface, and the loggers that `train.loggers` can name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class MetricLogger(Protocol):
    """Takes one dictionary of scalars an epoch, in order; after a resume the earlier epochs are given again."""

    def log_epoch(self, metrics: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class DVCLiveLogger:
    """Curves as DVC plots them: `FOLDER/plots/metrics/<name>.tsv`, a row an epoch."""

    def __init__(self, folder: Path) -> None:
        from dvclive import Live  # imported only when asked for: training works without DVC

        # The defaults would rewrite dvc.yaml and create an experiment in the middle of a stage.
        self.live = Live(str(folder), dvcyaml=None, save_dvc_exp=False)

    def log_epoch(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.live.log_metric(name, value)
        self.live.next_step()

    def close(self) -> None:
        self.live.end()


LOGGERS: dict[str, type[DVCLiveLogger]] = {"dvclive": DVCLiveLogger}


def open_loggers(names: list[str], folder: Path) -> list[MetricLogger]:
    """Open the named loggers on `folder`, which exists afterwards also when no logger is named."""
    folder.mkdir(parents=True, exist_ok=True)
    return [LOGGERS[name](folder) for name in names]
