"""What is known of the patient beside the image (age, sex, site of the lesion) as numbers for the network.

`dx_type` is never looked at: it tells how the diagnosis was made, and so gives it away.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from skinlesion.base.errors import PipelineError, name_some
from skinlesion.tables import AGE_LIMIT

logger = logging.getLogger(__name__)

SEXES = ("female", "male")
# The sites of HAM10000 (column `localization`); a network's weights depend on their order.
SITES = (
    "abdomen",
    "acral",
    "back",
    "chest",
    "ear",
    "face",
    "foot",
    "genital",
    "hand",
    "lower extremity",
    "neck",
    "scalp",
    "trunk",
    "upper extremity",
)
# How a missing value is spelt: `skinlesion.tables` writes 'unknown'.
UNKNOWN = ("unknown", "")

# HAM10000's ages are 52 +- 17 years: scaled like this they are of the order of 1.
AGE_CENTER = 50.0
AGE_SCALE = 20.0

# Columns of the encoding: age scaled, age known; a column a sex, sex missing; a column a site, site missing.
FIELD_WIDTHS = {"age": 2, "sex": len(SEXES) + 1, "localization": len(SITES) + 1}
WIDTH = sum(FIELD_WIDTHS.values())


def encode_metadata(frame: pd.DataFrame) -> np.ndarray:
    """Encode the columns `age` (years), `sex` and `localization` of a split list.

    A missing value ('unknown', an empty string, NaN) is a category of its own; a missing age is 0 with the mask 0. What
    is not in the vocabulary (or is no age: below 0 or above 120) counts as missing, and a warning names it.

    Returns
    -------
    float32 (N, WIDTH): (age - 50) / 20, 1 if the age is known, then one-hot sex (female, male, missing), then one-hot
    site (`SITES`, missing).

    Raises
    ------
    PipelineError
        A column is missing.
    """
    absent = [name for name in FIELD_WIDTHS if name not in frame.columns]
    if absent:
        raise PipelineError(
            f"the list of images has no column {' and no '.join(absent)}, which a network with metadata reads: add it (a value "
            "may be 'unknown', an age empty), or set train.metadata=false"
        )
    columns = [_encode_age(frame["age"]), _one_hot(frame["sex"], SEXES), _one_hot(frame["localization"], SITES)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _encode_age(ages: pd.Series) -> np.ndarray:
    """(N, 2): the scaled age, 0 if missing, and whether it is known."""
    years = ages.to_numpy(dtype=np.float64, na_value=np.nan)
    known = (years >= 0) & (years <= AGE_LIMIT)
    _warn("age", years[~known & ~np.isnan(years)])
    return np.stack([np.where(known, (years - AGE_CENTER) / AGE_SCALE, 0.0), known], axis=1)


def _one_hot(values: pd.Series, vocabulary: Sequence[str]) -> np.ndarray:
    """(N, len(vocabulary) + 1), the last column for what is missing."""
    codes = pd.Index(vocabulary).get_indexer(values)  # -1 for what is not in it
    strange = values[(codes < 0) & values.notna() & ~values.isin(UNKNOWN)]
    _warn(str(values.name), strange.unique())
    return np.eye(len(vocabulary) + 1)[codes]


def _warn(column: str, strange: Sequence[object] | np.ndarray) -> None:
    """Name values that are taken for missing although they are not spelt so."""
    if len(strange):
        logger.warning(
            "metadata: %s %s is not known to the network and counts as missing", column, name_some(sorted(set(map(str, strange))))
        )


# The row of an image of which nothing is known, float32 (WIDTH,).
MISSING = encode_metadata(pd.DataFrame({"age": [np.nan], "sex": ["unknown"], "localization": ["unknown"]}))[0]


class MetadataDropout(nn.Module):
    """In training, each field (age, sex, site) of each image becomes missing with probability `probability`.

    So the network learns to do without, and does not lean on a shortcut. Draws from torch's default generator.
    """

    field_of_column: torch.Tensor
    missing: torch.Tensor

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        field_of_column = np.repeat(np.arange(len(FIELD_WIDTHS)), list(FIELD_WIDTHS.values()))
        self.register_buffer("field_of_column", torch.from_numpy(field_of_column), persistent=False)
        self.register_buffer("missing", torch.from_numpy(MISSING.copy()), persistent=False)

    def forward(self, metadata: torch.Tensor) -> torch.Tensor:
        """(N, WIDTH) to (N, WIDTH)."""
        if not self.training or self.probability == 0:
            return metadata
        draws = torch.rand(len(metadata), len(FIELD_WIDTHS), device=metadata.device)
        dropped = (draws < self.probability)[:, self.field_of_column]
        return torch.where(dropped, self.missing, metadata)


class MetadataEncoder(nn.Sequential):
    """Metadata (N, WIDTH) to features (N, FEATURES) that stand beside the image's."""

    FEATURES = 32

    def __init__(self, *, dropout: float) -> None:
        super().__init__(MetadataDropout(dropout), nn.Linear(WIDTH, self.FEATURES), nn.ReLU())
