"""Averaged weights against averages computed by hand, and their way through a checkpoint."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from skinlesion.training.averaging import WeightAverage, make_average
from tests.training.training_cases import MakeParams, through_a_file

Make = Callable[..., WeightAverage]


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


@pytest.fixture
def make(train_params: MakeParams, network: nn.Module) -> Make:
    """An average of `network` over a training of 8 epochs."""

    def make_one(average: str, **changes: Any) -> WeightAverage:
        made = make_average(network, train_params(epochs=8, average=average, **changes))
        assert made is not None
        return made

    return make_one


def move(network: nn.Module) -> torch.Tensor:
    """Change every tensor of a network, as a step of training does; a copy of a weight after it."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    network.train()(torch.randn(5, 2))
    return network[0].weight.detach().clone()


def test_none_makes_no_average(train_params: MakeParams, network: nn.Module) -> None:
    assert make_average(network, train_params(average="none")) is None


def step(average: WeightAverage, network: nn.Module) -> torch.Tensor:
    weight = move(network)
    average.after_step(network)
    return weight


# The decay warms up by (1 + t) / (10 + t), to its limit.
@pytest.mark.parametrize(("limit", "second_decay", "third_decay"), [(0.99, 2 / 11, 3 / 12), (0.1, 0.1, 0.1)])
def test_ema_by_hand(make: Make, network: nn.Module, limit: float, second_decay: float, third_decay: float) -> None:
    average = make("ema", ema_decay=limit)
    average.after_epoch(network, 8)
    assert not average.active  # the end of an epoch does not touch it
    first, second, third = (step(average, network) for _ in range(3))
    after_two = second_decay * first + (1 - second_decay) * second
    torch.testing.assert_close(average.network[0].weight.data, third_decay * after_two + (1 - third_decay) * third)
    assert average.active


@pytest.mark.parametrize(("swa_start", "averaged"), [(0.0, range(1, 9)), (0.5, range(5, 9)), (0.7, range(6, 9)), (0.99, [8])])
def test_swa_is_the_mean_of_the_last_epochs(make: Make, network: nn.Module, swa_start: float, averaged: range) -> None:
    average = make("swa", swa_start=swa_start)
    weights = {}
    for epoch in range(1, 9):
        assert average.active == (epoch - 1 in averaged)
        move(network)
        average.after_step(network)
        weights[epoch] = move(network)
        average.after_step(network)
        average.after_epoch(network, epoch)
    torch.testing.assert_close(average.network[0].weight.data, torch.stack([weights[epoch] for epoch in averaged]).mean(0))


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_running_statistics_are_averaged_too(make: Make, network: nn.Module, kind: str) -> None:
    average = make(kind, swa_start=0.0, ema_decay=0.5)
    means = []
    for epoch in (1, 2):
        move(network)
        average.after_step(network)
        average.after_epoch(network, epoch)
        means.append(network[1].running_mean.clone())
    share = 2 / 11 if kind == "ema" else 1 / 2
    torch.testing.assert_close(average.network[1].running_mean, share * means[0] + (1 - share) * means[1])
    assert average.network[1].num_batches_tracked == 2


def test_the_networks_share_no_memory(make: Make, network: nn.Module) -> None:
    average = make("ema")
    first = step(average, network)
    move(network)
    assert torch.equal(average.network[0].weight, first)


@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_resumed_average_goes_on_bit_by_bit(make: Make, network: nn.Module, kind: str, done: int) -> None:
    whole, first = make(kind, swa_start=0.3), make(kind, swa_start=0.3)
    for epoch in range(1, 9):
        move(network)
        for average in (whole, first):
            average.after_step(network)
            average.after_epoch(network, epoch)
        if epoch == done or (epoch == 1 and done == 0):
            state = through_a_file(first.state_dict())
            first = make(kind, swa_start=0.3)
            first.load_state_dict(state)
            assert first.active == whole.active
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, first.network.state_dict()[name]), name
