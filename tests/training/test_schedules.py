"""Learning rates against torch's own schedulers, and hand-computed ones where torch has none."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import lr_scheduler

from skinlesion.config.training import TrainParams
from skinlesion.training.schedules import Schedule, make_schedule
from tests.training.training_cases import MakeParams, through_a_file

HEAD, BACKBONE = 0.4, 0.1  # peak rates
RATES = {"backbone.0": BACKBONE, "head.0": HEAD}
STEPS = 4  # an epoch


@pytest.fixture
def make_params(train_params: MakeParams) -> MakeParams:
    """The params of a schedule over 6 epochs of 4 steps, 1 of them frozen."""
    return partial(train_params, epochs=6, freeze_epochs=1, freeze_lr=0.7, warmup_epochs=1.5)


def make_groups(lrs: dict[str, float] = RATES) -> torch.optim.Optimizer:
    """Of a weight a group without a gradient, so that its steps cost nothing; `lrs` are rates by the groups' names."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr, "name": name} for name, lr in lrs.items()]
    return torch.optim.SGD(groups, lr=9.0)


def groups_of(schedule: Schedule) -> list[dict[str, Any]]:
    return schedule.by_step.optimizer.param_groups


def fine_tuning(params: TrainParams) -> Schedule:
    """The schedule over two groups at the first step behind the frozen epochs."""
    schedule = make_schedule(make_groups(), params, steps_per_epoch=STEPS)
    for _ in range(params.freeze_epochs * STEPS):
        schedule.step()
    return schedule


def rates(schedule: Schedule, steps: int) -> list[float]:
    """The head's rate before each of some steps, as a share of its peak; the backbone's is the same share."""
    shares = []
    for _ in range(steps):
        backbone, head = (group["lr"] for group in groups_of(schedule))
        assert backbone / BACKBONE == pytest.approx(head / HEAD, abs=1e-15)
        assert schedule.last_lr() == head
        shares.append(head / HEAD)
        schedule.step()
    return shares


def torch_rates(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], steps: int) -> list[float]:
    """The rates of one of torch's schedulers on a rate of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


WARM_UP = [(step + 1) / 6 for step in range(6)]


def test_none_is_constant_after_the_warm_up_if_there_is_one(make_params: MakeParams) -> None:
    assert rates(fine_tuning(make_params(schedule="none")), 20) == pytest.approx(WARM_UP + [1.0] * 14)
    assert rates(fine_tuning(make_params(schedule="none", warmup_epochs=0)), 3) == [1, 1, 1]


def test_cosine_falls_to_zero_over_the_epochs_of_fine_tuning(make_params: MakeParams) -> None:
    schedule = fine_tuning(make_params(schedule="cosine"))
    cosine = torch_rates(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=14), 15)
    assert rates(schedule, 21) == pytest.approx(WARM_UP + cosine, abs=1e-12)
    assert cosine[-1] == pytest.approx(0, abs=1e-12)
    assert rates(schedule, 2) == [0, 0]  # stays there


def test_cosine_keeps_the_numbers_that_earlier_trainings_had(make_params: MakeParams) -> None:
    schedule = fine_tuning(make_params(schedule="cosine", freeze_epochs=0))

    def earlier(step: int) -> float:
        if step < 6:
            return (step + 1) / 6
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - 6) / 18)))

    assert rates(schedule, 24) == [HEAD * earlier(step) / HEAD for step in range(24)]


@pytest.mark.parametrize("restart_epochs", [1, 2])
def test_cosine_restarts_double_their_cycles(make_params: MakeParams, restart_epochs: int) -> None:
    schedule = fine_tuning(make_params(schedule="cosine_restarts", restart_epochs=restart_epochs, epochs=16))
    first = restart_epochs * STEPS
    cosine = torch_rates(lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=first, T_mult=2), 54)
    assert cosine.count(1.0) > 2
    assert rates(schedule, 60) == pytest.approx(WARM_UP + cosine, abs=1e-12)


@pytest.mark.parametrize("warmup_epochs", [0.25, 1.0, 1.6, 4.75])
def test_one_cycle_is_torchs(make_params: MakeParams, warmup_epochs: float) -> None:
    schedule = fine_tuning(make_params(schedule="one_cycle", warmup_epochs=warmup_epochs))
    if warmup_epochs == 0.25:  # a rise of one step, which torch divides by
        expected = torch_rates(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 19, eta_min=1 / 25e4), 20)
    else:
        options: dict[str, Any] = {"max_lr": 1.0, "total_steps": 20, "pct_start": warmup_epochs / 5, "cycle_momentum": False}
        expected = torch_rates(lambda optimizer: lr_scheduler.OneCycleLR(optimizer, **options), 20)
    assert rates(schedule, 20) == pytest.approx(expected, rel=0, abs=1e-9)
    assert rates(schedule, 1) == pytest.approx([1 / 25e4])


def epochs_of_plateau(schedule: Schedule, values: list[float], *, steps: int = STEPS) -> list[float]:
    """The head's rate after each epoch with the given value, as a share of its peak."""
    shares = []
    for value in values:
        for _ in range(steps):
            schedule.step()
        schedule.epoch_end(value)
        shares.append(schedule.last_lr() / HEAD)
    return shares


