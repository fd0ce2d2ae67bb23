"""Two processes on the CPU, started by Fabric and by torchrun, must train what one does, and only the first may write."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch

from skinlesion.training import engine
from tests.conftest import WriteParams, refuses
from tests.training.training_cases import MEMBER, PLOTS, SUMMARY, TINY, finish, kill_at, start_train, train_base, write_inputs

# A network without batch norm and dropout: what remains must agree but for rounding. 42 training images make two batches of
# 16 and one of 10; 13 validation images make uneven shares.
SHARED = TINY | {
    "train.backbone": "squeezenet1_1",
    "train.dropout": 0.0,
    "train.epochs": 2,
    "train.optimizer": "sgd",  # unlike AdamW's, its steps tell the scale of the gradient
    "train.lr": 0.01,
    "machine.device": "cpu",
    "train.precision": "32",
    "train.accumulate": 2,
    "train.average": "ema",
}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def results() -> tuple[pd.DataFrame, dict[str, torch.Tensor], dict[str, object]]:
    """History, weights and summary of the member that was trained."""
    summary = json.loads(SUMMARY.read_text(encoding="utf-8"))
    return pd.read_csv(PLOTS / "history.csv"), safetensors.torch.load_file(MEMBER / "weights.safetensors"), summary


def test_two_processes_train_what_one_does(workspace: Path, write_params: WriteParams) -> None:
    write_inputs(images=70)
    write_params(SHARED)
    train_base()
    alone = results()
    write_params(SHARED | {"machine.devices": 2})
    for launcher in ((), TORCHRUN):
        shutil.rmtree(MEMBER)
        stderr = finish(start_train(*launcher))
        assert stderr.count("epoch 1/2: training loss") == 1, launcher  # the second process says nothing
        history, weights, summary = results()
        pd.testing.assert_frame_equal(history, alone[0], rtol=2e-3, atol=2e-4, obj=str(launcher))
        for name, tensor in alone[1].items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-2, atol=2e-4)
        assert summary["images"] == alone[2]["images"] == {"train": 42, "synthetic": 0, "val": 13}


@pytest.mark.operations
def test_two_processes_freeze_sample_and_stop_and_go_on(workspace: Path, write_params: WriteParams) -> None:
    """With batch norm and dropout two are not one, but they must end, and after a stop as if there had been none."""
    write_inputs()
    options = {"machine.devices": 2, "machine.device": "cpu", "train.freeze_epochs": 1, "train.sampler": "balanced"}
    write_params(TINY | options | {"train.metadata": True, "train.precision": "32"})
    finish(start_train())
    undisturbed = (MEMBER / "weights.safetensors").read_bytes()
    kill_at("epoch 2/")
    assert "resuming from" in finish(start_train())
    assert (MEMBER / "weights.safetensors").read_bytes() == undisturbed


def test_a_failure_of_the_first_process_ends_the_second(workspace: Path, write_params: WriteParams) -> None:
    write_inputs(images=70)
    write_params(TINY | {"machine.devices": 2, "machine.device": "cpu", "train.precision": "32"})
    (workspace / "plots").write_text("no folder", encoding="utf-8")  # only the first process writes there
    process = start_train()
    stderr = process.communicate(timeout=100)[1]
    assert process.returncode != 0 and "error: " in stderr


def test_torchrun_with_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    refuses(r"torchrun started 4 process\(es\), and machine\.devices x machine\.num_nodes is 2", engine.check_launcher, 2, 1)
    engine.check_launcher(4, 2)


def test_several_nodes_that_nobody_starts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_RANK", raising=False)
    refuses(r"num_nodes=2 needs the stage to be started on every node", engine.check_launcher, 2, 2)


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert engine.count_devices("auto", torch.device("cuda")) == 1
    refuses(r"devices=2, and this machine has 1 GPU", lambda: engine.count_devices(2, torch.device("cuda")))
    refuses("one mps device", lambda: engine.count_devices(2, torch.device("mps")))
