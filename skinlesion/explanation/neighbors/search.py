"""The training cases nearest to an image in a classifier's own space: an exact search, and what its neighbours would say."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from skinlesion.artifacts.tables import predicted_of, probabilities_of
from skinlesion.base.errors import PipelineError, name_some

COLUMNS: tuple[str, ...] = (
    *("image_id", "lesion_id", "dx", "predicted", "rank"),
    *("neighbor_image_id", "neighbor_lesion_id", "neighbor_dx", "similarity"),
)
DECIMALS = 6  # about what float32 knows of a similarity: images that differ by less are equally near
MELANOMA = "mel"


class Neighbors(NamedTuple):
    """The nearest neighbours of N images, the nearest first.

    positions : int64 (N, k), in the list that was searched. similarities : float64 (N, k), cosines, -1 to 1.
    """

    positions: np.ndarray
    similarities: np.ndarray


def check_apart(searched: pd.DataFrame, test: pd.DataFrame) -> None:
    """Refuse a list to be searched that holds a lesion of the test images: a lesion's own photographs are no other cases."""
    shared = sorted(set(searched["lesion_id"]) & set(test["lesion_id"]))
    if shared:
        raise PipelineError(
            f"{len(shared)} lesion(s) are in training and in test ({name_some(shared)}): run `split` again, or `dvc repro`"
        )


def find_neighbors(wanted: np.ndarray, searched: np.ndarray, listed: pd.DataFrame, *, k: int) -> Neighbors:
    """Find the `k` lesions nearest to each image, exactly: every similarity is computed.

    A lesion stands by its image that is nearest, since its other photographs would only crowd out other cases. Equally near
    images, to `DECIMALS`, are taken in the order of their `image_id`.

    Parameters
    ----------
    wanted : float32 (N, features), rows of length 1, as `skinlesion.explanation.neighbors.embedding.embed` gives them.
    searched : the same of M images.
    listed : M rows, `image_id` and `lesion_id` of `searched`.
    k : neighbours, >= 1.

    Raises
    ------
    PipelineError
        Fewer than `k` lesions are there to be found.
    """
    by_id = np.argsort(listed["image_id"].to_numpy(dtype=np.str_))
    lesions, names = pd.factorize(listed["lesion_id"].iloc[by_id])
    if len(names) < k:
        raise PipelineError(f"neighbors.k is {k}, and there are {len(names)} training lesions: set it to {len(names)} at most")
    similarities = np.round(wanted @ searched.T, DECIMALS)[:, by_id]
    nearest = np.stack([_nearest_lesions(row, lesions, k) for row in similarities])
    return Neighbors(by_id[nearest], np.take_along_axis(similarities, nearest, axis=1).astype(np.float64))


def _nearest_lesions(similarities: np.ndarray, lesions: np.ndarray, k: int) -> np.ndarray:
    """Positions, int64 (k,), of the nearest image of each of the `k` nearest lesions; of equally near images the first counts.

    similarities : float32 (M,). lesions : int (M,), the lesion of each image.
    """
    ranked = np.argsort(-similarities, kind="stable")
    nearest: np.ndarray = ranked[~pd.Series(lesions[ranked]).duplicated().to_numpy()][:k]
    return nearest


def vote(labels: np.ndarray) -> np.ndarray:
    """The most frequent class among each image's neighbours; of equally frequent ones that of the nearest neighbour.

    labels : int (N, k), the neighbours' classes, the nearest first. Returns int (N,).
    """
    votes = (labels[:, :, None] == labels[:, None, :]).sum(axis=2)  # that each neighbour's class has
    return np.take_along_axis(labels, votes.argmax(axis=1)[:, None], axis=1)[:, 0]


def neighbor_table(test: pd.DataFrame, listed: pd.DataFrame, found: Neighbors) -> pd.DataFrame:
    """What was found as a table, columns `COLUMNS`: a row a neighbour, image by image, `rank` from 1, the nearest.

    test : a prediction table of N images. listed : the M rows that were searched: `image_id`, `lesion_id`, `dx`.
    """
    count, k = found.positions.shape
    asked = test[["image_id", "lesion_id", "dx"]].assign(predicted=predicted_of(test))
    table = asked.loc[asked.index.repeat(k)].reset_index(drop=True)
    neighbors = listed.iloc[found.positions.ravel()]
    for name in ("image_id", "lesion_id", "dx"):
        table[f"neighbor_{name}"] = neighbors[name].to_numpy()
    return table.assign(rank=np.tile(np.arange(1, k + 1), count), similarity=found.similarities.ravel().round(DECIMALS))


def choose_errors(test: pd.DataFrame, *, cases: int) -> pd.DataFrame:
    """The errors that are shown: missed melanomas, then other errors; the most confident first, ties by `image_id`.

    Parameters
    ----------
    test : a prediction table.
    cases : most rows.

    Returns
    -------
    `image_id, dx, predicted, probability` (of the predicted class), in the order in which they are shown.
    """
    table = test[["image_id", "dx"]].assign(predicted=predicted_of(test), probability=probabilities_of(test).max(axis=1))
    table["after"] = table["dx"] != MELANOMA
    ranked = table[table["dx"] != table["predicted"]].sort_values(
        ["after", "probability", "image_id"], ascending=[True, False, True]
    )
    return ranked.drop(columns="after").head(cases).reset_index(drop=True)
