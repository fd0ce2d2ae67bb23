"""The maps of an ensemble: each member's from a layer of its own, placed by its own cells, then averaged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from skinlesion.artifacts import Fit
from skinlesion.cam.layers import TargetLayer, find_layer
from skinlesion.cam.maps import Method, compute_maps
from skinlesion.classifier import Classifier
from skinlesion.errors import PipelineError
from skinlesion.geometry import map_to_original
from skinlesion.metadata import encode_metadata

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemberMaps:
    """One member's maps of N images.

    layer : that they are taken from.
    maps : float32 (N, side, side), of `skinlesion.cam.maps.compute_maps`.
    """

    layer: TargetLayer
    maps: np.ndarray


def find_layers(members: Mapping[str, Classifier], name: str) -> dict[str, TargetLayer]:
    """The layer of each member that maps are taken from.

    Raises
    ------
    PipelineError
        As `find_layer`; where there are several members it names the one that cannot use the layer.
    """
    layers = {}
    for member, (model, config) in members.items():
        try:
            layers[member] = find_layer(model.backbone, name, size=config.size)
        except PipelineError as error:
            if len(members) == 1:
                raise
            raise PipelineError(f"{error} (of member '{member}'; every member needs a layer of that name)") from None
    return layers


def explain(
    members: Mapping[str, Classifier],
    images: np.ndarray,
    table: pd.DataFrame,
    *,
    method: Method,
    layer: str,
    device: torch.device,
    batch_size: int,
    seed: int,
) -> dict[str, MemberMaps]:
    """Each member's maps of the class that the table names, by member.

    Parameters
    ----------
    images, method, layer, device, batch_size, seed : as of `skinlesion.cam.maps.compute_maps`.
    table : a row an image: `row` (its position in `images`), `predicted` (diagnosis), and `age`, `sex` and `localization`,
        which are read where a member needs metadata.
    """
    maps = {}
    for name, target in find_layers(members, layer).items():
        logger.info("%s: %s of layer '%s', %d x %d cells", name, method, target.name, target.side, target.side)
        model, config = members[name]
        values = compute_maps(
            model,
            config,
            images,
            [config.classes.index(dx) for dx in table["predicted"]],
            method=method,
            layer=target.name,
            device=device,
            batch_size=batch_size,
            seed=seed,
            rows=table["row"].to_numpy(),
            metadata=encode_metadata(table) if config.needs_metadata else None,
            progress=True,
        )
        maps[name] = MemberMaps(target, values)
    return maps


def place_mean(members: Sequence[MemberMaps], position: int, width: int, height: int, *, size: int, fit: Fit) -> np.ndarray:
    """The members' mean map of one image on the pixels of its original.

    Every member counts alike: its strongest cell is 1, or it has no evidence at all. The mean of several is scaled so that
    its own strongest pixel is 1 again.

    Parameters
    ----------
    position : of the image, 0 to N - 1.
    width, height : of the original in pixels.
    size, fit : how the original was prepared.

    Returns
    -------
    float64 array of shape (height, width) in [0, 1].
    """
    placed = [
        map_to_original(member.maps[position], width, height, size=size, fit=fit, centers=member.layer.centers)
        for member in members
    ]
    if len(placed) == 1:
        return placed[0]
    mean = np.mean(placed, axis=0)
    return mean / mean.max() if mean.any() else mean


def count_zero_maps(members: Sequence[MemberMaps]) -> int:
    """In how many images nothing speaks for the class in any member."""
    return int(np.all([member.maps.max(axis=(1, 2), initial=0) == 0 for member in members], axis=0).sum())
