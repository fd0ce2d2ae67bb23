"""What is published about HAM10000: its counts, its licence and how to cite it."""

import pandas as pd

from skinlesion.base.errors import PipelineError

# Images a diagnosis, and lesions: Tschandl, Rosendahl, Kittler, Scientific Data 5, 180161 (2018); as counted in its metadata.
IMAGES: dict[str, int] = {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142}
LESIONS = 7470

LICENCE = "CC BY-NC 4.0"
KAGGLE_LICENCE = "CC BY-NC-SA 4.0 (as the Kaggle mirror states; the original on Harvard Dataverse is CC BY-NC 4.0)"
COPY_LICENCE = "CC BY-NC 4.0 (the Kaggle mirror says CC BY-NC-SA 4.0)"
CITATION = (
    "Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic images of common "
    "pigmented skin lesions. Scientific Data 5, 180161 (2018), doi:10.7910/DVN/DBW86T. "
    "Lesion masks: Tschandl et al., Nature Medicine 26, 1229-1234 (2020)."
)


def differences(metadata: pd.DataFrame) -> list[str]:
    """What distinguishes a table (a row an image, columns `lesion_id` and `dx`) from HAM10000; empty if nothing does."""
    found, lesions = metadata["dx"].value_counts(), metadata["lesion_id"].nunique()
    counts = [("images", sum(IMAGES.values()), len(metadata)), ("lesions", LESIONS, lesions)]
    counts += [(dx, expected, int(found.get(dx, 0))) for dx, expected in IMAGES.items()]
    return [f"{number:,} {name} (expected {expected:,})" for name, expected, number in counts if number != expected]


def check_counts(metadata: pd.DataFrame) -> None:
    """Insist on HAM10000's number of images, of lesions, and of images a diagnosis.

    Raises
    ------
    PipelineError
        Naming every count that differs.
    """
    if found := differences(metadata):
        raise PipelineError(
            f"this is not the whole of HAM10000: found {', '.join(found)}. Complete the source, or set download.expect=any "
            "to take what is there"
        )
