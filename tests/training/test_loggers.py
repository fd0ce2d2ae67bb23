"""Loggers with stand-ins for packages that may be absent, and with the real ones where they are installed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from skinlesion.training.loggers import open_loggers
from tests.conftest import refuses

FOLDER = Path("plots/train/base-0")
EPOCHS = [{"train/loss": 1.5, "val/macro_auc": 0.6}, {"train/loss": 1.25, "val/macro_auc": 0.7}]


def log(names: list[str]) -> None:
    """Two epochs, as the stage gives them."""
    loggers = open_loggers(names, FOLDER)
    for metrics in EPOCHS:
        for logger in loggers:
            logger.log_epoch(metrics)
    for logger in loggers:
        logger.close()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put an object in the place of a module."""

    def put(name: str, **content: Any) -> None:
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))

    return put


@pytest.fixture
def tensorboard(stand_in: Callable[..., None]) -> list[tuple[Any, ...]]:
    """Calls of a stand-in for TensorBoard's writer."""
    calls: list[tuple[Any, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            self.folder = Path(folder)

        def add_scalar(self, name: str, value: float, *, global_step: int) -> None:
            calls.append((self.folder.name, name, value, global_step))

        def flush(self) -> None:
            calls.append((self.folder.name, "flush"))

        def close(self) -> None:
            calls.append((self.folder.name, "close"))

    stand_in("torch.utils.tensorboard", SummaryWriter=SummaryWriter)
    return calls


@pytest.fixture
def mlflow(stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Calls of a stand-in for MLflow, without its environment variables."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    calls: list[tuple[Any, ...]] = []

    class MlflowException(Exception):
        pass

    def log_metrics(metrics: dict[str, float], *, step: int) -> None:
        if metrics["train/loss"] < 0:
            raise MlflowException("no route")
        calls.append(("log_metrics", metrics, step))

    stand_in(
        "mlflow",
        exceptions=SimpleNamespace(MlflowException=MlflowException),
        set_tracking_uri=lambda uri: calls.append(("set_tracking_uri", uri)),
        get_tracking_uri=lambda: "http://there",
        set_experiment=lambda name: calls.append(("set_experiment", name)),
        start_run=lambda *, run_name: calls.append(("start_run", run_name)),
        log_metrics=log_metrics,
        end_run=lambda: calls.append(("end_run",)),
    )
    return calls


def test_no_logger_still_makes_the_folder(workspace: Path) -> None:
    log([])
    assert list((workspace / FOLDER).iterdir()) == []
    assert not (workspace / "logs").exists()


def test_dvclive_writes_a_row_an_epoch_into_the_folder(workspace: Path) -> None:
    log(["dvclive"])
    written = (workspace / FOLDER / "plots/metrics/val/macro_auc.tsv").read_text()
    assert written.split() == ["step", "macro_auc", "0", "0.6", "1", "0.7"]
    assert not (workspace / "dvc.yaml").exists()


def test_tensorboard_gets_every_scalar_in_a_new_folder_under_the_main_root(
    workspace: Path, tensorboard: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(workspace / "root"))
    calls = [
        *[("train/loss", 1.5, 1), ("val/macro_auc", 0.6, 1), ("flush",)],
        *[("train/loss", 1.25, 2), ("val/macro_auc", 0.7, 2), ("flush",), ("close",)],
    ]
    for number in ("001", "002"):
        log(["tensorboard"])
        assert tensorboard[-7:] == [(number, *call) for call in calls]
    assert sorted(path.name for path in (workspace / "root/logs/tensorboard/base-0").iterdir()) == ["001", "002"]
    assert list((workspace / FOLDER).iterdir()) == []  # which is an output of the stage


def test_mlflow_gets_a_run_with_the_name_of_the_member(workspace: Path, mlflow: list[tuple[Any, ...]]) -> None:
    log(["mlflow"])
    assert mlflow == [
        ("set_tracking_uri", f"sqlite:///{workspace.resolve()}/logs/mlflow/mlflow.db"),
        ("set_experiment", "skin-lesions"),
        ("start_run", "base-0"),
        ("log_metrics", EPOCHS[0], 1),
        ("log_metrics", EPOCHS[1], 2),
        ("end_run",),
    ]


def test_mlflow_makes_its_tables_alone(workspace: Path, mlflow: list[tuple[Any, ...]]) -> None:
    (workspace / "logs/mlflow").mkdir(parents=True)
    held = FileLock(workspace / "logs/mlflow/mlflow.lock")
    opening = threading.Thread(target=open_loggers, args=(["mlflow"], FOLDER), daemon=True)
    with held:
        opening.start()
        opening.join(0.3)
        assert ("set_experiment", "skin-lesions") not in mlflow
    opening.join(10)
    assert mlflow[-1] == ("start_run", "base-0")


def test_mlflow_keeps_to_its_environment_variables(
    workspace: Path, mlflow: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    log(["mlflow"])
    assert mlflow[:2] == [("set_experiment", "mine"), ("start_run", "base-0")]
    assert not (workspace / "logs").exists()


def test_a_failing_mlflow_server_is_named(workspace: Path, mlflow: list[tuple[Any, ...]]) -> None:
    [logger] = open_loggers(["mlflow"], FOLDER)
    message = r"MLflow at http://there fails \(no route\).*MLFLOW_TRACKING_URI.*train.loggers"
    refuses(message, logger.log_epoch, {"train/loss": -1.0})


@pytest.mark.parametrize("name", ["dvclive", "tensorboard", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_opened(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # so that its import fails
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    requirements = "requirements.txt" if name == "dvclive" else "requirements/loggers.txt"
    message = f"names {name}, and the package {name} .*pip install -r {requirements}"
    refuses(message, open_loggers, ["dvclive", name] if name != "dvclive" else [name], FOLDER)
    assert list((workspace / FOLDER).iterdir()) == []


def test_what_a_package_lacks_itself_is_not_blamed_on_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "mlflow.py").write_text("import a_package_that_nobody_has\n", encoding="utf-8")
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    monkeypatch.syspath_prepend(str(workspace))
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        open_loggers(["mlflow"], FOLDER)


def test_tensorboard_itself_reads_the_curves(workspace: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log(["tensorboard"])
    events = accumulator.EventAccumulator(str(workspace / "logs/tensorboard/base-0/001")).Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("val/macro_auc")]
    assert scalars == [(1, pytest.approx(0.6)), (2, pytest.approx(0.7))]


def test_mlflow_itself_keeps_the_curves(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    log(["mlflow"])
    client = mlflow.MlflowClient(f"sqlite:///{workspace.resolve()}/logs/mlflow/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("skin-lesions").experiment_id])
    history = client.get_metric_history(run.info.run_id, "val/macro_auc")
    assert run.info.run_name == "base-0"
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.6), (2, 0.7)]
    assert sorted(path.name for path in workspace.iterdir()) == ["logs", "plots"]
