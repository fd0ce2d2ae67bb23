"""Stage `download`: bring the images from the source that `params.yaml` names, and prove that they are whole.

Reads   the section `download`; by source: nothing (`sample`), Kaggle (`kaggle`), Harvard Dataverse (`dataverse`), a folder
        or zip archives (`local`). Archives of Dataverse stay in `.resume/download/dataverse/`, and are taken from there if they
        still have the published checksum; Kaggle publishes none, so that its archive goes when the stage has succeeded.
Writes  data/raw/images/*.jpg          RGB JPEG, the bytes of the source
        data/raw/metadata.csv          a row an image, HAM10000's columns first
        data/raw/segmentations/*.png   lesion masks, where the source has them
        data/raw/provenance.json       source, origin, files with bytes and MD5, licence, citation, counts
"""

import logging
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from skinlesion.artifacts.raw import RAW, read_metadata
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, resolve_from_root, scratch_folder, write_json
from skinlesion.base.locks import locked, one_at_a_time
from skinlesion.config.params import DownloadParams, SampleParams, load_params
from skinlesion.config.prerequisites import check_prerequisites
from skinlesion.data.sample.sample import draw_sample
from skinlesion.data.sources import dataverse, ham10000, kaggle
from skinlesion.data.sources.images import check_files
from skinlesion.data.sources.layout import bring_files, find_inputs, write_metadata
from skinlesion.data.sources.provenance import count, describe_sample

logger = logging.getLogger(__name__)


@one_at_a_time("download")
def main() -> None:
    """Fill `data/raw`, all of it or nothing."""
    whole = load_params()
    check_prerequisites(whole)
    params = whole.download
    scratch = scratch_folder(f"download/{params.source}")
    shared = params.source in ("kaggle", "dataverse")  # their partial files are those of every workspace of this project
    with locked(scratch.with_suffix(".lock"), doing="downloading the same") if shared else nullcontext():
        with atomic_folder(RAW) as raw:
            provenance = draw(params.sample, raw) if params.source == "sample" else collect(params, raw)
            metadata = read_metadata(raw)
            masks = check_files(raw, metadata["image_id"])
            provenance["counts"] = count(metadata, masks)
            write_json(raw / "provenance.json", {"source": params.source, **provenance})
        if params.source == "kaggle":
            shutil.rmtree(scratch)
    logger.info(
        "%s: %d images of %d lesions, %d masks (%s)",
        RAW, len(metadata), metadata["lesion_id"].nunique(), masks, provenance["licence"],
    )  # fmt: skip


def draw(sample: SampleParams, raw: Path) -> dict[str, Any]:
    """Draw the synthetic sample into `raw`; returns its provenance."""
    settings = sample.model_dump()
    draw_sample(raw, **settings)
    return describe_sample(raw, settings)


def collect(params: DownloadParams, raw: Path) -> dict[str, Any]:
    """Bring the images of a source into `raw`; returns their provenance. Metadata and counts are checked before images."""
    if params.source == "kaggle":
        place = scratch_folder("download/kaggle")
        kaggle.download(place)
        origin, licence = f"https://www.kaggle.com/datasets/{kaggle.SLUG}", ham10000.KAGGLE_LICENCE
    elif params.source == "dataverse":
        place = scratch_folder("download/dataverse")
        dataverse.download(place)
        origin, licence = dataverse.ORIGIN, ham10000.LICENCE
    else:
        place = resolve_from_root(str(params.path))
        origin, licence = str(params.path), ham10000.COPY_LICENCE
    inputs = find_inputs(place)
    metadata = write_metadata(inputs, raw)
    if params.expect == "ham10000":
        ham10000.check_counts(metadata)
    if ham10000.differences(metadata):
        licence = f"unknown, since these are not HAM10000's counts; HAM10000's is {licence}"
    return {
        "synthetic": False,
        "origin": origin,
        "files": bring_files(inputs, raw, metadata["image_id"]),
        "licence": licence,
        "citation": ham10000.CITATION,
    }


if __name__ == "__main__":
    run_stage(main)
