"""A training that was stopped or killed ends as if it had not been, and goes on from no checkpoint but its own."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from skinlesion.artifacts.prepared import PREPARED
from skinlesion.base import locks
from skinlesion.base.errors import PipelineError
from skinlesion.training import fit, loop
from tests.conftest import WriteParams, refuses
from tests.training.training_cases import MEMBER, TINY, outputs, start_train, train_base


def test_killed_in_mid_training_it_goes_on_and_ends_the_same(prepared_workspace: Path) -> None:
    train_base()
    undisturbed = outputs()
    process = start_train()
    for line in process.stderr:
        if line.startswith("epoch 1/"):
            break
    time.sleep(0.3)  # somewhere in the second epoch
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list((prepared_workspace / ".resume" / "train").glob("*.pt"))
    process = start_train()
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 0, stderr
    assert "resuming from" in stderr and "epoch 1/3" not in stderr
    assert outputs() == undisturbed
    assert not list((prepared_workspace / ".resume" / "train").glob("*.pt"))


RESUMED: list[dict[str, object]] = [
    {"train.average": "ema", "train.augmentation.preset": "strong", "train.schedule": "one_cycle", "train.accumulate": 2},
    {"train.average": "swa", "train.swa_start": 0.3, "train.batch_norm_images": 0, "train.sampler": "balanced"},
    {"train.optimizer": "sgd", "train.schedule": "plateau", "train.plateau_patience": 0, "train.metadata": True},
    {"train.schedule": "cosine_restarts", "train.restart_epochs": 2, "train.defer_weights": 0.4, "train.loss": "focal"},
    {"train.freeze_epochs": 2, "train.warmup_epochs": 0.5, "train.sam_rho": 0.05, "train.one_view_per_lesion": True},
]


@pytest.mark.parametrize("options", RESUMED)
def test_a_stopped_training_ends_as_if_it_had_not_been(
    prepared_workspace: Path, write_params: WriteParams, options: dict[str, object]
) -> None:
    write_params(TINY | {"train.epochs": 4} | options)
    train_base()
    undisturbed = outputs()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr(fit, "train_one_epoch", stop_after(2))
        train_base()
    torch.manual_seed(999)  # what another process would have
    train_base()
    assert outputs() == undisturbed


def stop_after(epochs: int) -> Callable[..., dict[str, float]]:
    """`train_one_epoch` that raises StopIteration once so many epochs are done."""
    left = iter([loop.train_one_epoch] * epochs)

    def train_or_stop(*arguments: object, **options: object) -> dict[str, float]:
        return next(left)(*arguments, **options)

    return train_or_stop


@pytest.fixture
def interrupted(prepared_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training that was stopped after its first epoch and left a checkpoint."""
    with monkeypatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr(fit, "train_one_epoch", stop_after(1))
        train_base()
    return next((prepared_workspace / ".resume" / "train").glob("*.pt"))


@pytest.mark.parametrize("changed", ["params", "pixels"])
def test_a_checkpoint_of_another_training_is_not_resumed_from(
    interrupted: Path, write_params: WriteParams, caplog: pytest.LogCaptureFixture, changed: str
) -> None:
    if changed == "params":
        write_params(TINY | {"train.lr": 0.002, "train.epochs": 1})
    else:
        np.save(PREPARED / "images.npy", np.load(PREPARED / "images.npy")[:, ::-1])
    with caplog.at_level("INFO"):
        train_base()
    assert "resuming" not in caplog.text
    assert interrupted.is_file()  # it belongs to the other training


def test_a_damaged_checkpoint_is_named(interrupted: Path) -> None:
    interrupted.write_bytes(interrupted.read_bytes()[:1000])
    refuses(f"checkpoint .*{interrupted.name} is damaged .*delete it", train_base)


def test_the_same_training_twice_at_once_is_refused(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 0.1)
    with (
        FileLock(interrupted.with_suffix(".lock")),
        pytest.raises(PipelineError, match="another process is training exactly this"),
    ):
        train_base()
    train_base()
    assert MEMBER.is_dir()