@pytest.mark.parametrize(("patience", "factor"), [(0, 0.5), (1, 0.5), (1, 0.1), (2, 0.5)])
def test_plateau_falls_as_torchs_does(make_params: MakeParams, patience: int, factor: float) -> None:
    values = [0.3, 0.5, 0.5, 0.4, 0.50001, 0.1, 0.2, 0.3, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6]
    params = make_params(schedule="plateau", plateau_patience=patience, plateau_factor=factor, warmup_epochs=0, epochs=20)
    schedule = fine_tuning(params)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience, threshold=0, eps=0)
    expected = []
    for value in values:
        torchs.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    assert epochs_of_plateau(schedule, values) == pytest.approx(expected)
    assert expected[0] == 1 > expected[-1]


@pytest.mark.parametrize(
    ("changes", "values", "shares"),
    [
        # torch's relative threshold would take -1.00001, a negated loss, for better than -1
        ({}, [-1.0, -1.00001, -0.9], [1, 0.5, 0.5]),
        # frozen epochs and those of warm-up do not count, whose last step is the first at the peak
        ({"freeze_epochs": 2, "warmup_epochs": 1.0, "epochs": 7}, [0.9, 0.8, 0.9, 0.3, 0.2], [1, 1, 0.5]),
        ({"schedule": "none"}, [0.9] + [0.1] * 6, [1] * 7),  # only plateau reads the metric
    ],
)
def test_plateau_by_hand(make_params: MakeParams, changes: dict[str, Any], values: list[float], shares: list[float]) -> None:
    plateau = {"schedule": "plateau", "plateau_patience": 0, "plateau_factor": 0.5, "warmup_epochs": 0, "freeze_epochs": 0}
    schedule = make_schedule(make_groups(), make_params(**plateau | changes), steps_per_epoch=STEPS)
    assert epochs_of_plateau(schedule, values)[-len(shares) :] == shares


def test_the_frozen_phase_moves_the_head_alone_and_does_not_count(make_params: MakeParams) -> None:
    schedule = make_schedule(make_groups(), make_params(schedule="cosine"), steps_per_epoch=STEPS)
    for _ in range(STEPS):
        assert [group["lr"] for group in groups_of(schedule)] == pytest.approx([0.0, 0.7], rel=1e-15, abs=0)
        assert schedule.last_lr() == groups_of(schedule)[1]["lr"]
        schedule.step()
    assert rates(schedule, 6) == pytest.approx(WARM_UP)


def test_the_rate_of_the_head_is_the_one_told(make_params: MakeParams) -> None:
    optimizer = make_groups({"head.0": 0.2, "head.1": 0.3, "backbone.0": 0.5})
    params = make_params(schedule="none", warmup_epochs=0, freeze_epochs=0)
    assert make_schedule(optimizer, params, steps_per_epoch=STEPS).last_lr() == 0.3


def test_a_group_of_another_name_is_refused(make_params: MakeParams) -> None:
    optimizer = make_groups({"neck": 1.0})
    with pytest.raises(ValueError, match="'neck' is neither of the head nor of the backbone"):
        make_schedule(optimizer, make_params(schedule="none"), steps_per_epoch=STEPS)


@pytest.mark.parametrize("name", ["none", "cosine", "cosine_restarts", "one_cycle", "plateau"])
@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_a_resumed_schedule_goes_on_exactly(make_params: MakeParams, name: str, done: int) -> None:
    params = make_params(schedule=name, restart_epochs=1, plateau_patience=1, plateau_factor=0.3)
    values = [0.5, 0.6, 0.7, 0.6, 0.6, 0.6]

    def train(schedule: Schedule, epochs: range) -> list[list[float]]:
        found = []
        for epoch in epochs:
            for _ in range(STEPS):
                found.append([group["lr"] for group in groups_of(schedule)])
                schedule.step()
            schedule.epoch_end(values[epoch])
        return found

    whole = train(make_schedule(make_groups(), params, steps_per_epoch=STEPS), range(6))
    first = make_schedule(make_groups(), params, steps_per_epoch=STEPS)
    train(first, range(done))
    state = through_a_file({"optimizer": first.by_step.optimizer.state_dict(), "schedule": first.state_dict()})
    # as the loop does: made anew, set up by Fabric, then loaded
    fabric = Fabric(accelerator="cpu", devices=1)
    optimizer = make_groups()
    second = make_schedule(optimizer, params, steps_per_epoch=STEPS)
    _, wrapped = fabric.setup(nn.ParameterList(optimizer.param_groups[1]["params"]), optimizer)
    wrapped.load_state_dict(state["optimizer"])
    second.load_state_dict(state["schedule"])

    assert [group["lr"] for group in wrapped.param_groups] == [group["lr"] for group in groups_of(first)]
    assert train(second, range(done, 6)) == whole[done * STEPS :]
