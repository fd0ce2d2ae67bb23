"""Every value of the section `train` must change what is trained, and the loop must do with it what the field means by it."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.splits import read_split
from skinlesion.artifacts.synthetic import read_synthetic
from skinlesion.config.params import load_params
from skinlesion.diagnoses import CLASSES
from skinlesion.model.network import NetworkSpec, build_network
from skinlesion.training import engine, fit, loop
from skinlesion.training.loop import Training
from skinlesion.training.setup import build_training, gather_data
from tests.conftest import WriteParams, refuses
from tests.training.training_cases import TINY, write_inputs

Build = Callable[..., Training]

# No option is on that another one could hide behind; two epochs, since some options begin in the second.
PLAIN = TINY | {
    "train.epochs": 2,
    "train.precision": "32",
    "machine.device": "cpu",
    "train.batch_norm_images": 0,
    "train.augmentation.preset": "none",
    "train.warmup_epochs": 0,
    "train.schedule": "none",
    "train.label_smoothing": 0.0,
    "train.class_weights": "none",
    "train.lr": 0.001,
}


class NoCheckpoint:
    """Saves nothing."""

    def save(self, state: dict[str, Any]) -> None: ...

    def load(self) -> None: ...


@pytest.fixture
def build(workspace: Path, write_params: WriteParams) -> Build:
    """Set a training up on a list in which classes and lesions are uneven, from PLAIN with overrides."""
    write_inputs(images=70)
    splits = {name: read_split(name) for name in ("train", "val")}
    train = splits["train"]
    splits["train"] = train[~((train["dx"] == "mel") & (train.index % 2 == 0))].assign(
        lesion_id=lambda frame: frame["lesion_id"].where(frame["dx"] != "nv", "one lesion"), age=lambda frame: frame.index % 80
    )

    def make(overrides: dict[str, Any] | None = None, *, without: str | None = None) -> Training:
        whole = load_params(write_params(PLAIN | (overrides or {})))
        params, machine = whole.train, whole.machine
        prepared = read_prepared()
        torch.manual_seed(0)
        network = build_network(NetworkSpec.of(params), num_classes=7, size=32)
        fabric = engine.make_fabric(params, machine, seed=0)
        lists = splits | {"train": splits["train"][splits["train"]["dx"] != without]}
        data = gather_data(prepared, lists, read_synthetic(32), with_metadata=params.metadata)
        return build_training(fabric, network, data, params=params, machine=machine, seed=0)

    return make


DIGESTS: dict[str, str] = {}


def fitted_digest(build: Build, options: dict[str, Any]) -> str:
    """Hash of the weights at the end and of the history of a training with options; each is trained once."""
    key = repr(sorted(options.items()))
    if key not in DIGESTS:
        setup = build({f"train.{name}": value for name, value in (FASTEST | options).items()})
        fitted = fit.fit(setup, checkpoint=NoCheckpoint(), on_epoch=lambda _: None)
        weights = [tensor.numpy().tobytes() for tensor in setup.evaluated.state_dict().values()]
        DIGESTS[key] = hashlib.sha256(b"".join([repr(fitted.history).encode(), *weights])).hexdigest()
    return DIGESTS[key]


FASTEST = {"backbone": "squeezenet1_1"}
# Values, below those that they are compared with, besides PLAIN's.
OPTIONS: list[tuple[dict[str, Any], list[dict[str, Any]]]] = YAML(typ="safe", pure=True).load("""
- - {}
  - [{head: mlp}, {dropout: 0.2}, {dropout_samples: 3}, {attention: se}, {metadata: true}, {precision: bf16}, {batch_size: 20},
     {accumulate: 2}, {lr: 0.002}, {backbone_lr: 0.0001}, {layer_decay: 0.5}, {freeze_epochs: 1}, {optimizer: sgd},
     {weight_decay: 0.5}, {sam_rho: 0.05}, {clip_norm: 0.1}, {schedule: cosine}, {warmup_epochs: 1}, {average: ema},
     {average: swa, swa_start: 0.0}, {loss: focal}, {loss: class_balanced}, {loss: ldam}, {loss: logit_adjusted},
     {label_smoothing: 0.2}, {class_weights: inverse}, {class_multipliers: {mel: 3.0}}, {sampler: balanced},
     {one_view_per_lesion: true}, {augmentation.preset: light}, {augmentation.mixup: 1.0}, {augmentation.cutmix: 1.0},
     {augmentation.hair: 0.5}]
