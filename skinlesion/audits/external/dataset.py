"""`data/external`: images of another source, laid out as `data/raw`, on which the trained classifier is measured."""

from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.artifacts.raw import read_metadata, read_provenance
from skinlesion.base.errors import PipelineError

EXTERNAL = Path("data/external")


def read_external(folder: Path = EXTERNAL) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Metadata and provenance of the external images.

    The provenance is that of `artifacts.raw.read_provenance` and `lesions_known` (bool: whether the source says which images show
    one lesion; otherwise `lesion_id` is `image_id`) and `left_out` (ids of rows whose image does not exist).

    Raises
    ------
    PipelineError
        Missing, or damaged.
    """
    if not folder.is_dir():
        raise PipelineError(f"{folder} not found: run `external-download` first, or `dvc repro extras/dvc.yaml:external`")
    metadata, provenance = read_metadata(folder), read_provenance(folder)
    if not isinstance(provenance.get("lesions_known"), bool) or not isinstance(provenance.get("left_out"), list):
        raise PipelineError(f"{folder / 'provenance.json'} lacks lesions_known or left_out: run `external-download` again")
    return metadata, provenance
