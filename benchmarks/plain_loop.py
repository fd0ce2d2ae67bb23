"""The other side of the benchmarks: the loop that most public training scripts have, which decodes each JPEG each epoch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from skinlesion.config.augmentation import Augmentation
from skinlesion.diagnoses import CLASSES
from skinlesion.model import backbones
from skinlesion.training import loading

Picture = Callable[[Image.Image], torch.Tensor]
PlainBatch = list[torch.Tensor]  # images and labels


class DecodedEachTime(Dataset[tuple[torch.Tensor, int]]):
    """JPEG in, transformed tensor and class index out."""

    def __init__(self, paths: list[Path], labels: list[int], transform: Picture) -> None:
        self.paths, self.labels, self.transform = paths, labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[position]) as image:
            return self.transform(image.convert("RGB")), self.labels[position]


def decoding_loader(
    paths: list[Path], labels: list[int], transform: Picture, *, batch_size: int, pin_memory: bool = False
) -> DataLoader:
    """Shuffled batches from files, by as many workers as our own loader has."""
    return DataLoader(
        DecodedEachTime(paths, labels, transform),
        batch_size=batch_size,
        shuffle=True,
        num_workers=loading.worker_count(),
        persistent_workers=True,
        pin_memory=pin_memory,
    )


def usual_transform(augmentation: Augmentation, *, size: int, backbone: str) -> transforms.Compose:
    """Resize, then the crop, flips, rotation and jitter of `augmentation`, all on the picture; then tensor and normalisation.

    In torchvision's first transforms, as those scripts have them: PIL in, float32 (3, size, size) out.
    """
    mean, std = backbones.normalization(backbone)
    steps: list[Callable] = [transforms.Resize((size, size))]
    if augmentation.min_scale < 1:
        steps.append(transforms.RandomResizedCrop(size, scale=(augmentation.min_scale, 1.0), ratio=(0.9, 1 / 0.9)))
    if augmentation.horizontal_flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augmentation.vertical_flip:
        steps.append(transforms.RandomVerticalFlip())
    if augmentation.rotation > 0:
        steps.append(transforms.RandomRotation(augmentation.rotation))
    if augmentation.color_jitter > 0:
        jitter = augmentation.color_jitter
        steps.append(transforms.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter))
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])


@dataclass
class PlainLoop:
    """Training in float32 and PyTorch's own memory order: AdamW, cross-entropy, the loss looked at after every step."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    loader: DataLoader
    device: torch.device
    running_loss: float = 0.0
    precision: str = "32-true"

    @classmethod
    def over(cls, loader: DataLoader, *, backbone: str, size: int, device: torch.device) -> "PlainLoop":
        """The loop over a loader, with torchvision's network from random weights."""
        network = backbones.build_backbone(backbone, num_classes=len(CLASSES), size=size).to(device).train()
        return cls(network, torch.optim.AdamW(network.parameters(), lr=1e-3), loader, device)

    def batches(self) -> Iterator[PlainBatch]:
        """One epoch."""
        return iter(self.loader)

    def step(self, batch: PlainBatch) -> None:
        """One optimizer step on images float32 (B, 3, size, size) and labels int64 (B,)."""
        images, labels = (part.to(self.device) for part in batch)
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.network(images), labels)
        loss.backward()
        self.optimizer.step()
        self.running_loss += loss.item()
