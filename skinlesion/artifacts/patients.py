"""What is known of the patient beside the image (age, sex, site of the lesion), and the numbers that the network gets for it.

Each can be left out. `dx_type` is never looked at: it tells how the diagnosis was made, and so gives it away.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import AGE_LIMIT
from skinlesion.base.errors import PipelineError, name_some, suggest

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
# How a missing value is spelt: `skinlesion.artifacts.tables` writes 'unknown'.
UNKNOWN = ("unknown", "")
# HAM10000's ages are 52 +- 17 years: scaled like this they are of the order of 1.
AGE_CENTER = 50.0
AGE_SCALE = 20.0


# Columns of the encoding: age scaled, age known; a column a sex, sex missing; a column a site, site missing.
FIELD_WIDTHS = {"age": 2, "sex": len(SEXES) + 1, "localization": len(SITES) + 1}
WIDTH = sum(FIELD_WIDTHS.values())


@dataclass(frozen=True)
class Patient:
    """None where a thing is not known.

    age : years, 0 to 120. sex : `female` or `male`. localization : one of `skinlesion.artifacts.patients.SITES`.
    """

    age: float | None = None
    sex: str | None = None
    localization: str | None = None

    def __post_init__(self) -> None:
        """Raise PipelineError on what is no age, sex or site: a wrong word must not count as a missing one."""
        if self.age is not None and not (math.isfinite(self.age) and 0 <= self.age <= AGE_LIMIT):
            raise PipelineError(f"age must be from 0 to {AGE_LIMIT:g} years, not {self.age}; leave it out where it is not known")
        for name, value, known in (("sex", self.sex, SEXES), ("localization", self.localization, SITES)):
            if value is not None and value not in known:
                raise PipelineError(
                    f"no {name} '{value}'{suggest(value, known)}; known: {', '.join(known)}; leave it out where it is not known"
                )


def as_table(patients: Sequence[Patient]) -> pd.DataFrame:
    """A row a patient with the columns that `skinlesion.artifacts.patients.encode_metadata` reads."""
    return pd.DataFrame(
        {
            "age": pd.array([patient.age for patient in patients], dtype="Float64"),
            "sex": [patient.sex or "unknown" for patient in patients],
            "localization": [patient.localization or "unknown" for patient in patients],
        }
    )


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
    encoded: np.ndarray = np.eye(len(vocabulary) + 1)[codes]
    return encoded


def _warn(column: str, strange: Sequence[object] | np.ndarray) -> None:
    """Name values that are taken for missing although they are not spelt so."""
    if len(strange):
        logger.warning(
            "metadata: %s %s is not known to the network and counts as missing", column, name_some(sorted(set(map(str, strange))))
        )


# The row of an image of which nothing is known, float32 (WIDTH,).
MISSING = encode_metadata(pd.DataFrame({"age": [np.nan], "sex": ["unknown"], "localization": ["unknown"]}))[0]
