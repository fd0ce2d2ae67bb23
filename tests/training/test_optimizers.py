"""Optimizers and sharpness-aware minimization against steps computed by hand."""

from typing import Any

import pytest
import torch
from torch import nn

from skinlesion.config.training import TrainParams
from skinlesion.training.optimizers import climb, descend, make_optimizer
from tests.training.training_cases import MakeParams


def optimized(params: TrainParams, gradients: list[float], *, lr: float, weight_decay: float) -> list[float]:
    """A weight that starts at 2, after each step with the given gradients; its group's rate and decay are not those of params."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = make_optimizer([{"params": [weight], "lr": lr, "weight_decay": weight_decay, "name": "head"}], params)
    values = []
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        values.append(weight.item())
    return values


@pytest.mark.parametrize(
    ("values", "gradients", "weight_decay", "expected"),
    [
        # At AdamW's first step both moments are corrected to the gradient itself: the step is lr * sign, after decoupled decay.
        ({"optimizer": "adamw"}, [5.0], 0.2, [2 * (1 - 0.1 * 0.2) - 0.1]),
        # Nesterov: velocity 1, step 1 + .5 * 1; then velocity .5 * 1 + 3 = 3.5, step 3 + .5 * 3.5
        ({"optimizer": "sgd", "momentum": 0.5}, [1.0, 3.0], 0.0, [1.85, 1.85 - 0.475]),
        ({"optimizer": "sgd", "momentum": 0.5}, [0.0], 0.3, [2 - 0.1 * 1.5 * 0.6]),
        ({"optimizer": "sgd", "momentum": 0}, [1.0, 3.0], 0.0, [1.9, 1.6]),
    ],
)
def test_steps_by_hand_with_rate_and_decay_of_the_group(
    train_params: MakeParams, values: dict[str, Any], gradients: list[float], weight_decay: float, expected: list[float]
) -> None:
    found = optimized(train_params(**values), gradients, lr=0.1, weight_decay=weight_decay)
    assert found == pytest.approx(expected)


@pytest.fixture
def parameters() -> list[nn.Parameter]:
    """Three parameters; the gradients of the first two have norm 5 together, the last has none."""
    made = [nn.Parameter(torch.tensor(values)) for values in ([1.0, 2.0], [3.0, 0.1], [7.0])]
    made[0].grad = torch.tensor([3.0, 0.0])
    made[1].grad = torch.tensor([0.0, 4.0])
    return made


def test_climb_goes_rho_along_the_whole_gradient(parameters: list[nn.Parameter]) -> None:
    climb(parameters, 0.5)
    torch.testing.assert_close(parameters[0].data, torch.tensor([1.3, 2.0]))
    torch.testing.assert_close(parameters[1].data, torch.tensor([3.0, 0.5]))
    assert parameters[2].item() == 7


def test_descend_restores_every_bit_whatever_the_gradients_are_then(parameters: list[nn.Parameter]) -> None:
    before = [parameter.detach().clone() for parameter in parameters]
    weights = climb(parameters, 0.0123)
    assert not torch.equal(parameters[0], before[0])
    for parameter in parameters:
        parameter.grad = None
    parameters[2].grad = torch.ones(1)
    descend(parameters, weights)
    assert all(torch.equal(parameter, weight) for parameter, weight in zip(parameters, before, strict=True))


def test_climb_stays_where_there_is_no_slope(parameters: list[nn.Parameter]) -> None:
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters[:2]:
        parameter.grad = torch.zeros_like(parameter)
    weights = climb(parameters, 0.5)
    assert all(torch.equal(parameter, weight) for parameter, weight in zip(parameters, before, strict=True))
    assert climb(parameters[2:], 0.5) == [None]
    descend(parameters, weights)


def test_a_step_of_sharpness_aware_minimization() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 0.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def backward() -> None:
        optimizer.zero_grad()
        (weight**2).sum().backward()

    backward()
    weights = climb([weight], 0.5)
    backward()
    descend([weight], weights)
    optimizer.step()
    # the slope of w^2 at 1.5 is 3, and the step starts at 1
    torch.testing.assert_close(weight.data, torch.tensor([0.7, 0.0]))
