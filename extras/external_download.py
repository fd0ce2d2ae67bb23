"""Bring images of another source than HAM10000's, to measure the trained classifier on.

Reads   section `external` of params.yaml; by source: nothing (`sample`, drawn from a seed of its own in the size of
        `download.sample`), Harvard Dataverse (`isic2018`), a folder or zip archive (`local`). Files of Dataverse stay in
        `.resume/download/isic2018/`, and are taken from there if they still have the published checksum
Writes  data/external/images/*.jpg, metadata.csv and provenance.json, as the stage `download` writes those of data/raw, but masks;
        the provenance also says whether lesions are known and which rows were left out
"""

import logging
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from skinlesion.artifacts.raw import image_path, read_metadata
from skinlesion.artifacts.tables import METADATA_COLUMNS, write_table
from skinlesion.audits.external.dataset import EXTERNAL
from skinlesion.base.errors import run_stage
from skinlesion.base.files import atomic_folder, resolve_from_root, scratch_folder, write_json
from skinlesion.base.locks import locked, one_at_a_time
from skinlesion.config.audits import ExternalParams
from skinlesion.config.params import SampleParams, load_params
from skinlesion.data.sample.sample import draw_sample
from skinlesion.data.sources import dataverse, ham10000, isic2018
from skinlesion.data.sources.collection import find_collection, jpeg_target
from skinlesion.data.sources.ground_truth import to_ham10000_columns
from skinlesion.data.sources.images import check_files
from skinlesion.data.sources.layout import bring_files, read_rows, write_rows
from skinlesion.data.sources.provenance import count, describe_sample

# So that no id is one of download's sample.
DRAWN, DRAWN_HERE = "SYNTH_", "EXTERNAL_"

logger = logging.getLogger(__name__)


@one_at_a_time("external-download")
def main() -> None:
    """Fill `data/external`, all of it or nothing."""
    params = load_params()
    source, scratch = params.external.source, scratch_folder("download/isic2018")
    kept_alone = locked(scratch.with_suffix(".lock"), doing="downloading the same") if source == "isic2018" else nullcontext()
    with kept_alone, atomic_folder(EXTERNAL) as raw:
        if source == "sample":
            provenance = draw(params.external, params.download.sample, raw)
        else:
            provenance = collect(params.external, scratch, raw)
        metadata = read_metadata(raw)
        check_files(raw, metadata["image_id"])
        provenance["counts"] = count(metadata, masks=0)
        write_json(raw / "provenance.json", {"source": source, **provenance})
    lesions = f"{metadata['lesion_id'].nunique()} lesions" if provenance["lesions_known"] else "which lesions is not known"
    logger.info("%s: %d images, %s (%s)", EXTERNAL, len(metadata), lesions, provenance["licence"])


def draw(params: ExternalParams, sample: SampleParams, raw: Path) -> dict[str, Any]:
    """Draw synthetic images into `raw` under ids of their own; returns their provenance."""
    settings = {"seed": params.sample_seed, "lesions": params.sample_lesions, "width": sample.width, "height": sample.height}
    metadata = draw_sample(raw, **settings)
    shutil.rmtree(raw / "segmentations")
    for path in list((raw / "images").iterdir()):
        path.rename(image_path(path.stem.replace(DRAWN, DRAWN_HERE), raw))
    for column in ("image_id", "lesion_id"):
        metadata[column] = metadata[column].str.replace(DRAWN, DRAWN_HERE)
    write_table(metadata, raw / "metadata.csv", METADATA_COLUMNS)
    return describe_sample(raw, settings) | {"lesions_known": True, "left_out": []}


def collect(params: ExternalParams, scratch: Path, raw: Path) -> dict[str, Any]:
    """Bring the images of a source into `raw`; returns their provenance. The table is checked before the images."""
    if params.source == "isic2018":
        inputs = isic2018.download(scratch)
        origin, licence, citation = dataverse.ORIGIN, ham10000.LICENCE, isic2018.CITATION
    else:
        inputs = find_collection(resolve_from_root(str(params.path)))
        origin, licence, citation = str(params.path), "that of the source, which is not known here", "that of the source"
    rows, lesions_known = to_ham10000_columns(read_rows(inputs), name=inputs.metadata_name)
    rows, left_out = isic2018.leave_out_absent(rows, inputs)  # of whichever source: a copy of that set has the same gap
    metadata = write_rows(rows, raw, name=inputs.metadata_name)
    return {
        "synthetic": False,
        "origin": origin,
        "files": bring_files(inputs, raw, metadata["image_id"], jpeg_target),
        "licence": licence,
        "citation": citation,
        "lesions_known": lesions_known,
        "left_out": left_out,
    }


if __name__ == "__main__":
    run_stage(main)
