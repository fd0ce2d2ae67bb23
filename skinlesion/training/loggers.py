"""Live curves of a training for those who watch it: one small interface, and the loggers that `train.loggers` can name.

Without a logger nothing is lost: history.csv has every metric of every epoch, and `assemble` puts all members' curves into one
table. What DVCLive writes is part of the stage's output. TensorBoard's and MLflow's files hold times, so they go where DVC does
not look: to `logs/` under the main root, also when DVC runs the stage in a temporary workspace. Both begin afresh at every start
of the stage: a resumed training gives its earlier epochs again, so that the latest run has every epoch once, and a run that was
killed ends there.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from filelock import FileLock

from skinlesion.base.errors import PipelineError
from skinlesion.base.files import resolve_from_root
from skinlesion.config.prerequisites import describe_missing_logger

LOGS = "logs"  # from the main root; in .gitignore
EXPERIMENT = "skin-lesions"  # of MLflow, where MLFLOW_EXPERIMENT_NAME names no other


class MetricLogger(Protocol):
    """Takes one dictionary of scalars an epoch, in order; after a resume the earlier epochs are given again."""

    def log_epoch(self, metrics: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class DVCLiveLogger:
    """Curves as DVC plots them: `FOLDER/plots/metrics/<name>.tsv`, a row an epoch."""

    def __init__(self, dvclive: Any, folder: Path) -> None:
        # The defaults would rewrite dvc.yaml and create an experiment in the middle of a stage.
        self.live = dvclive.Live(str(folder), dvcyaml=None, save_dvc_exp=False)

    def log_epoch(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.live.log_metric(name, value)
        self.live.next_step()

    def close(self) -> None:
        self.live.end()


class TensorBoardLogger:
    """Event files in `logs/tensorboard/MEMBER/NUMBER/`, the member being the folder's last part, a new number at every start."""

    def __init__(self, tensorboard: Any, folder: Path) -> None:
        self.writer = tensorboard.SummaryWriter(str(_new_numbered_folder(resolve_from_root(LOGS) / "tensorboard" / folder.name)))
        self.epoch = 0

    def log_epoch(self, metrics: dict[str, float]) -> None:
        self.epoch += 1
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, global_step=self.epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MLflowLogger:
    """A run, named as the folder's last part (the member), where MLFLOW_TRACKING_URI says, or in `logs/mlflow/mlflow.db`."""

    def __init__(self, mlflow: Any, folder: Path) -> None:
        self.mlflow = mlflow
        self.epoch = 0
        only_we: AbstractContextManager[Any] = nullcontext()
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            database = resolve_from_root(LOGS).resolve() / "mlflow" / "mlflow.db"
            database.parent.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{database.as_posix()}")
            only_we = FileLock(database.with_suffix(".lock"))  # two that create the tables at once fail
        with only_we, self._explained():
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
            self.run = mlflow.start_run(run_name=folder.name)

    def log_epoch(self, metrics: dict[str, float]) -> None:
        self.epoch += 1
        with self._explained():
            self.mlflow.log_metrics(metrics, step=self.epoch)

    def close(self) -> None:
        with self._explained():
            self.mlflow.end_run()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say which server refuses, and the way out."""
        try:
            yield
        except self.mlflow.exceptions.MlflowException as error:
            raise PipelineError(
                f"MLflow at {self.mlflow.get_tracking_uri()} fails ({error}): see to the server, correct MLFLOW_TRACKING_URI, "
                "or leave mlflow out of train.loggers; what was trained so far is kept for the next start"
            ) from None


# The logger's class, and the module that it takes.
LOGGERS: dict[str, tuple[type, str]] = {
    "dvclive": (DVCLiveLogger, "dvclive"),
    "tensorboard": (TensorBoardLogger, "torch.utils.tensorboard"),
    "mlflow": (MLflowLogger, "mlflow"),
}


def open_loggers(names: list[str], folder: Path) -> list[MetricLogger]:
    """Open the named loggers for the training whose plots stand in `folder`, which exists afterwards also without a logger.

    Raises
    ------
    PipelineError
        A logger's package is not installed; then none is opened.
    """
    folder.mkdir(parents=True, exist_ok=True)
    modules = [_import_for(name) for name in names]
    return [LOGGERS[name][0](module, folder) for name, module in zip(names, modules, strict=True)]


def _import_for(name: str) -> ModuleType:
    """The module that a logger needs, imported only when asked for."""
    try:
        return importlib.import_module(LOGGERS[name][1])
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name:
            raise  # the package is there and lacks something itself
        raise PipelineError(describe_missing_logger(name)) from None


def _new_numbered_folder(parent: Path) -> Path:
    """Make `parent`/001 or the first number after it that is free."""
    for number in count(1):
        folder = parent / f"{number:03d}"
        with suppress(FileExistsError):  # an earlier start's, or that of a training at the same time
            folder.mkdir(parents=True)
            break
    return folder
