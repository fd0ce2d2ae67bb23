"""The pieces of the loop on hand-computed cases and against scikit-learn, and the train stage through its public door."""

import errno
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch._inductor.config
from scipy.special import softmax
from sklearn import metrics

from skinlesion.artifacts.paths import MEMBERS
from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.splits import SPLITS, read_split
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import predict
from skinlesion.model.classifier import load_classifier, normalize, read_classifier_config
from skinlesion.training import fit, loop
from stages import train
from tests.conftest import WriteParams, refuses
from tests.training.training_cases import MEMBER, PLOTS, SUMMARY, TINY, outputs, train_base


def test_validation_metrics_equal_scikit_learn() -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 7, size=300)
    logits = random.normal(size=(300, 7)) + 2 * np.eye(7)[labels]
    ours = loop.validation_metrics(logits.astype(np.float32), labels)
    probabilities, predicted = softmax(logits, axis=1), logits.argmax(axis=1)
    theirs = {
        "val/loss": metrics.log_loss(labels, probabilities),
        "val/accuracy": metrics.accuracy_score(labels, predicted),
        "val/balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "val/macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "val/macro_auc": metrics.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "val/mel_recall": metrics.recall_score(labels == 4, predicted == 4),
    }
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_logits_that_are_not_finite_are_refused() -> None:
    refuses(r"not finite: lower train\.lr", lambda: loop.validation_metrics(np.array([[math.nan] * 7]), np.array([0])))


def test_better_is_less_for_loss_and_more_for_the_rest() -> None:
    assert loop.is_better(0.1, 0.2, select_by="loss") and not loop.is_better(0.3, 0.2, select_by="loss")
    assert loop.is_better(0.3, 0.2, select_by="macro_f1") and not loop.is_better(0.2, 0.2, select_by="macro_f1")


def test_batch_norm_gets_the_statistics_of_plain_images(prepared_workspace: Path, write_params: WriteParams) -> None:
    write_params(TINY | {"train.epochs": 1, "train.patience": 1})
    train_base()
    model, config = load_classifier(MEMBER)
    images = torch.from_numpy(read_prepared().images[:84].copy())  # the training list, all in one batch
    first = model.backbone.features[0][0](normalize(images, config))
    running = model.backbone.features[0][1]
    torch.testing.assert_close(running.running_mean, first.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(running.running_var, first.var(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    write_params(TINY | {"train.epochs": 1, "train.batch_norm_images": 0})
    train_base()
    kept = load_classifier(MEMBER)[0].backbone.features[0][1]
    assert not torch.allclose(kept.running_mean, running.running_mean, atol=1e-3)


def test_the_stage_learns_and_what_it_writes_can_be_loaded(prepared_workspace: Path, write_params: WriteParams) -> None:
    write_params(TINY | {"train.epochs": 6, "train.backbone": "resnet18", "train.lr": 0.001})
    train_base()
    config = load_classifier(MEMBER).config
    assert (config.backbone, config.size, config.fit, config.classes) == ("resnet18", 32, "squash", CLASSES)
    assert config.data == {"source": "sample", "synthetic": True} and config.weights_sha256 is None
    test = read_split("test")
    predicted = predict(load_classifier(MEMBER), read_prepared(), test, device=torch.device("cpu"), batch_size=8)
    logits = predicted.logits
    accuracy = (logits.argmax(axis=1) == test["dx"].map(CLASSES.index)).mean()
    assert accuracy > 0.6  # chance is 1/7
    summary = json.loads((SUMMARY).read_text(encoding="utf-8"))
    curve = pd.read_csv(PLOTS / "plots" / "metrics" / "val" / "macro_auc.tsv", sep="\t")
    assert summary["epochs"] == len(curve) == 6
    assert summary["val"]["macro_auc"] == pytest.approx(curve["macro_auc"].max())
    assert summary["best_epoch"] == config.epoch == curve["macro_auc"].idxmax() + 1
    assert not list((prepared_workspace / ".resume").rglob("*.pt"))


def test_two_runs_give_the_same_bytes_and_another_seed_does_not(prepared_workspace: Path, write_params: WriteParams) -> None:
    write_params(TINY | {"train.epochs": 2})
    train_base()
    first = outputs()
    train_base()
    assert outputs() == first
    train.main(["--member", "base", "--seed", "1"])
    other = (MEMBERS / "base-1" / "weights.safetensors").read_bytes()
    assert other != first[str(MEMBER / "weights.safetensors")]


def test_a_full_disk_is_one_message_and_nothing_half_written(prepared_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=r"No space left on device .*free some space"):
        patch.setattr(Path, "write_bytes", full)
        run_stage(train_base)
    assert not list((prepared_workspace / ".resume" / "train").glob("*.pt*"))
    assert not MEMBER.exists()


def test_out_of_memory_names_the_way_out(prepared_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(loop, "train_step", exhausted)
    with pytest.raises(SystemExit, match=r"out of memory at train.batch_size 16: lower it"):
        run_stage(train_base)


def test_a_failed_compile_is_named(prepared_workspace: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(TINY | {"train.compile": True, "train.epochs": 1, "train.backbone": "squeezenet1_1"})  # compiled soonest
    monkeypatch.setenv("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
    with (
        # Not by monkeypatch, whose undoing leaves torch's configuration without the key, for every test behind this one.
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(PipelineError, match=r"could not compile 'squeezenet1_1' .*set train\.compile=false"),
    ):
        train_base()


def test_patience_ends_training(prepared_workspace: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    monkeypatch.setattr(fit, "validate", lambda _: {"val/macro_auc": next(values)})
    write_params(TINY | {"train.patience": 2, "train.epochs": 5})
    train_base()
    assert read_classifier_config(MEMBER).epoch == 2
    assert json.loads((SUMMARY).read_text(encoding="utf-8"))["epochs"] == 4


def test_no_loggers_need_no_dvc(prepared_workspace: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dvclive", None)
    write_params(TINY | {"train.epochs": 1, "train.loggers": []})
    train_base()
    assert PLOTS.is_dir()
    write_params(TINY | {"train.epochs": 1, "train.lr": 0.004})
    refuses("dvclive is not installed", train_base)


def test_an_exploding_loss_is_named(prepared_workspace: Path, write_params: WriteParams) -> None:
    write_params(TINY | {"train.lr": 1e30})
    refuses(r"lower train\.lr", train_base)
    assert not MEMBER.exists()


REFUSALS: list[tuple[Callable[[], object], dict[str, object], str]] = [
    (lambda: None, {"machine.device": "xpu"}, "error: device 'xpu' is not available here"),
    (lambda: None, {"train.weights": "absent.pth"}, "error: train.weights: no file absent.pth"),
    (lambda: None, {"train.backbone": "resnt18"}, "did you mean 'resnet18'?"),
    (lambda: (PREPARED / "images.npy").unlink(), {}, "images.npy not found: run `prepare` first"),
    (lambda: (SPLITS / "val.csv").unlink(), {}, "val.csv not found: run the stage that writes it first"),
]


@pytest.mark.parametrize(("spoil", "overrides", "message"), REFUSALS)
def test_refusals_are_one_message(
    prepared_workspace: Path, write_params: WriteParams, spoil: Callable[[], object], overrides: dict[str, object], message: str
) -> None:
    write_params(TINY | overrides)
    spoil()
    with pytest.raises(SystemExit) as refusal:
        run_stage(train_base)
    assert message in str(refusal.value) and "\n\n" not in str(refusal.value)
    assert not MEMBER.exists()
