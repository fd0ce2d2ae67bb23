"""What somebody may say of the patient beside the image: age, sex, site of the lesion. Each can be left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from skinlesion.base.errors import PipelineError, suggest
from skinlesion.metadata import SEXES, SITES
from skinlesion.tables import AGE_LIMIT


@dataclass(frozen=True)
class Patient:
    """None where a thing is not known.

    age : years, 0 to 120. sex : `female` or `male`. localization : one of `skinlesion.metadata.SITES`.
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
    """A row a patient with the columns that `skinlesion.metadata.encode_metadata` reads."""
    return pd.DataFrame(
        {
            "age": pd.array([patient.age for patient in patients], dtype="Float64"),
            "sex": [patient.sex or "unknown" for patient in patients],
            "localization": [patient.localization or "unknown" for patient in patients],
        }
    )
