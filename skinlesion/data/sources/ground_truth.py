"""What the images of another source show: a table in HAM10000's columns, or in the one-hot columns of the ISIC challenges."""

import pandas as pd

from skinlesion.artifacts.tables import METADATA_COLUMNS
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.diagnoses import CLASSES

IMAGE = "image"
# As https://challenge.isic-archive.com/data/ has them for task 3 of 2018.
ONE_HOT: tuple[str, ...] = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
UNKNOWN = "unknown"


# How the challenge calls HAM10000's ways of diagnosis.
GROUPING, WAY = "lesion_id", "diagnosis_confirm_type"
WAYS = {
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}


def one_hot(rows: pd.DataFrame) -> bool:
    """Whether a table has the ISIC challenge's columns and not HAM10000's."""
    return {IMAGE, *ONE_HOT} <= set(rows.columns) and not {"image_id", "dx"} <= set(rows.columns)


def add_groupings(rows: pd.DataFrame, groupings: pd.DataFrame, *, name: str) -> pd.DataFrame:
    """The challenge's rows with the lesion, and the way of diagnosis, that its table of lesions (called `name`) gives each image.

    Raises
    ------
    PipelineError
        The table of lesions lacks a column or an image, or has one twice.
    """
    if missing := {IMAGE, GROUPING} - set(groupings.columns):
        raise PipelineError(f"{name} lacks the column(s) {name_some(sorted(missing))}; it has {name_some(groupings.columns, 40)}")
    twice, known = groupings[IMAGE].duplicated(), rows[IMAGE].isin(groupings[IMAGE])
    for odd, wrong in ((groupings.loc[twice, IMAGE], "is there twice"), (rows.loc[~known, IMAGE], "has no row")):
        if len(odd):
            raise PipelineError(f"{name}: {name_some(odd.unique())} {wrong}: get the table again")
    wanted = [column for column in (IMAGE, GROUPING, WAY) if column in groupings.columns]
    return rows.drop(columns=wanted[1:], errors="ignore").merge(groupings[wanted], on=IMAGE, how="left")


def to_ham10000_columns(rows: pd.DataFrame, *, name: str) -> tuple[pd.DataFrame, bool]:
    """Bring a table, told by its header, to HAM10000's columns.

    Parameters
    ----------
    rows : every value a string. name : of the table, for messages.

    Returns
    -------
    The rows, and whether they say which images show one lesion. A one-hot table may have `lesion_id` beside; without it each
    image counts as a lesion of its own. Of age, sex and site it says nothing.

    Raises
    ------
    PipelineError
        The header is neither, or a row of a one-hot table does not name exactly one diagnosis.
    """
    if {"image_id", "dx"} <= set(rows.columns):
        return rows, True
    if not one_hot(rows):
        raise PipelineError(
            f"{name} has the columns {name_some(rows.columns, 40)}; known are HAM10000's ({', '.join(METADATA_COLUMNS)}) "
            f"and the ISIC challenge's ({', '.join((IMAGE, *ONE_HOT))})"
        )
    numbers = rows[list(ONE_HOT)].apply(pd.to_numeric, errors="coerce")
    odd = ~numbers.isin([0, 1]).all(axis=1) | (numbers.sum(axis=1) != 1)
    if odd.any():
        raise PipelineError(f"{name}: {name_some(rows.loc[odd, IMAGE])} must have a 1 for one diagnosis and 0 for the others")
    lesions_known = "lesion_id" in rows.columns
    known = {
        "lesion_id": rows["lesion_id"] if lesions_known else rows[IMAGE],
        "image_id": rows[IMAGE],
        "dx": numbers.idxmax(axis=1).str.lower(),
    }
    assert set(known["dx"]) <= set(CLASSES)
    way = rows[WAY].replace(WAYS) if WAY in rows.columns else UNKNOWN
    return pd.DataFrame(known).assign(dx_type=way, age="", sex=UNKNOWN, localization=UNKNOWN), lesions_known
