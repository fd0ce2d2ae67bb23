"""Sets of diagnoses that hold the true one with a stated probability: split conformal prediction, APS and RAPS.

Romano, Sesia, Candes, Classification with Valid and Adaptive Coverage, NeurIPS 2020; Angelopoulos, Bates, Malik, Jordan,
Uncertainty Sets for Image Classifiers using Conformal Prediction, ICLR 2021. Whether the last class of a set belongs to it is
decided by a random number an image, as in both papers: without it the sets of an accurate classifier cover far more than is
asked, and are larger. The numbers come from a seed. A set is never empty.

The promise is of lesions drawn as those of calibration were, over all diagnoses together: a rare one can be covered less often.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import ConformalMethod
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.bootstrap import Measure
from skinlesion.evaluation.metrics.classification import ratio


def class_scores(
    probabilities: np.ndarray, chances: np.ndarray, *, method: ConformalMethod, penalty: float, free: int
) -> np.ndarray:
    """Nonconformity of each class of each image, float64 (images, classes): how far down the ranking the class stands.

    The sum of the probabilities of all more probable classes (the first of equals stands first) and of `chances` (float
    (images,), uniform from 0 to 1) of the class's own; for `raps` with `penalty` (>= 0) for each rank behind the first `free`
    (>= 0) ones, which keeps sets small.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranks = np.argsort(order, axis=1)
    ordered = np.take_along_axis(probabilities, order, axis=1)
    sums = np.cumsum(ordered, axis=1) - (1 - chances[:, None]) * ordered
    if method == "raps":
        sums = sums + penalty * np.maximum(np.arange(1, probabilities.shape[1] + 1) - free, 0)
    return np.take_along_axis(sums, ranks, axis=1)


def conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """The score up to which classes belong to the set: the ceil((n + 1) coverage)-th smallest of n; infinite if n is too small.

    scores : float (lesions,), of the true class of exchangeable cases, one a lesion. coverage : > 0 to < 1.
    """
    # Rounded: (99 + 1) * 0.29 is 28.999999999999996 in floats.
    rank = int(np.ceil(np.round((len(scores) + 1) * coverage, 9)))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


def prediction_sets(scores: np.ndarray, quantile: float) -> np.ndarray:
    """Which classes belong to each image's set, bool (images, classes): those up to the quantile, and always the first."""
    sets = scores <= quantile + 1e-12  # sums of the same probabilities may differ in the last digit
    sets[np.arange(len(scores)), scores.argmin(axis=1)] = True  # the most probable one's is the lowest
    return sets


def audit_sets(labels: np.ndarray, sets: np.ndarray) -> Measure:
    """Coverage and size of sets as a function of image weights, each float64 (draws,).

    `coverage`, `size` (mean), `singletons` (share of sets of one diagnosis), `coverage_<class>`: NaN where the class is absent.
    """
    covered, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    shared = np.column_stack([covered, sizes, sizes == 1]).astype(np.float64)
    of_class = (labels[:, None] == np.arange(len(CLASSES))).astype(np.float64)

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=1)
        coverage, size, singletons = (weights @ shared).T / total
        each = ratio(weights @ (of_class * covered[:, None]), weights @ of_class, undefined=np.nan)
        by_class = {f"coverage_{dx}": each[:, index] for index, dx in enumerate(CLASSES)}
        return {"coverage": coverage, "size": size, "singletons": singletons} | by_class

    return measure


def size_table(sets: Mapping[float, np.ndarray]) -> pd.DataFrame:
    """How many images have a set of which size: `level, size, images, share`, a row a level and size from 1.

    sets : of each level, see `prediction_sets`.
    """
    rows = [
        {"level": level, "size": size, "images": int(images), "share": images / len(each)}
        for level, each in sets.items()
        for size, images in enumerate(np.bincount(each.sum(axis=1), minlength=len(CLASSES) + 1)[1:], start=1)
    ]
    return pd.DataFrame(rows)


def choose_one_image(lesion_ids: pd.Series, *, seed: int) -> np.ndarray:
    """Positions, int64 rising, of one image of each lesion, chosen at random: images of a lesion are not exchangeable."""
    shuffled = np.random.default_rng(seed).permutation(len(lesion_ids))
    first = pd.Series(lesion_ids.to_numpy()[shuffled]).drop_duplicates().index.to_numpy()
    return np.sort(shuffled[first]).astype(np.int64)


def deal_lesions(lesion_ids: pd.Series, share: float, *, seed: int) -> np.ndarray:
    """Which images, bool (images,), belong to a random `share` (> 0 to < 1) of the lesions; each lesion falls whole.

    Raises
    ------
    PipelineError
        A part has no image.
    """
    lesions = np.unique(lesion_ids.to_numpy(dtype=str))
    chosen = np.random.default_rng(seed).permutation(lesions)[: round(share * len(lesions))]
    if not 0 < len(chosen) < len(lesions):
        raise PipelineError(
            f"validation has {len(lesions)} lesion(s), too few to be dealt in two: use a larger sample, or another "
            "selective.conformal_share"
        )
    return np.isin(lesion_ids.to_numpy(dtype=str), chosen)
