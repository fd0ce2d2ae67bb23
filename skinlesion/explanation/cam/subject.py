"""What is explained: the images and predictions of a split, and the ensemble that made them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.explanation.cam import patches
from skinlesion.explanation.cam.deletion import Score
from skinlesion.explanation.cam.gallery import Placed
from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.members import MemberMaps, explain, place_mean
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.model.classifier import Classifier, normalize
from skinlesion.model.float32 import full_float32


@dataclass(frozen=True)
class Subject:
    """What is explained, and how.

    members : the classifiers, which agree in size and fit.
    images : prepared images, uint8 (M, size, size, 3).
    table : a row an image: `image_id`, `lesion_id`, `predicted` (the diagnosis explained), `row` (its position in `images`),
        `width`, `height` (of the original, pixels), and `age`, `sex`, `localization` where a member needs them.
    options : how their maps are made.
    """

    members: Mapping[str, Classifier]
    images: np.ndarray
    table: pd.DataFrame
    options: MapOptions

    @property
    def square(self) -> dict[str, Any]:
        """`size` and `fit` of the network's square."""
        config = next(iter(self.members.values())).config
        return {"size": config.size, "fit": config.fit}

    def some(self, positions: np.ndarray) -> "Subject":
        """Of those rows of the table alone."""
        return self.of(self.table.iloc[positions])

    def of(self, table: pd.DataFrame) -> "Subject":
        """The same of another table."""
        return replace(self, table=table)

    def maps(self, *, column: str = "predicted", flipped: bool = False) -> dict[str, MemberMaps]:
        """Each member's maps of all images of the table, of the diagnosis in `column`."""
        return explain(self.members, self.images, self.table, replace(self.options, flipped=flipped), column=column)

    def placed(self, column: str) -> Placed:
        """What gives an image's mean map of the diagnosis in `column` on the pixels of its original."""
        maps = list(self.maps(column=column).values())
        positions = {image_id: position for position, image_id in enumerate(self.table["image_id"])}
        return lambda image: place_mean(maps, positions[image.image_id], image.width, image.height, **self.square)

    def describe_maps(self, layers: Mapping[str, TargetLayer]) -> str:
        """What the maps of these layers, one a member, are of: the method, and the networks, each once, with their layers."""
        networks = dict.fromkeys(
            f"layer {layers[name].name}, {config.backbone}{' with metadata' if config.needs_metadata else ''}"
            for name, (_, config) in self.members.items()
        )
        several = f", mean of {len(self.members)} members" if len(self.members) > 1 else ""
        return f"{self.options.method} of {' and '.join(networks)}{several}"

    def shown(self) -> np.ndarray:
        """Which patches show each image, bool (N, PATCHES, PATCHES)."""
        sizes = zip(self.table["width"], self.table["height"], strict=True)
        return np.stack([patches.shown_patches(width, height, **self.square) for width, height in sizes])

    def score(self) -> Score:
        """The members' mean probability of the diagnosis explained, uncalibrated."""
        indices = {
            name: np.array([config.classes.index(dx) for dx in self.table["predicted"]])
            for name, (_, config) in self.members.items()
        }
        metadata = encode_metadata(self.table) if any(each.config.needs_metadata for each in self.members.values()) else None
        for each in self.members.values():
            each.model.eval().to(self.options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack the option

        @torch.inference_mode()
        @full_float32()
        def probability(batch: torch.Tensor, positions: np.ndarray) -> np.ndarray:
            total = np.zeros(len(positions))
            for name, (model, config) in self.members.items():
                known = None if metadata is None else torch.from_numpy(metadata[positions]).to(self.options.device)
                logits = model(normalize(batch.to(self.options.device), config), known).double().softmax(dim=1).cpu().numpy()
                total += logits[np.arange(len(positions)), indices[name][positions]]
            return total / len(self.members)

        return probability
