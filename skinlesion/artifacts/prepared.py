"""The contract of `data/prepared`: every image, decoded and resized once."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import read_table
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.base.files import open_images
from skinlesion.config.schema import ColorConstancy, Fit

PREPARED = Path("data/prepared")
INDEX_COLUMNS: tuple[str, ...] = ("image_id", "width", "height", "fit", "color_constancy")
LONGEST_SIDE = 65_535  # pixels, what a JPEG can have


@dataclass(frozen=True)
class PreparedImages:
    """Every image, decoded and resized once.

    images : uint8 array of shape (N, size, size, 3), RGB, memory-mapped read-only.
    index : N rows in the array's order: `image_id`, `width` and `height` of the original in pixels, `fit`, `color_constancy`.
    """

    images: np.ndarray
    index: pd.DataFrame

    @property
    def size(self) -> int:
        """Side of the squares in pixels."""
        return int(self.images.shape[1])

    @property
    def fit(self) -> Fit:
        """How the original was fitted into the square (see `skinlesion.data.geometry`)."""
        return cast(Fit, self.index["fit"].iloc[0])

    @property
    def color_constancy(self) -> ColorConstancy:
        """What was done to the colours."""
        return cast(ColorConstancy, self.index["color_constancy"].iloc[0])

    def rows_of(self, image_ids: Iterable[str]) -> np.ndarray:
        """Positions in the array (int64, one an id, in the order asked).

        Raises
        ------
        PipelineError
            An image was not prepared.
        """
        wanted = list(image_ids)
        positions: np.ndarray = pd.Index(self.index["image_id"]).get_indexer(pd.Index(wanted))
        if (positions < 0).any():
            missing = [image_id for image_id, position in zip(wanted, positions, strict=True) if position < 0]
            raise PipelineError(f"image {name_some(missing)} is listed in a split and was not prepared: run `prepare` again")
        return positions.astype(np.int64)


def read_prepared(folder: Path = PREPARED) -> PreparedImages:
    """Open the prepared images without reading them into memory."""
    index = read_table(folder / "index.csv", INDEX_COLUMNS)
    images = open_images(folder / "images.npy", stage="prepare")
    if len(images) != len(index) or not len(index):
        raise PipelineError(f"{folder}: {len(images)} images and {len(index)} rows in the index: run `prepare` again")
    return PreparedImages(images, _checked_index(index, folder / "index.csv"))


def _checked_index(index: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The index, which must say of each image how it was fitted and how large it was."""
    for name, known in (("fit", get_args(Fit)), ("color_constancy", get_args(ColorConstancy))):
        if index[name].nunique() != 1:
            raise PipelineError(f"{path} mixes several values of {name}: run `prepare` again")
        if index[name].iloc[0] not in known:
            raise PipelineError(f"{path}: {name} can be {', '.join(known)}, not {index[name].iloc[0]!r}: run `prepare` again")
    sides = index[["width", "height"]].apply(pd.to_numeric, errors="coerce")
    for name in sides:
        odd = index[~(sides[name].between(1, LONGEST_SIDE) & (sides[name] % 1 == 0))]
        if len(odd):
            offenders = name_some(f"'{value}' ({image_id})" for image_id, value in zip(odd["image_id"], odd[name], strict=True))
            raise PipelineError(f"{path}: {name} must be a whole number of pixels, not {offenders}: run `prepare` again")
    return index.assign(**sides.astype(np.int64))
