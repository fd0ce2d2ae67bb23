"""Batches depend on the seed and the epoch, and on nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from skinlesion import loading
from skinlesion.loading import AugmentedImages, SeededShuffle, plain_loader, train_loader
from skinlesion.params import AugmentationParams
from skinlesion.transforms import ReflectedRotation, train_transform

AUGMENTATION = AugmentationParams(horizontal_flip=True, vertical_flip=True, rotation=20.0, min_scale=0.8, color_jitter=0.1)
NOTHING = AugmentationParams(horizontal_flip=False, vertical_flip=False, rotation=0.0, min_scale=1.0, color_jitter=0.0)


def make_dataset(length: int = 20, augmentation: AugmentationParams = AUGMENTATION) -> AugmentedImages:
    images = np.random.default_rng(0).integers(0, 256, size=(30, 16, 16, 3), dtype=np.uint8)
    rows = np.arange(length)[::-1].copy()
    return AugmentedImages(images, rows, np.arange(length), transform=train_transform(augmentation, size=16))


def batches_of(dataset: AugmentedImages, *, epoch: int, seed: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    sampler = SeededShuffle(len(dataset), seed=seed)
    sampler.epoch = epoch
    return list(train_loader(dataset, sampler, batch_size=8, pin_memory=False))


def test_the_number_of_workers_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = []
    for workers in (1, 3):
        monkeypatch.setattr(loading, "worker_count", lambda workers=workers: workers)
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
    dataset = make_dataset(augmentation=NOTHING)
    image, label = dataset[(4, 99)]
    assert label == 4
    assert np.array_equal(image.permute(1, 2, 0).numpy(), dataset.images[15])


@pytest.mark.parametrize(
    "option", [{"horizontal_flip": True}, {"vertical_flip": True}, {"rotation": 20.0}, {"min_scale": 0.5}, {"color_jitter": 0.2}]
)
def test_each_option_alone_changes_some_image(option: dict[str, float]) -> None:
    dataset = make_dataset(augmentation=NOTHING.model_copy(update=option))
    plain = make_dataset(augmentation=NOTHING)
    assert any(not torch.equal(dataset[(0, seed)][0], plain[(0, seed)][0]) for seed in range(8))


@pytest.mark.parametrize("degrees", [5.0, 20.0, 45.0, 180.0])
def test_a_rotation_leaves_no_black_corner(degrees: float) -> None:
    rotate = train_transform(NOTHING.model_copy(update={"rotation": degrees}), size=32)
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    for _ in range(20):
        assert rotate(white).shape == (3, 32, 32)
        assert rotate(white).min() >= 254


@pytest.mark.parametrize("angle", [90.0, -30.0, 10.0])
def test_a_rotation_is_torchvisions_away_from_the_corners(angle: float) -> None:
    image = v2.functional.gaussian_blur(torch.randint(0, 256, (3, 33, 33), dtype=torch.uint8), [5, 5])
    ours = ReflectedRotation(180.0).transform(image, {"angle": math.radians(angle)})
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
    dataset = make_dataset(17, NOTHING)
    ((images, labels),) = plain_loader(dataset.images, dataset.rows, dataset.labels)
    assert labels.tolist() == list(range(17))
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), dataset.images[dataset.rows])
