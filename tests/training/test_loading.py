"""Batches depend on the seed and the epoch, and on nothing else."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from skinlesion.config.augmentation import Augmentation
from skinlesion.training import loading
from skinlesion.training.augmentation.presets import NONE, PRESETS
from skinlesion.training.augmentation.transforms import train_transform
from skinlesion.training.loading import AugmentedImages, LabelledImages, plain_loader, train_loader
from skinlesion.training.sampling import EpochSampler, GlobalBatches


def make_list(length: int, *, start: int = 0) -> LabelledImages:
    images = np.random.default_rng(start).integers(0, 256, size=(30, 16, 16, 3), dtype=np.uint8)
    rows, labels = np.arange(length)[::-1].copy(), np.arange(start, start + length)
    return LabelledImages(images, rows, labels, np.stack([labels, -labels], axis=1).astype(np.float32))


def make_dataset(length: int = 20, augmentation: Augmentation = PRESETS["light"]) -> AugmentedImages:
    return AugmentedImages(make_list(length), transform=train_transform(augmentation, size=16))


def batches_of(dataset: AugmentedImages, *, epoch: int, seed: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    labels = np.arange(len(dataset)) % 7
    sampler = EpochSampler(labels, np.arange(len(dataset)), sampler="shuffle", one_view_per_lesion=False, seed=seed)
    sampler.epoch = epoch
    batches = GlobalBatches(sampler, batch_size=8)
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