- [{head: mlp}, [{hidden: 64}, {hidden_dropout: 0.6}]]
- [{attention: se}, [{attention: cbam}]]
- [{metadata: true}, [{metadata_dropout: 0.7}]]
- [{freeze_epochs: 1}, [{freeze_lr: 0.01}]]
- [{optimizer: sgd}, [{momentum: 0.5}]]
- [{schedule: cosine}, [{schedule: cosine_restarts, restart_epochs: 1}]]
- [{schedule: cosine_restarts, restart_epochs: 1}, [{restart_epochs: 2}]]
- [{schedule: cosine, warmup_epochs: 0.5}, [{schedule: one_cycle}]]
# Nothing improves here, so that after the second epoch a plateau is seen.
- [{epochs: 3, select_by: mel_recall, lr: 1.0e-6}, [{schedule: plateau, plateau_patience: 0}]]
- - {epochs: 3, select_by: mel_recall, lr: 1.0e-6, schedule: plateau, plateau_patience: 0}
  - [{plateau_factor: 0.5}, {plateau_patience: 5}]
- [{average: ema}, [{ema_decay: 0.05}]]
- [{average: swa, swa_start: 0.0}, [{swa_start: 0.6}]]
- [{backbone: mobilenet_v3_small}, [{batch_norm_images: 64}]]
- [{loss: focal}, [{focal_gamma: 5.0}]]
- [{loss: class_balanced}, [{effective_beta: 0.5}]]
- [{loss: ldam}, [{ldam_margin: 0.1}, {ldam_scale: 10.0}]]
- [{loss: logit_adjusted}, [{logit_tau: 0.5}]]
- - {class_weights: inverse}
  - [{class_weights: sqrt_inverse}, {class_weights: effective}, {class_weights_mean: classes}, {defer_weights: 0.5}]
