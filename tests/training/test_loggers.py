"""Loggers with stand-ins for packages that may be absent, and with the real ones where they are installed."""

import sys
import threading
from pathlib import Path
from unittest.mock import Mock, call

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
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's environment variables are not set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


@pytest.fixture
def mlflow(without_settings: None, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """A stand-in for MLflow."""
    stand_in = Mock()
    stand_in.exceptions.MlflowException = ConnectionError
    stand_in.get_tracking_uri.return_value = "http://there"
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    return stand_in


def test_no_logger_still_makes_the_folder(workspace: Path) -> None:
    log([])
    assert list((workspace / FOLDER).iterdir()) == []
    assert not (workspace / "logs").exists()


def test_dvclive_writes_a_row_an_epoch_into_the_folder(workspace: Path) -> None:
    log(["dvclive"])
    written = (workspace / FOLDER / "plots/metrics/val/macro_auc.tsv").read_text()
    assert written.split() == ["step", "macro_auc", "0", "0.6", "1", "0.7"]
    assert not (workspace / "dvc.yaml").exists()


def test_tensorboard_gets_every_scalar_in_a_new_folder_of_the_main_root(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(workspace / "root"))
    folder = workspace / "root/logs/tensorboard/base-0"
    for number in ("001", "002"):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in := Mock())
        log(["tensorboard"])
        opened, *calls = stand_in.mock_calls
        assert opened == call.SummaryWriter(str(folder / number))
        writer, scalar = call.SummaryWriter(), call.SummaryWriter().add_scalar
        assert calls == [
            *(scalar("train/loss", 1.5, global_step=1), scalar("val/macro_auc", 0.6, global_step=1), writer.flush()),
            *(scalar("train/loss", 1.25, global_step=2), scalar("val/macro_auc", 0.7, global_step=2), writer.flush()),
            writer.close(),
        ]
    assert sorted(path.name for path in folder.iterdir()) == ["001", "002"]
    assert list((workspace / FOLDER).iterdir()) == []  # which is an output of the stage


def test_mlflow_gets_a_run_with_the_name_of_the_member(workspace: Path, mlflow: Mock) -> None:
    log(["mlflow"])
    assert mlflow.mock_calls == [
        call.set_tracking_uri(f"sqlite:///{workspace.resolve()}/logs/mlflow/mlflow.db"),
        *(call.set_experiment("skin-lesions"), call.start_run(run_name="base-0")),
        *(call.log_metrics(metrics, step=step) for step, metrics in enumerate(EPOCHS, start=1)),
        call.end_run(),
    ]


def test_mlflow_makes_its_tables_alone(workspace: Path, mlflow: Mock) -> None:
    (workspace / "logs/mlflow").mkdir(parents=True)
    held = FileLock(workspace / "logs/mlflow/mlflow.lock")
    opening = threading.Thread(target=open_loggers, args=(["mlflow"], FOLDER), daemon=True)
    with held:
        opening.start()
        opening.join(0.3)
        mlflow.set_experiment.assert_not_called()
    opening.join(10)
    assert mlflow.mock_calls[-1] == call.start_run(run_name="base-0")


def test_mlflow_keeps_to_its_environment_variables(workspace: Path, mlflow: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    log(["mlflow"])
    assert mlflow.mock_calls[:2] == [call.set_experiment("mine"), call.start_run(run_name="base-0")]
    assert not (workspace / "logs").exists()


def test_a_failing_mlflow_server_is_named(workspace: Path, mlflow: Mock) -> None:
    [logger] = open_loggers(["mlflow"], FOLDER)
    mlflow.log_metrics.side_effect = ConnectionError("no route")
    refuses(r"MLflow at http://there fails \(no route\).*MLFLOW_TRACKING_URI.*train.loggers", logger.log_epoch, EPOCHS[0])


@pytest.mark.parametrize("name", ["dvclive", "tensorboard", "mlflow"])
def test_a_missing_package_is_named_before_anything_opens(workspace: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
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


def test_mlflow_itself_keeps_the_curves(workspace: Path, without_settings: None) -> None:
    mlflow = pytest.importorskip("mlflow")
    log(["mlflow"])
    client = mlflow.MlflowClient(f"sqlite:///{workspace.resolve()}/logs/mlflow/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("skin-lesions").experiment_id])
    history = client.get_metric_history(run.info.run_id, "val/macro_auc")
    assert run.info.run_name == "base-0"
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.6), (2, 0.7)]
    assert sorted(path.name for path in workspace.iterdir()) == ["logs", "plots"]
