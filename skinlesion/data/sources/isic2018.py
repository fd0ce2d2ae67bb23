"""The test set of the ISIC 2018 challenge, task 3, which lies beside HAM10000 on Harvard Dataverse."""

import logging
from itertools import chain
from pathlib import Path

import pandas as pd

from skinlesion.data.sources.archives import member_names
from skinlesion.data.sources.dataverse import RemoteFile, bring
from skinlesion.data.sources.layout import Inputs
from skinlesion.data.sources.transfer import NotSentError

logger = logging.getLogger(__name__)

IMAGES = RemoteFile("ISIC2018_Task3_Test_Images.zip", 3855824, "0488b6f65849e310857d9207daa55a21", None)
# Dataverse sends the re-export of a table unless the original is asked for, which it refuses where it made none (dataverse issue
# 6408). Which of the two holds for this table its checksum decides.
GROUND_TRUTH = RemoteFile("ISIC2018_Task3_Test_GroundTruth", 6924466, "2b5663aacc9644740f27e355cf7f369a", None)
QUERIES = ("?format=original", "")

# In the ground truth and not in the archive of images. The challenge's own scoring leaves the row out.
ABSENT = "ISIC_0035068"

CITATION = (
    "Codella et al.: Skin Lesion Analysis Toward Melanoma Detection 2018, a challenge hosted by the International Skin Imaging "
    "Collaboration (ISIC), arXiv:1902.03368. Tschandl, Rosendahl, Kittler: The HAM10000 dataset, Scientific Data 5, 180161 "
    "(2018), doi:10.7910/DVN/DBW86T."
)


def download(folder: Path) -> Inputs:
    """Bring both files, each verified, into `folder`, as `dataverse.download` does.

    Raises
    ------
    PipelineError
        As `transfer.fetch`.
    """
    _bring_ground_truth(folder)
    bring(IMAGES, folder, section="external")
    truth = folder / GROUND_TRUTH.name
    return Inputs(folder, truth.name, truth.read_bytes(), [], [folder / IMAGES.name])


def _bring_ground_truth(folder: Path) -> None:
    """Bring the original of the table, in whichever way the server gives it."""
    *first, last = (RemoteFile(GROUND_TRUTH.name, GROUND_TRUTH.number, GROUND_TRUTH.md5, None, query) for query in QUERIES)
    for file in first:
        try:
            return bring(file, folder, section="external")
        except NotSentError as error:
            logger.warning("%s was asked for with '%s', now without: %s", file.name, file.query, error)
    return bring(last, folder, section="external")


def leave_out_absent(rows: pd.DataFrame, inputs: Inputs) -> tuple[pd.DataFrame, list[str]]:
    """The rows without that of `ABSENT`, where its image is indeed in no archive; and the ids that were left out."""
    names = chain((path.name for path in inputs.loose), *map(member_names, inputs.archives))
    there = any(name.startswith(f"{ABSENT}.") for name in names)
    absent = rows["image_id"] == ABSENT
    if there or not absent.any():
        return rows, []
    logger.warning("%s: %s is left out: the challenge published no image of it", inputs.metadata_name, ABSENT)
    return rows[~absent], [ABSENT]
