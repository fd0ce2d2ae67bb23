"""Samplers: which images an epoch draws, how often, and how processes share a batch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from skinlesion.training.sampling import Draw, EpochSampler, GlobalBatches
from tests.conftest import refuses

LABELS = np.repeat([0, 1, 2], [900, 90, 10])
# Classes 0 and 1 have 100 images each, class 0 of 100 lesions and class 1 of 20; in no particular order.
ORDER = np.random.default_rng(0).permutation(200)
VIEWED_LABELS = np.repeat([0, 1], [100, 100])[ORDER]
VIEWED_LESIONS = np.concatenate([np.arange(100), 100 + np.arange(100) // 5])[ORDER]


def sampler_of(labels: np.ndarray, lesions: np.ndarray | None = None, **options: Any) -> EpochSampler:
    lesions = np.arange(len(labels)) if lesions is None else lesions
    return EpochSampler(labels, lesions, **{"sampler": "shuffle", "one_view_per_lesion": False, "seed": 3} | options)


def draws_of(sampler: EpochSampler, epoch: int) -> list[Draw]:
    sampler.epoch = epoch
    return list(sampler)


def positions_of(sampler: EpochSampler, epochs: int) -> np.ndarray:
    """Positions that each epoch drew, int64 (epochs, draws)."""
    return np.array([[position for position, _ in draws_of(sampler, epoch)] for epoch in range(1, epochs + 1)])


ALL = [(sampler, one_view) for sampler in ("shuffle", "balanced", "square_root") for one_view in (False, True)]


@pytest.mark.parametrize(("name", "one_view"), ALL)
def test_draws_depend_on_seed_and_epoch_alone(name: str, one_view: bool) -> None:
    def fresh(seed: int = 3) -> EpochSampler:
        return sampler_of(VIEWED_LABELS, VIEWED_LESIONS, sampler=name, one_view_per_lesion=one_view, seed=seed)

    torch.manual_seed(5)
    np.random.seed(5)
    untouched = torch.get_rng_state(), np.random.get_state()[1].copy()
    used = fresh()
    first, second = draws_of(used, 1), draws_of(used, 2)
    assert torch.equal(torch.get_rng_state(), untouched[0]) and (np.random.get_state()[1] == untouched[1]).all()
    torch.manual_seed(6)
    assert draws_of(fresh(), 2) == second == draws_of(used, 2)
    assert first != second and draws_of(fresh(seed=4), 1) != first
    assert {position for position, _ in first} <= set(range(200))
    assert len(first) == len(used)
    seeds = [seed for draws in (first, second) for _, seed in draws]
    assert len(set(seeds)) == len(seeds)  # no augmentation comes twice


def test_shuffle_is_the_order_that_recorded_runs_had() -> None:
    assert draws_of(sampler_of(np.zeros(5, dtype=np.int64)), 2) == [
        (4, 209599277517939979),
        (0, 2113686219315884107),
        (1, 1466992866887576991),
        (2, 138543004336725361),
        (3, 845117950492612621),
    ]


def test_shuffle_shows_each_image_once() -> None:
    sampler = sampler_of(LABELS)
    assert len(sampler) == 1000
    assert (np.sort(positions_of(sampler, 3)) == np.arange(1000)).all()


@pytest.mark.parametrize(
    ("name", "shares"),
    # 900, 90 and 10 images: their roots are 30, 9.49 and 3.16.
    [("balanced", [1 / 3, 1 / 3, 1 / 3]), ("square_root", [0.7034, 0.2224, 0.0741])],
)
def test_weighted_samplers_draw_classes_as_often_as_by_hand(name: str, shares: list[float]) -> None:
    sampler = sampler_of(LABELS, sampler=name)
    positions = positions_of(sampler, 40)
    assert positions.shape == (40, len(sampler)) == (40, 1000)
    np.testing.assert_allclose(np.bincount(LABELS[positions].ravel()) / 40_000, shares, atol=0.01)
    assert any(len(np.unique(epoch)) < 1000 for epoch in positions)  # with replacement
    rare = np.bincount(positions.ravel(), minlength=1000)[-10:]
    assert rare.min() > 0.85 * rare.mean()  # images of a class are alike


def test_a_class_without_an_image_is_never_missed() -> None:
    labels = np.repeat([1, 5], [30, 3])
    for name in ("balanced", "square_root"):
        assert set(labels[positions_of(sampler_of(labels, sampler=name), 2)].ravel()) == {1, 5}


@pytest.mark.parametrize("as_text", [False, True])
def test_one_view_per_lesion_shows_each_lesion_once_and_each_view_as_often(as_text: bool) -> None:
    lesions = np.array([f"HAM_{lesion:07d}" for lesion in VIEWED_LESIONS], dtype=object) if as_text else VIEWED_LESIONS
    sampler = sampler_of(VIEWED_LABELS, lesions, one_view_per_lesion=True)
    assert len(sampler) == 120
    positions = positions_of(sampler, 400)
    assert (np.sort(VIEWED_LESIONS[positions], axis=1) == np.arange(120)).all()
    times = np.bincount(positions.ravel(), minlength=200)
    alone, viewed = times[VIEWED_LABELS == 0], times[VIEWED_LABELS == 1]
    assert (alone == 400).all()
    assert viewed.mean() == 80 and viewed.std() == pytest.approx((400 * 0.2 * 0.8) ** 0.5, rel=0.25)
    # No lesion comes earlier in an epoch for having more views.
    assert VIEWED_LABELS[positions[:, :60]].mean() == pytest.approx(20 / 120, abs=0.01)


@pytest.mark.parametrize(("name", "one_view", "share"), [
    ("balanced", True, 0.5),  # 100 and 20 lesions
    ("square_root", True, 0.309),  # sqrt(20) / (sqrt(100) + sqrt(20))
    ("balanced", False, 0.5),  # 100 and 100 images
    ("square_root", False, 0.5),
])  # fmt: skip
def test_with_one_view_classes_are_balanced_by_lesions(name: str, one_view: bool, share: float) -> None:
    sampler = sampler_of(VIEWED_LABELS, VIEWED_LESIONS, sampler=name, one_view_per_lesion=one_view)
    positions = positions_of(sampler, 200)
    assert positions.shape[1] == len(sampler) == (120 if one_view else 200)
    assert VIEWED_LABELS[positions].mean() == pytest.approx(share, abs=0.015)
    if one_view:  # a lesion that comes twice in an epoch comes with the same view
        for epoch in positions:
            assert len(np.unique(epoch)) == len(np.unique(VIEWED_LESIONS[epoch]))


class Draws(Dataset[Draw]):
    def __getitem__(self, draw: Draw) -> Draw:
        return draw


@pytest.mark.parametrize(("length", "batch_size"), [(20, 8), (17, 8), (16, 8), (5, 8), (9, 3), (7, 2)])
@pytest.mark.parametrize("name", ["shuffle", "balanced"])
def test_batches_of_one_process_are_those_of_a_plain_loader(length: int, batch_size: int, name: str) -> None:
    sampler = sampler_of(np.arange(length) % 3, sampler=name)
    sampler.epoch = 4
    plain = DataLoader(Draws(), batch_size=batch_size, sampler=sampler, drop_last=length % batch_size == 1, collate_fn=list)
    batches = GlobalBatches(sampler, batch_size=batch_size)
    loader = DataLoader(Draws(), batch_sampler=batches, collate_fn=list)
    assert list(loader) == list(plain) and len(loader) == len(plain) == len(batches)
    assert batches.sizes == [len(batch) for batch in batches] and batches.images == sum(batches.sizes)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("length", range(8, 42))
def test_processes_share_each_batch_and_no_image_comes_twice(world: int, length: int) -> None:
    single = list(GlobalBatches(sampler_of(np.zeros(length, dtype=np.int64)), batch_size=10))
    parts = [
        GlobalBatches(sampler_of(np.zeros(length, dtype=np.int64)), batch_size=10, rank=rank, world=world)
        for rank in range(world)
    ]
    shared = [list(part) for part in parts]
    (sizes,) = {tuple(part.sizes) for part in parts}
    assert {len(part) for part in parts} == {len(batches) for batches in shared} == {len(sizes)}
    assert len(single) - len(sizes) == (1 < length % 10 < 2 * world)  # what one process would still take
    positions = []
    for number, size in enumerate(sizes):
        of_ranks = [batches[number] for batches in shared]
        assert sorted(draw for part in of_ranks for draw in part) == sorted(single[number])
        assert [part[0] for part in of_ranks] == single[number][:world]
        assert min(len(part) for part in of_ranks) >= 2 and sum(len(part) for part in of_ranks) == size
        positions += [position for part in of_ranks for position, _ in part]
    assert len(set(positions)) == len(positions) == parts[0].images


@pytest.mark.parametrize(
    ("length", "batch_size", "world", "message"),
    [
        (20, 5, 3, r"train\.batch_size: 5, and batch norm needs 2 on each of 3 process\(es\): .* lower machine\.devices"),
        (3, 8, 2, r"the images of a training epoch: 3, and batch norm needs 2 on each of 2"),
        (1, 8, 1, r"the images of a training epoch: 1, "),
    ],
)
def test_fewer_than_two_images_a_process_are_refused(length: int, batch_size: int, world: int, message: str) -> None:
    refuses(message, lambda: GlobalBatches(sampler_of(np.zeros(length, dtype=np.int64)), batch_size=batch_size, world=world))
