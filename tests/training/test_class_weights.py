"""Class weights by hand and against scikit-learn, and the epoch from which they count."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from skinlesion.training.losses import class_weights, weights_apply

COUNTS = np.array([209, 329, 703, 74, 712, 4291, 91])  # of a training list of HAM10000


def weigh(counts: list[int] | np.ndarray, **values: Any) -> torch.Tensor:
    return class_weights(np.asarray(counts), **({"beta": 0.5, "mean": "images", "multipliers": {}} | values))


# Class weights. Counts 4 and 1 throughout; by images the mean of a and b is (4 a + b) / 5, by classes (a + b) / 2.


@pytest.mark.parametrize(
    ("scheme", "mean", "expected"),
    [
        ("inverse", "images", (0.625, 2.5)),  # 1/4 and 1 over the mean (1 + 1) / 5
        ("inverse", "classes", (0.4, 1.6)),  # over (1/4 + 1) / 2
        ("sqrt_inverse", "images", (5 / 6, 5 / 3)),  # 1/2 and 1 over (2 + 1) / 5
        ("sqrt_inverse", "classes", (2 / 3, 4 / 3)),  # over (1/2 + 1) / 2
        # Effective numbers with beta 1/2: (1 - 1/16) / (1/2) = 15/8 and 1; weights 8/15 and 1.
        ("effective", "images", (8 / 15 / (47 / 75), 75 / 47)),  # over (32/15 + 1) / 5 = 47/75
        ("effective", "classes", (16 / 23, 30 / 23)),  # over (8/15 + 1) / 2 = 23/30
    ],
)
def test_class_weights_by_hand(scheme: str, mean: str, expected: tuple[float, float]) -> None:
    weights = weigh([4, 1, 0, 0, 0, 0, 0], scheme=scheme, mean=mean)
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx([*expected, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("scheme", ["inverse", "sqrt_inverse", "effective"])
def test_the_mean_of_the_class_weights_is_one(scheme: str) -> None:
    by_images, by_classes = (weigh(COUNTS, scheme=scheme, mean=mean, beta=0.999) for mean in ("images", "classes"))
    assert float((by_images.double() * torch.tensor(COUNTS)).sum() / COUNTS.sum()) == pytest.approx(1)
    assert float(by_classes.mean()) == pytest.approx(1)
    assert (np.argsort(by_images.numpy()) == np.argsort(-COUNTS)).all()


def test_inverse_is_what_scikit_learn_calls_balanced() -> None:
    labels = np.repeat(np.arange(7), COUNTS)
    theirs = compute_class_weight("balanced", classes=np.arange(7), y=labels)
    np.testing.assert_allclose(weigh(COUNTS, scheme="inverse").numpy(), theirs, rtol=1e-6)


def test_the_effective_number_lies_between_one_and_the_number_of_images() -> None:
    near_none, near_inverse = (weigh(COUNTS, scheme="effective", beta=beta).numpy() for beta in (1e-6, 1 - 1e-9))
    np.testing.assert_allclose(near_none, 1, atol=1e-5)
    np.testing.assert_allclose(near_inverse, weigh(COUNTS, scheme="inverse").numpy(), rtol=1e-4)


def test_without_a_scheme_every_weight_is_one_and_multipliers_are_not_averaged_away() -> None:
    assert weigh([4, 1, 0, 0, 0, 0, 0], scheme="none").tolist() == [1] * 7
    assert weigh(COUNTS, scheme="none", multipliers={"mel": 3, "nv": 0.5}).tolist() == [1, 1, 1, 1, 3, 0.5, 1]
    plain, more = (weigh(COUNTS, scheme="inverse", multipliers=multipliers) for multipliers in ({}, {"mel": 3.0}))
    assert (more / plain).tolist() == pytest.approx([1, 1, 1, 1, 3, 1, 1])


@pytest.mark.parametrize("counts", [[1, 2, 3], [0] * 7, [-1, 2, 3, 4, 5, 6, 7]])
def test_counts_that_are_none_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="counts must hold the training images of 7 classes"):
        weigh(counts, scheme="inverse")


@pytest.mark.parametrize(
    ("epochs", "defer_weights", "first"),
    [(10, 0.0, 1), (10, 0.8, 9), (10, 0.7, 8), (100, 0.29, 30), (5, 0.95, 5), (3, 0.1, 1), (1, 0.5, 1)],
)
def test_weights_come_in_after_their_share_of_the_epochs(epochs: int, defer_weights: float, first: int) -> None:
    applies = [weights_apply(epoch, epochs=epochs, defer_weights=defer_weights) for epoch in range(1, epochs + 1)]
    assert applies == [epoch >= first for epoch in range(1, epochs + 1)]