- [{sampler: balanced}, [{sampler: square_root}]]
- [{augmentation.mixup: 1.0}, [{augmentation.mix_share: 0.1}]]
""")
CHANGES = [(base, changed) for base, values in OPTIONS for changed in values]


@pytest.mark.parametrize(("base", "changed"), CHANGES, ids=lambda each: ",".join(f"{k}={v}" for k, v in each.items()) or "-")
def test_an_option_changes_what_is_trained(build: Build, base: dict[str, Any], changed: dict[str, Any]) -> None:
    assert fitted_digest(build, base) != fitted_digest(build, base | changed)


def test_memory_order_changes_no_number_that_matters(build: Build) -> None:
    ordered, plain = build({"machine.channels_last": True}), build({"machine.channels_last": False})
    for setup, expected in ((ordered, True), (plain, False)):
        images, _, _ = next(iter(setup.validation_batches))
        assert setup.normalize(images).is_contiguous(memory_format=torch.channels_last) is expected
        kernel = setup.network.backbone.features[0][0].weight
        assert kernel.is_contiguous(memory_format=torch.channels_last) is expected
    assert loop.validate(ordered) == pytest.approx(loop.validate(plain), abs=1e-4)


def test_compile_is_asked_of_torch(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda network, **_: compiled.append(network) or network)
    assert build({"train.compile": True}).network in compiled
    compiled.clear()
    build()
    assert not compiled


def test_frozen_batch_norms_and_weights_do_not_move(build: Build) -> None:
    parts = {"train.attention": "cbam", "train.metadata": True, "train.head": "mlp", "train.dropout": 0.5}
    setup = build({"train.freeze_epochs": 1, "train.batch_norm_images": 64} | parts)
    before = {name: tensor.clone() for name, tensor in setup.network.state_dict().items()}

    def moved() -> set[str]:
        return {name for name, tensor in setup.network.state_dict().items() if not torch.equal(tensor, before[name])}

    loop.train_one_epoch(setup, 1)
    loop.recompute_batch_norm(setup)
    assert {name.partition(".")[0] for name in moved()} == {"head", "attention", "metadata_encoder"}
    loop.train_one_epoch(setup, 2)
    assert {name for name in before if name.startswith("backbone.")} <= moved()


def test_accumulated_batches_make_the_step_of_one_large_batch(build: Build) -> None:
    # In eval mode batch norm does not tell the two apart. 39 images: the last group is smaller than the first.
    weights = []
    for overrides in ({"train.batch_size": 32, "train.accumulate": 1}, {"train.batch_size": 8, "train.accumulate": 4}):
        setup = build(overrides | {"train.optimizer": "sgd", "train.dropout": 0.0, "train.lr": 0.01})
        setup.network.eval()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "set_train_mode", lambda *_, **__: None)
            loss = loop.train_one_epoch(setup, 1)["train/loss"]
        weights.append((loss, setup.network.state_dict()))
    assert weights[0][0] == pytest.approx(weights[1][0], rel=1e-4)
    for name, tensor in weights[0][1].items():
        torch.testing.assert_close(weights[1][1][name], tensor, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_clipped(build: Build) -> None:
    plain = {"train.optimizer": "sgd", "train.momentum": 0.0, "train.weight_decay": 0.0, "train.lr": 1.0}
    setup = build({"train.clip_norm": 0.01} | plain)
    before = torch.cat([parameter.detach().flatten().clone() for parameter in setup.network.parameters()])
    batch = next(iter(setup.train_batches))
    loop.set_train_mode(setup.network, frozen=False)
    loop.train_step(setup, [batch], images=len(batch[0]), weighted=True, mixing=torch.Generator())
    after = torch.cat([parameter.detach().flatten() for parameter in setup.network.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.01, rel=1e-3)


def test_a_class_may_be_absent_from_a_batch_and_from_the_list(build: Build) -> None:
    setup = build({"train.class_weights": "inverse", "train.batch_size": 2, "train.epochs": 1}, without="df")
    assert CLASSES.index("df") not in setup.batches.sampler.labels
    assert math.isfinite(loop.train_one_epoch(setup, 1)["train/loss"])


def test_a_loss_that_is_not_finite_stops_the_epoch(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "train_step", lambda *_, **__: torch.tensor(math.nan))
    refuses(r"epoch 1/2: the training loss is nan: lower train\.lr, set train\.clip_norm", loop.train_one_epoch, build(), 1)


def test_only_the_evaluated_weights_are_kept(build: Build) -> None:
    setup = build({"train.average": "ema", "train.ema_decay": 0.9})
    fitted = fit.fit(setup, checkpoint=NoCheckpoint(), on_epoch=lambda _: None)
    live, kept = setup.network.state_dict(), fitted.best_state
    assert kept.keys() == live.keys()
    assert any(not torch.equal(kept[name], live[name]) for name in live)


def test_statistics_of_averaged_weights_are_computed_for_them(build: Build) -> None:
    setup = build({"train.average": "ema", "train.ema_decay": 0.5, "train.batch_norm_images": 64})
    loop.train_one_epoch(setup, 1)
    loop.recompute_batch_norm(setup)
    norm = next(module for module in setup.evaluated.modules() if isinstance(module, _BatchNorm))
    images = torch.cat([setup.normalize(batch[0]) for batch in setup.statistics_batches])
    with torch.inference_mode():
        first = setup.evaluated.backbone.features[0][0](images)
    torch.testing.assert_close(norm.running_mean, first.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(norm.momentum, setup.network.backbone.features[0][1].momentum)
