"""A training that was stopped or killed ends as if it had not been, and goes on from no checkpoint but its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from skinlesion.artifacts.prepared import PREPARED
from skinlesion.base import locks
from skinlesion.training import fit, loop
from tests.conftest import WriteParams, refuses
from tests.training.training_cases import MEMBER, TINY, finish, kill_at, outputs, start_train, train_base


def test_killed_in_mid_training_it_goes_on_and_ends_the_same(prepared_workspace: Path) -> None:
    train_base()
    undisturbed = outputs()
    kill_at("epoch 1/")
    assert list((prepared_workspace / ".resume" / "train").glob("*.pt"))
    stderr = finish(start_train())
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
def test_a_stop_changes_no_training(prepared_workspace: Path, write_params: WriteParams, options: dict[str, object]) -> None:
    write_params(TINY | {"train.epochs": 4} | options)
    train_base()
    undisturbed = outputs()
    stop_after(2)
    torch.manual_seed(999)  # what another process would have
    train_base()
    assert outputs() == undisturbed


def stop_after(epochs: int) -> None:
    """Run the stage, and stop it once so many epochs are done."""
    left = iter([loop.train_one_epoch] * epochs)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopIteration):
        patch.setattr(fit, "train_one_epoch", lambda *arguments, **options: next(left)(*arguments, **options))
        train_base()


@pytest.fixture
def interrupted(prepared_workspace: Path) -> Path:
    """A training that was stopped after its first epoch and left a checkpoint."""
    stop_after(1)
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
    with FileLock(interrupted.with_suffix(".lock")):
        refuses("another process is training exactly this", train_base)
    train_base()
    assert MEMBER.is_dir()
