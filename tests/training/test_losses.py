"""Losses on hand-computed cases, and against torch, torchvision and the authors' own code."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from skinlesion.diagnoses import CLASSES
from skinlesion.training.losses import Criterion, make_criterion
from tests.training.test_class_weights import COUNTS, weigh
from tests.training.training_cases import MakeParams

LOSSES = ("cross_entropy", "focal", "class_balanced", "ldam", "logit_adjusted")
FEW = [4, 1, 0, 0, 0, 0, 0]
PLAIN = {"label_smoothing": 0.0, "class_weights": "none", "class_weights_mean": "images", "class_multipliers": {}}
PLAIN |= {"defer_weights": 0.0}

Make = Callable[..., Criterion]


@pytest.fixture
def make(train_params: MakeParams) -> Make:
    """The criterion of the section `train` of the repository with a plain loss, and some values set."""

    def make_one(counts: list[int] | np.ndarray = COUNTS, **values: Any) -> Criterion:
        return make_criterion(train_params(**PLAIN | values), np.asarray(counts))

    return make_one


def batch(images: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (N, 7), class indices (N,) and shares of the classes (N, 7)."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, 7, generator=generator)
    return logits, torch.arange(images) % 7, torch.rand(images, 7, generator=generator).softmax(dim=1)


# Losses by hand: logits log 1 to log 6 and log 79 give the probabilities 0.01 to 0.06 and 0.79.

PER_CENT = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 79.0]
HAND = torch.log(torch.tensor([PER_CENT]))
MARGINS = {"loss": "ldam", "ldam_margin": 0.5, "ldam_scale": 2.0}


@pytest.mark.parametrize(
    ("values", "counts", "target", "expected"),
    [
        ({"loss": "cross_entropy"}, COUNTS, 3, -math.log(0.04)),
        # Smoothed by 0.7, the class itself has 0.3 + 0.1, the others 0.1 each.
        ({"label_smoothing": 0.7}, COUNTS, 3, -0.3 * math.log(0.04) - 0.1 * sum(math.log(p / 100) for p in PER_CENT)),
        ({"class_multipliers": {"df": 3.0}}, COUNTS, 3, -3 * math.log(0.04)),
        # The class weights of 4 and 1 images, as above.
        ({"class_weights": "inverse"}, FEW, 1, -2.5 * math.log(0.02)),
        ({"class_weights": "inverse", "class_weights_mean": "classes"}, FEW, 1, -1.6 * math.log(0.02)),
        ({"loss": "focal", "focal_gamma": 2.0}, COUNTS, 3, -(0.96**2) * math.log(0.04)),
        ({"loss": "focal", "focal_gamma": 0.5}, COUNTS, 6, -(0.21**0.5) * math.log(0.79)),
        ({"loss": "class_balanced", "effective_beta": 0.5}, FEW, 0, -16 / 23 * math.log(0.01)),
        # Counts 16 and 1: margins in the ratio 1/2 to 1. Logits are lowered by 2 x 0.25 and 2 x 0.5.
        (MARGINS, [16, 1, *[16] * 5], 0, -math.log(math.exp(-0.5) / (99 + math.exp(-0.5)))),
        (MARGINS, [16, 1, *[16] * 5], 1, -math.log(2 * math.exp(-1) / (98 + 2 * math.exp(-1)))),
        # Priors 1/28 to 7/28 multiply 1 to 6 and 79: 1 + 4 + 9 + 16 + 25 + 36 + 553 = 644; with tau 1/2 their roots do.
        ({"loss": "logit_adjusted", "logit_tau": 1.0}, [1, 2, 3, 4, 5, 6, 7], 3, -math.log(16 / 644)),
        ({"loss": "logit_adjusted", "logit_tau": 0.5}, [1, 1, 1, 4, 1, 1, 1], 3, -math.log(8 / (96 + 8))),
    ],
)
def test_losses_by_hand(make: Make, values: dict[str, Any], counts: list[int], target: int, expected: float) -> None:
    (loss,) = make(counts, **values)(HAND, torch.tensor([target])).tolist()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_soft_targets_by_hand(make: Make) -> None:
    target = torch.tensor([[0.25, 0, 0, 0.75, 0, 0, 0]])
    cross_entropy = make(loss="cross_entropy", class_multipliers={"df": 2.0})(HAND, target)
    assert cross_entropy.tolist() == pytest.approx([-0.25 * math.log(0.01) - 2 * 0.75 * math.log(0.04)])
    focal = make(loss="focal", focal_gamma=1.0)(HAND, target)
    assert focal.tolist() == pytest.approx([-0.25 * 0.99 * math.log(0.01) - 0.75 * 0.96 * math.log(0.04)])


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_of_two_classes_is_torchvisions(make: Make, gamma: float) -> None:
    pair, labels = batch()[0][:, :2], torch.arange(64) % 2
    logits = torch.cat([pair, torch.full((64, 5), -100.0)], dim=1)
    theirs = sigmoid_focal_loss(pair[:, 1] - pair[:, 0], labels.float(), alpha=-1, gamma=gamma)
    torch.testing.assert_close(make(loss="focal", focal_gamma=gamma)(logits, labels), theirs, rtol=1e-4, atol=1e-6)


def test_ldam_is_its_authors(make: Make) -> None:
    """As `LDAMLoss` of github.com/kaidic/LDAM-DRW writes it, but that it scales what our network gives scaled."""
    logits, labels, shares = batch()
    margins = 1 / np.sqrt(np.sqrt(COUNTS))
    margins = torch.tensor(margins * (0.5 / margins.max()), dtype=torch.float32)
    index = functional.one_hot(labels, 7).bool()
    lowered = torch.where(index, logits - margins[labels].unsqueeze(1), logits)
    weights = weigh(COUNTS, scheme="effective", beta=0.999)
    theirs = functional.cross_entropy(30 * lowered, labels, weight=weights, reduction="none")
    criterion = make(loss="ldam", ldam_margin=0.5, ldam_scale=30.0, class_weights="effective", effective_beta=0.999)
    torch.testing.assert_close(criterion(30 * logits, labels), theirs)
    of_each = torch.stack([criterion(logits, torch.full((64,), index)) for index in range(7)], dim=1)
    torch.testing.assert_close(criterion(logits, shares), (of_each * shares).sum(dim=1))


# As the authors' code has it (github.com/richardaecn/class-balanced-loss): the sum of the weights is the number of classes.
BALANCED = (1 - 0.99) / (1 - 0.99**COUNTS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("values", "shift", "weights"),
    [
        ({}, 0.0, np.ones(7)),
        ({"class_weights": "sqrt_inverse"}, 0.0, weigh(COUNTS, scheme="sqrt_inverse")),
        ({"loss": "focal", "focal_gamma": 0.0, "class_weights": "inverse"}, 0.0, weigh(COUNTS, scheme="inverse")),
        ({"loss": "logit_adjusted", "logit_tau": 0.7}, 0.7 * np.log(COUNTS / COUNTS.sum()), np.ones(7)),
        ({"loss": "class_balanced", "effective_beta": 0.99}, 0.0, 7 * BALANCED / BALANCED.sum()),
        ({"loss": "class_balanced", "effective_beta": 0.99, "class_weights_mean": "classes"}, 0.0, 7 * BALANCED / BALANCED.sum()),
    ],
)
def test_a_cross_entropy_is_torchs(make: Make, smoothing: float, values: dict[str, Any], shift: Any, weights: Any) -> None:
    logits, labels, shares = batch()
    criterion, weight = make(label_smoothing=smoothing, **values), torch.as_tensor(weights, dtype=torch.float32)
    shifted = logits + torch.as_tensor(shift, dtype=torch.float32)
    for targets in (labels, shares):
        theirs = functional.cross_entropy(shifted, targets, weight=weight, label_smoothing=smoothing, reduction="none")
        ours = criterion(logits, targets)
        assert ours.shape == (64,) and ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("loss", LOSSES)
def test_class_indices_are_one_hot_shares(make: Make, loss: str) -> None:
    logits, labels, _ = batch()
    criterion = make(loss=loss, class_multipliers={"mel": 3.0})
    torch.testing.assert_close(criterion(logits, labels), criterion(logits, functional.one_hot(labels, 7).float()))


@pytest.mark.parametrize("loss", LOSSES)
def test_deferred_weights_are_left_out(make: Make, loss: str) -> None:
    logits, labels, shares = batch()
    scheme = "none" if loss == "class_balanced" else "sqrt_inverse"
    criterion = make(loss=loss, class_weights=scheme, class_multipliers={"mel": 3.0})
    plain = make(loss="cross_entropy" if loss == "class_balanced" else loss)
    for targets in (labels, shares):
        torch.testing.assert_close(criterion(logits, targets, weighted=False), plain(logits, targets))
        assert not torch.allclose(criterion(logits, targets), plain(logits, targets), rtol=0.05)


@pytest.mark.parametrize(
    "values",
    [
        {"loss": "class_balanced"},
        {"loss": "ldam"},
        *({"loss": loss, "label_smoothing": e} for loss in ("cross_entropy", "logit_adjusted") for e in (0.0, 0.1)),
        *({"loss": "focal", "focal_gamma": gamma, "label_smoothing": e} for gamma in (0.0, 0.5, 2.0) for e in (0.0, 0.1)),
    ],
)
def test_loss_and_gradient_stay_finite_and_right(make: Make, values: dict[str, Any]) -> None:
    """The true class surely right, surely wrong, and the whole range between; two classes have no image."""
    criterion = make([5, 9, 20, 0, 7, 90, 0], **values)
    logits = torch.full((7, 7), -100.0)
    logits[:, 1] = torch.tensor([-100.0, -99.0, 0.0, 85.0, 99.0, 100.0, 100.0])
    logits[:, 2] = torch.tensor([100.0, 100.0, 0.0, 100.0, 100.0, -100.0, 100.0])
    for targets in (torch.ones(7, dtype=torch.int64), torch.tensor([[0, 0.5, 0.5, 0, 0, 0, 0]]).repeat(7, 1)):
        leaf = logits.clone().requires_grad_()
        losses = criterion(leaf, targets)
        losses.sum().backward()
        assert torch.isfinite(losses).all() and (losses >= 0).all()
        assert torch.isfinite(leaf.grad).all()
    wrong, right = logits[:1].clone().requires_grad_(), logits[5:6].clone().requires_grad_()
    criterion(wrong, torch.tensor([1])).backward()
    assert wrong.grad[0, 1] < -0.05 and wrong.grad[0, 2] > 0.05  # it learns
    if not values.get("label_smoothing"):
        loss = criterion(right, torch.tensor([1]))
        loss.backward()
        assert loss.item() < 1e-6 and right.grad.abs().max() < 1e-6


def test_mixed_precision_leaves_the_loss_in_full_precision(make: Make) -> None:
    logits, labels, _ = batch()
    for loss in LOSSES:
        criterion = make(loss=loss)
        plain = criterion(logits, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(criterion(logits, labels), plain)


def test_an_absent_class_costs_nothing_even_smoothed(make: Make) -> None:
    counts = [5, 9, 20, 0, 7, 90, 3]
    criterion = make(counts, class_weights="inverse", label_smoothing=0.7)
    shares = torch.tensor([0.1, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1])
    expected = -(weigh(counts, scheme="inverse") * shares * torch.log(torch.tensor(PER_CENT) / 100)).sum()
    torch.testing.assert_close(criterion(HAND, torch.tensor([1])), expected[None])


def test_weights_and_margins_follow_the_device(make: Make) -> None:
    criterion = make(loss="ldam").to("meta")
    losses = criterion(torch.zeros(3, 7, device="meta"), torch.zeros(3, 7, device="meta"))
    assert losses.device.type == "meta" and losses.shape == (3,)


def test_the_order_of_the_weights_is_that_of_the_classes(make: Make) -> None:
    logits = torch.zeros(7, 7)
    losses = make(class_multipliers={name: index + 1.0 for index, name in enumerate(CLASSES)})(logits, torch.arange(7))
    assert (losses / math.log(7)).tolist() == pytest.approx([1, 2, 3, 4, 5, 6, 7])
