"""The maps of an ensemble: each member's from a layer of its own, placed by its own cells, then averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.base.errors import PipelineError, name_some, suggest
from skinlesion.config.evaluation import CamMethod
from skinlesion.config.schema import Fit
from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.explanation.cam.placing import map_to_original
from skinlesion.explanation.cam.targets import find_target
from skinlesion.model.classifier import Classifier


@dataclass(frozen=True)
class MemberMaps:
    """One member's maps of N images.

    layer : that they are taken from.
    maps : float32 (N, side, side), of `skinlesion.explanation.cam.maps.compute_maps`.
    """

    layer: TargetLayer
    maps: np.ndarray


def find_layers(
    members: Mapping[str, Classifier], methods: Sequence[CamMethod], layer: str
) -> dict[CamMethod, dict[str, TargetLayer]]:
    """What each method reads of each member, all of it found before any image is explained.

    Returns
    -------
    Method to member to layer, in the order of both.

    Raises
    ------
    PipelineError
        As `find_target`; the message also names method, layer and member.
    """
    every = "" if len(members) == 1 else f"; each of the {len(members)} members is explained by the same method and layer"
    found: dict[CamMethod, dict[str, TargetLayer]] = {method: {} for method in methods}
    for method, layers in found.items():
        for name, (model, config) in members.items():
            try:
                layers[name] = find_target(model, method, layer, size=config.size)
            except PipelineError as error:
                raise PipelineError(f"{error} ({method}, layer '{layer}', of member '{name}'{every})") from None
    return found


def explain(
    members: Mapping[str, Classifier],
    images: np.ndarray,
    table: pd.DataFrame,
    options: MapOptions,
    *,
    column: str = "predicted",
) -> dict[str, MemberMaps]:
    """Each member's maps of the class that the table names, by member.

    Parameters
    ----------
    images : prepared images, as for `skinlesion.explanation.cam.maps.compute_maps`.
    table : a row an image: `row` (its position in `images`), `column` (diagnosis), and `age`, `sex` and `localization`,
        which are read where a member needs metadata.
    column : of the table, with the diagnosis that an image's map speaks for.

    Raises
    ------
    PipelineError
        As `find_layers` and `compute_maps`; or a diagnosis in `column` is unknown.
    """
    maps = {}
    for name, target in find_layers(members, [options.method], options.layer)[options.method].items():
        model, config = members[name]
        values = compute_maps(
            model,
            config,
            images,
            _positions(table[column], config.classes),
            options,
            rows=table["row"].to_numpy(),
            metadata=encode_metadata(table) if config.needs_metadata else None,
            progress=True,
        )
        maps[name] = MemberMaps(target, values)
    return maps


def _positions(diagnoses: pd.Series, classes: tuple[str, ...]) -> list[int]:
    """Position of each diagnosis among the network's classes."""
    unknown = sorted({str(dx) for dx in diagnoses} - set(classes))
    if unknown:
        raise PipelineError(
            f"{diagnoses.name}: the network has no class {name_some(unknown)}{suggest(unknown[0], classes)}; its classes are "
            f"{', '.join(classes)}"
        )
    return [classes.index(dx) for dx in diagnoses]


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
    mean: np.ndarray = np.mean(placed, axis=0)
    return mean / mean.max() if mean.any() else mean


def count_zero_maps(members: Sequence[MemberMaps]) -> int:
    """In how many images nothing speaks for the class in any member."""
    return int(np.all([member.maps.max(axis=(1, 2), initial=0) == 0 for member in members], axis=0).sum())
