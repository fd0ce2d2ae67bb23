"""Proof that images of another source are none of those that the classifier was made with, whatever they are called.

Ids of images and of lesions, file bytes, decoded pixels and thumbnails are compared. Thumbnails detect a copy that was encoded
anew or resized, which shares neither bytes nor pixels. A copy that was cropped or turned is not detected.
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import pairwise_distances_argmin

from skinlesion.artifacts.raw import image_path
from skinlesion.base.decoding import decode_picture
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.base.parallel import map_in_order
from skinlesion.config.audits import NearCopies

THUMBNAIL = (32, 24)  # pixels
# Root mean square difference of two thumbnails, in grey levels (0 to 255), up to which they are of one photograph. Measured on
# HAM10000 at 200 x 150 px: no two of its 10,015 images that show different lesions are nearer than 5.7; of copies at half the
# size and JPEG quality 75, 98 of 100 are nearer than 4, and of such at the same size and quality 50 all are nearer than 2.6.
SAME_PICTURE = 4.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """What N images contain, in the order of their ids.

    image_ids : their ids. files, pixels : sha256 of the file's bytes, and of width, height and decoded RGB pixels.
    thumbnails : float32 (N, 3 x THUMBNAIL), RGB from 0 to 255.
    """

    image_ids: list[str]
    files: list[str]
    pixels: list[str]
    thumbnails: np.ndarray


def read_contents(image_ids: Iterable[str], raw: Path, *, workers: int) -> Contents:
    """Read and decode images that lie as in `data/raw`, in `workers` threads."""
    ids = list(image_ids)
    files, pixels, thumbnails = zip(*map_in_order(partial(_read, raw=raw), ids, workers=workers), strict=True)
    return Contents(ids, list(files), list(pixels), np.stack(thumbnails))


def _read(image_id: str, raw: Path) -> tuple[str, str, np.ndarray]:
    path = image_path(image_id, raw)
    content = path.read_bytes()
    image = decode_picture(content, ["JPEG"], lambda opened: opened.convert("RGB"))
    decoded = hashlib.sha256(f"{image.width} x {image.height}".encode() + image.tobytes()).hexdigest()
    thumbnail = np.asarray(image.resize(THUMBNAIL, Image.Resampling.BOX), dtype=np.float32).ravel()
    return hashlib.sha256(content).hexdigest(), decoded, thumbnail


def prove_disjoint(
    external: pd.DataFrame,
    internal: pd.DataFrame,
    lists: pd.DataFrame,
    contents: tuple[Contents, Contents],
    *,
    near_copies: NearCopies,
) -> dict[str, Any]:
    """Insist that nothing of `external` is in `internal`, whether it was trained on or only validated or tested on.

    Parameters
    ----------
    external, internal : metadata of the two sets; columns `image_id` and `lesion_id`.
    lists : of the internal images the columns `image_id`, `lesion_id` (as merged by `split.links`) and `list`.
    contents : of the external images and of the internal ones.
    near_copies : whether equal thumbnails alone, which could be two photographs that look alike, are refused or only named.

    Returns
    -------
    What was compared: counts, sha256 of each set's sorted file digests, how many are shared (0 each), the smallest distance of
    thumbnails, and the pairs with equal ones.

    Raises
    ------
    PipelineError
        Something is shared: by what, the names, and the list in which each is.
    """
    list_of = dict(zip(lists["image_id"], lists["list"], strict=True))
    lesions = pd.concat([lists[["lesion_id", "list"]], internal.assign(list=internal["image_id"].map(list_of))])
    list_of_lesion = dict(zip(lesions["lesion_id"], lesions["list"], strict=True))
    theirs, ours = contents
    nearest, distances = nearest_thumbnails(theirs.thumbnails, ours.thumbnails)
    pictures = [
        (image_id, ours.image_ids[nearest[row]])
        for row, image_id in enumerate(theirs.image_ids)
        if distances[row] <= SAME_PICTURE
    ]
    shared = {
        "image_id": [f"{name} ({list_of.get(name, 'no list')})" for name in external["image_id"] if name in list_of],
        "lesion_id": [f"{name} ({list_of_lesion[name]})" for name in external["lesion_id"].unique() if name in list_of_lesion],
        "file": _name_pairs(_equal(theirs, theirs.files, ours, ours.files), list_of),
        "pixels": _name_pairs(_equal(theirs, theirs.pixels, ours, ours.pixels), list_of),
    }
    alike = _name_pairs(pictures, list_of)
    if alike and near_copies == "report":
        logger.warning(
            "%d external image(s) look like one of ours and are measured all the same: %s", len(alike), name_some(alike)
        )
    if near_copies == "refuse":
        shared["thumbnail"] = alike
    if found := {by: names for by, names in shared.items() if names}:
        refused = "; ".join(f"{len(names)} by {by}: {name_some(names)}" for by, names in found.items())
        raise PipelineError(
            f"the external images are not external, the classifier was made with some of them ({refused}): take them out of the "
            "source, or take another one. (By thumbnail alone it could be two photographs that look alike: look at them, and "
            "set external.near_copies=report to keep such)"
        )
    sizes = {"external": (external, theirs), "internal": (internal, ours)}
    # One sha256 for a set of files, whatever their order.
    digests = {name: hashlib.sha256("\n".join(sorted(each.files)).encode()).hexdigest() for name, (_, each) in sizes.items()}
    return {
        **{
            name: {"images": len(table), "lesions": int(table["lesion_id"].nunique()), "files_sha256": digests[name]}
            for name, (table, _) in sizes.items()
        },
        "shared": {by: len(names) for by, names in shared.items()},
        "near_copies": alike,
        "nearest_thumbnails": {"distance": float(distances.min()), "limit": SAME_PICTURE, "unit": "grey levels (RMS)"},
    }


def nearest_thumbnails(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each thumbnail of `first`, (N, values), the row of the nearest of `second`, (M, values), and their RMS difference.

    int64 and float64 (N,).
    """
    nearest = pairwise_distances_argmin(first, second)
    apart = (first - second[nearest]).astype(np.float64)  # exact, where the search's own distances are rounded
    return nearest, np.sqrt((apart**2).mean(axis=1))


def _equal(theirs: Contents, their_digests: list[str], ours: Contents, our_digests: list[str]) -> list[tuple[str, str]]:
    """Pairs of an external and an internal image with one digest."""
    known = dict(zip(our_digests, ours.image_ids, strict=True))
    return [(name, known[digest]) for name, digest in zip(theirs.image_ids, their_digests, strict=True) if digest in known]


def _name_pairs(pairs: list[tuple[str, str]], list_of: dict[str, str]) -> list[str]:
    """`A is B (train)` for every pair."""
    return [f"{name} is {other} ({list_of.get(other, 'no list')})" for name, other in pairs]
