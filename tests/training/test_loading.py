"""Batches depend on the seed and the epoch, and on nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from skinlesion.config.augmentation import Augmentation
from skinlesion.training import loading
from skinlesion.training.augmentation.presets import NONE, PRESETS
from skinlesion.training.augmentation.transforms import ReflectedAffine, train_transform
from skinlesion.training.loading import AugmentedImages, LabelledImages, plain_loader, train_loader
from skinlesion.training.sampling import GlobalBatches, make_sampler


def make_list(length: int, *, start: int = 0) -> LabelledImages:
    images = np.random.default_rng(start).integers(0, 256, size=(30, 16, 16, 3), dtype=np.uint8)
    rows, labels = np.arange(length)[::-1].copy(), np.arange(start, start + length)
    return LabelledImages(images, rows, labels, np.stack([labels, -labels], axis=1).astype(np.float32))


def make_dataset(length: int = 20, augmentation: Augmentation = PRESETS["light"]) -> AugmentedImages:
    return AugmentedImages(make_list(length), transform=train_transform(augmentation, size=16))


def batches_of(dataset: AugmentedImages, *, epoch: int, seed: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    labels = np.arange(len(dataset)) % 7
    sampler = make_sampler(labels, np.arange(len(dataset)), sampler="shuffle", one_view_per_lesion=False, seed=seed)
    batches = GlobalBatches(sampler, batch_size=8)
    batches.epoch = epoch
    return [(images, given) for images, given, _ in train_loader(dataset, batches, pin_memory=False)]


def test_the_number_of_workers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = []
    for workers in (1, 3):
        monkeypatch.setattr(loading, "worker_count", lambda processes, workers=workers: workers)
        epochs.append(batches_of(make_dataset(), epoch=2))
    for (images_a, labels_a), (images_b, labels_b) in zip(*epochs, strict=True):
        assert torch.equal(images_a, images_b) and torch.equal(labels_a, labels_b)


def test_each_epoch_is_another_order_of_the_same_images() -> None:
    first, second = (torch.cat([labels for _, labels in batches_of(make_dataset(), epoch=epoch)]) for epoch in (1, 2))
    assert not torch.equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(20))


def test_augmentation_differs_between_epochs_and_leaves_the_global_generator_alone() -> None:
    dataset = make_dataset()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, again, other = dataset[(0, 11)][0], dataset[(0, 11)][0], dataset[(0, 12)][0]
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.dtype == torch.uint8 and one.shape == (3, 16, 16)


def test_without_augmentation_the_image_comes_as_it_is() -> None:
    dataset = make_dataset(augmentation=NONE)
    image, label, metadata = dataset[(4, 99)]
    assert label == 4 and metadata.tolist() == [4.0, -4.0]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), make_list(20).images[15])


def test_a_second_list_follows_the_first() -> None:
    first, second = make_list(5), make_list(3, start=100)
    dataset = AugmentedImages(first, second, transform=v2.Identity())
    assert len(dataset) == 8
    assert [dataset[(position, 0)][1] for position in range(8)] == [0, 1, 2, 3, 4, 100, 101, 102]
    assert np.array_equal(dataset[(6, 0)][0].permute(1, 2, 0).numpy(), second.images[1])
    assert len(AugmentedImages(first, make_list(0), transform=v2.Identity())) == 5


@pytest.mark.parametrize(
    "option", [{"horizontal_flip": True}, {"vertical_flip": True}, {"rotation": 20.0}, {"min_scale": 0.5}, {"color_jitter": 0.2}]
)
def test_each_option_alone_changes_some_image(option: dict[str, float]) -> None:
    dataset = make_dataset(augmentation=NONE.model_copy(update=option))
    plain = make_dataset(augmentation=NONE)
    assert any(not torch.equal(dataset[(0, seed)][0], plain[(0, seed)][0]) for seed in range(8))


@pytest.mark.parametrize("degrees", [5.0, 20.0, 45.0, 180.0])
def test_a_rotation_leaves_no_black_corner(degrees: float) -> None:
    rotate = train_transform(NONE.model_copy(update={"rotation": degrees}), size=32)
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    for _ in range(20):
        assert rotate(white).shape == (3, 32, 32)
        assert rotate(white).min() >= 254


@pytest.mark.parametrize("angle", [90.0, -30.0, 10.0])
def test_a_rotation_is_torchvisions_away_from_the_corners(angle: float) -> None:
    image = v2.functional.gaussian_blur(torch.randint(0, 256, (3, 33, 33), dtype=torch.uint8), [5, 5])
    ours = ReflectedAffine(180.0).transform(image, {"angle": math.radians(angle), "magnification": 1.0})
    theirs = v2.functional.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)
    inside = slice(8, 25)
    assert (ours.int() - theirs.int())[:, inside, inside].abs().max() <= 1


@pytest.mark.parametrize(("length", "sizes"), [(20, [8, 8, 4]), (17, [8, 8]), (5, [5])])
def test_a_last_batch_of_one_image_is_left_out(length: int, sizes: list[int]) -> None:
    assert [len(labels) for _, labels in batches_of(make_dataset(length), epoch=1)] == sizes


@pytest.mark.parametrize(("length", "most", "number"), [(1000, 300, 300), (50, 300, 50), (1000, 257, 256), (10, 0, 0)])
def test_some_positions_are_chosen_once_each(length: int, most: int, number: int) -> None:
    chosen = loading.choose_some(length, most, seed=1)
    assert len(set(chosen.tolist())) == len(chosen) == number
    assert (np.diff(chosen) > 0).all() and (chosen < length).all()
    assert np.array_equal(chosen, loading.choose_some(length, most, seed=1))


def test_validation_sees_the_whole_list_once_in_order() -> None:
    listed = make_list(17)
    ((images, labels, metadata),) = plain_loader(listed)
    assert labels.tolist() == list(range(17)) and metadata[:, 0].tolist() == list(range(17))
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), listed.images[listed.rows])


def test_workers_are_shared_between_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "available_cores", lambda: 12)
    assert [loading.worker_count(processes) for processes in (1, 2, 4, 12)] == [11, 5, 2, 1]
    monkeypatch.setattr(loading, "available_cores", lambda: 64)
    assert loading.worker_count() == loading.MOST_WORKERS
