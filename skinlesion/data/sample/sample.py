"""The embedded sample: synthetic dermoscopy-like images in HAM10000's layout, so that the pipeline runs without any data.

What it copies from HAM10000 (Tschandl, Rosendahl, Kittler, Scientific Data 5, 180161, 2018) are the codes, the columns
and rounded frequencies; no pixel of the data set is in it. Metrics on it say that the pipeline works, nothing about skin.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from skinlesion.artifacts.raw import image_path, mask_path
from skinlesion.artifacts.tables import METADATA_COLUMNS, write_table
from skinlesion.base.cores import available_cores
from skinlesion.base.errors import PipelineError
from skinlesion.data.sample.view import draw_views
from skinlesion.data.sources.ham10000 import IMAGES
from skinlesion.diagnoses import CLASSES

Key = TypeVar("Key")

SMALLEST = {"lesions": 21, "width": 64, "height": 64}
JPEG_QUALITY = 90

# HAM10000's lesions with one, two, three and four (or more) images.
VIEW_COUNTS = {1: 5514, 2: 1423, 3: 490, 4: 43}

AGE = {"akiec": (66, 11), "bcc": (67, 14), "bkl": (64, 14), "df": (53, 14), "mel": (61, 15), "nv": (46, 15), "vasc": (51, 21)}
MALE_SHARE = {"akiec": 0.68, "bcc": 0.62, "bkl": 0.57, "df": 0.55, "mel": 0.62, "nv": 0.51, "vasc": 0.49}
DX_TYPES: dict[str, dict[str, float]] = {
    "akiec": {"histo": 1.0},
    "bcc": {"histo": 1.0},
    "bkl": {"histo": 0.70, "consensus": 0.24, "confocal": 0.06},
    "df": {"histo": 0.48, "consensus": 0.52},
    "mel": {"histo": 1.0},
    "nv": {"histo": 0.37, "follow_up": 0.55, "consensus": 0.08},
    "vasc": {"histo": 0.47, "consensus": 0.53},
}
SITES = ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face", "chest", "foot", "neck", "scalp")
RARE_SITES = ("hand", "ear", "genital", "acral")
# Percent of a diagnosis a site, in the order of SITES; what is missing to 100 goes to RARE_SITES.
SITE_PERCENT: dict[str, tuple[int, ...]] = {
    "akiec": (9, 20, 1, 19, 2, 34, 4, 0, 3, 4),
    "bcc": (36, 11, 2, 10, 4, 20, 9, 1, 3, 4),
    "bkl": (19, 16, 7, 10, 4, 29, 7, 0, 3, 3),
    "df": (2, 71, 0, 21, 3, 0, 0, 2, 0, 0),
    "mel": (29, 17, 4, 19, 6, 9, 6, 3, 3, 2),
    "nv": (22, 23, 19, 10, 13, 1, 3, 5, 1, 1),
    "vasc": (16, 19, 22, 8, 19, 5, 4, 0, 2, 1),
}
# HAM10000 lacks 0.6 % of the ages and sexes and 2.3 % of the sites; of a few hundred lesions that would be hardly one.
MISSING_SHARE = {"age": 0.015, "sex": 0.015, "localization": 0.025}


def draw_sample(folder: Path, *, seed: int, lesions: int, width: int, height: int) -> pd.DataFrame:
    """Draw the sample into an existing folder, in the layout that `artifacts` names.

    Writes `images/SYNTH_0000001.jpg` (RGB JPEG), `segmentations/SYNTH_0000001_segmentation.png` (L, 255 inside the
    lesion's outline, 0 outside) and so on, and `metadata.csv`. Equal arguments give equal bytes under one version of
    NumPy and Pillow.

    Parameters
    ----------
    folder : an existing folder.
    seed : any whole number >= 0.
    lesions : number of lesions, >= 21 (three a diagnosis); each has one to four images, 1.34 on average.
    width, height : of the images in pixels, >= 64.

    Returns
    -------
    The metadata as written: one row an image, columns `METADATA_COLUMNS`, `age` float64 with NaN where unknown, the
    other columns strings with 'unknown' where unknown; the rows of a lesion differ in `image_id` only.

    Raises
    ------
    PipelineError
        An argument is too small, or `folder` does not exist.
    """
    for name, value in (("lesions", lesions), ("width", width), ("height", height)):
        if value < SMALLEST[name]:
            raise PipelineError(f"download.sample.{name} is {value}, and must be at least {SMALLEST[name]}")
    if not folder.is_dir():
        raise PipelineError(f"{folder} is not a folder: create it before the sample is drawn into it")
    table_seed, drawing_seed = np.random.SeedSequence(seed).spawn(2)
    patients = _draw_patients(lesions, np.random.default_rng(table_seed))
    for place in (image_path("", folder), mask_path("", folder)):
        place.parent.mkdir(exist_ok=True)
    metadata = patients.loc[patients.index.repeat(patients["views"])].reset_index(drop=True)
    metadata["image_id"] = [f"SYNTH_{number:07d}" for number in range(1, len(metadata) + 1)]
    image_ids = metadata.groupby("lesion_id", sort=False)["image_id"].agg(list)

    def draw(dx: str, lesion_seed: np.random.SeedSequence, image_ids: list[str]) -> None:
        views = draw_views(dx, lesion_seed, views=len(image_ids), width=width, height=height)
        for image_id, (picture, mask) in zip(image_ids, views, strict=True):
            picture.save(image_path(image_id, folder), quality=JPEG_QUALITY)
            mask.save(mask_path(image_id, folder))

    # Threads, because NumPy and Pillow release the interpreter lock for most of the time.
    with ThreadPoolExecutor(available_cores()) as pool:
        deque(pool.map(draw, patients["dx"], drawing_seed.spawn(lesions), image_ids), maxlen=0)
    metadata = metadata[list(METADATA_COLUMNS)]
    write_table(metadata, folder / "metadata.csv", METADATA_COLUMNS)
    return metadata


def _draw_patients(lesions: int, rng: np.random.Generator) -> pd.DataFrame:
    """One row a lesion, in random order: the metadata without `image_id`, and the number of `views`."""
    rows = []
    for dx, count in _class_counts(lesions).items():
        for views, share in _apportion(count, VIEW_COUNTS).items():
            rows += [{**_draw_person(dx, rng), "views": views} for _ in range(share)]
    patients = pd.DataFrame([rows[position] for position in rng.permutation(lesions)])
    patients.insert(0, "lesion_id", [f"SYNTH_L{number:06d}" for number in range(1, lesions + 1)])
    for name, missing in (("age", np.nan), ("sex", "unknown"), ("localization", "unknown")):
        chosen = rng.choice(lesions, max(1, round(MISSING_SHARE[name] * lesions)), replace=False)
        patients.loc[chosen, name] = missing
    return patients


def _draw_person(dx: str, rng: np.random.Generator) -> dict[str, object]:
    """What HAM10000 would tell of a patient with this diagnosis."""
    kinds, weights = zip(*DX_TYPES[dx].items(), strict=True)
    percent = np.array(SITE_PERCENT[dx])
    remainder = np.full(len(RARE_SITES), (100 - percent.sum()) / len(RARE_SITES))
    return {
        "dx": dx,
        "dx_type": str(rng.choice(kinds, p=weights)),
        "age": float(np.clip(5 * round(rng.normal(*AGE[dx]) / 5), 0, 85)),
        "sex": "male" if rng.random() < MALE_SHARE[dx] else "female",
        "localization": str(rng.choice((*SITES, *RARE_SITES), p=np.concatenate([percent, remainder]) / 100)),
    }


def _class_counts(lesions: int) -> dict[str, int]:
    """Lesions a diagnosis: HAM10000's proportions, but never so few of one that a split could miss it.

    The floor is 3 lesions, and 12 from 360 lesions on, enough for each of training, validation and test in five folds.
    """
    floor = min(12, max(3, lesions // 30))
    counts: dict[str, int] = {}
    while True:
        common = {dx: IMAGES[dx] for dx in CLASSES if dx not in counts}
        shares = _apportion(lesions - floor * len(counts), common)
        rare = [dx for dx, count in shares.items() if count < floor]
        if not rare:
            return {dx: (counts | shares)[dx] for dx in CLASSES}
        counts |= dict.fromkeys(rare, floor)


def _apportion(total: int, weights: dict[Key, int]) -> dict[Key, int]:
    """Share out `total` in proportion to `weights` by largest remainders; the shares sum to `total`."""
    exact = {key: total * weight / sum(weights.values()) for key, weight in weights.items()}
    shares = {key: int(value) for key, value in exact.items()}
    for key in sorted(exact, key=lambda key: shares[key] - exact[key])[: total - sum(shares.values())]:
        shares[key] += 1
    return shares
