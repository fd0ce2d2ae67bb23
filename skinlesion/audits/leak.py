"""How much a split by image inflates: the lists of two trainings that differ in siblings of the test images, and what to measure.

Two images of one lesion are siblings. A deal of images, as `train_test_split(..., stratify=dx)` makes it in most public notebooks
of HAM10000, puts one into training and the other into test. Two trainings show what that does, on the same test images:

- `image_level` learns from the images that the deal gives it,
- `lesion_level` from those of them whose lesion has no image in test.

What else could tell the two apart is made equal. Both learn from as many images, not only of each diagnosis but, within it, of
lesions with one photograph, with two, and so on: what goes with the removed siblings are lesions that were photographed often,
and without that the other training would simply know more of such lesions, which are also the ones that have siblings in test. So
`image_level` is thinned at random within diagnosis and number of photographs. Both choose their epoch on the same validation
images, whose lesions are neither in test nor in either training list.

The thinning dilutes the leak: it cannot spare the siblings, or it would concentrate it. The lists that were trained on hold a
sibling of fewer test images than the deal itself, so what is measured is less than what a notebook's score is inflated by.
`count_siblings` of both lists says by how much fewer. What cannot be made equal: a lesion torn between the lists gives
`image_level` one photograph where a whole one gives two, so that it knows somewhat more lesions by as many images. Test images
without a sibling are therefore measured apart: what `image_level` gains on them is not the leak's.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax

from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS
from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.metrics.pairing import Paired, compare, pair
from skinlesion.evaluation.results.predictions import DESCRIPTIVE_COLUMNS

IMAGE_LEVEL, LESION_LEVEL = ARMS = ("image_level", "lesion_level")
ALL, WITH, WITHOUT = GROUPS = ("all", "with_siblings", "without_siblings")
COLUMNS: tuple[str, ...] = (
    *("group", "metric", "image_level", "lesion_level", "inflation", "low", "high", "p"),
    *("images", "lesions", "melanoma_lesions"),
)
LOGIT_DECIMALS = 6  # as in data/predictions
_WAY_OUT = "add images, or choose another leak.seed, or fewer split.folds and split.validation_folds"


class Lists(NamedTuple):
    """Who learns from what; columns as the split's lists, rows sorted by `image_id`.

    dealt : the training list of the deal by image, before anything was made equal; nobody learns from it.
    train : the training list of each of `ARMS`: as many images of each diagnosis and number of photographs.
    val, test : of both; no lesion of `val` is in `dealt` or `test`.
    """

    dealt: pd.DataFrame
    train: dict[str, pd.DataFrame]
    val: pd.DataFrame
    test: pd.DataFrame

    def of(self, arm: str) -> dict[str, pd.DataFrame]:
        """The lists `train`, `val` and `test` of one of `ARMS`."""
        return {"train": self.train[arm], "val": self.val, "test": self.test}


def deal_by_image(
    images: pd.DataFrame, *, folds: int, validation_folds: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Deal images, stratified by `dx` and blind to lesions, to train, validation and test; for this demonstration alone.

    One in `folds` is a test image, one in `validation_folds` of the others is for validation. The deal does not depend on the
    order of the rows.

    Raises
    ------
    PipelineError
        A diagnosis has too few images to be dealt.
    """
    from sklearn.model_selection import train_test_split

    def take(frame: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame]:
        others, taken = train_test_split(frame, test_size=share, stratify=frame["dx"], random_state=seed)
        return others.sort_values("image_id"), taken.sort_values("image_id")

    try:
        rest, test = take(images.sort_values("image_id"), 1 / folds)
        train, val = take(rest, 1 / validation_folds)
    except ValueError as error:
        raise PipelineError(f"the images cannot be dealt, each diagnosis evenly ({error}): {_WAY_OUT}") from None
    return train, val, test


def make_lists(images: pd.DataFrame, *, folds: int, validation_folds: int, seed: int) -> Lists:
    """The lists of both trainings, as the head of this module describes them.

    Parameters
    ----------
    images : every image, a row each; `lesion_id` decides who is a sibling.
    folds, validation_folds : as the section `split`.
    seed : of the deal and of the thinning.

    Raises
    ------
    PipelineError
        No test image has a sibling in training; or without siblings a diagnosis has no training image, or validation none at all.
    """
    dealt, val, test = deal_by_image(images, folds=folds, validation_folds=validation_folds, seed=seed)
    clean = dealt[~dealt["lesion_id"].isin(test["lesion_id"])]
    val = val[~val["lesion_id"].isin([*dealt["lesion_id"], *test["lesion_id"]])]
    lost = [dx for dx in CLASSES if dealt["dx"].eq(dx).any() and not clean["dx"].eq(dx).any()]
    if lost:
        raise PipelineError(
            f"no training image of {', '.join(lost)} is left once those of the test images' lesions are removed: {_WAY_OUT}"
        )
    if val.empty:
        raise PipelineError(f"no validation image is left whose lesion is neither in training nor in test: {_WAY_OUT}")
    photographs = images.groupby("lesion_id").size()
    leaking = thin(dealt, clean, photographs, seed=seed)
    if not has_sibling(test, leaking).any():
        raise PipelineError(
            f"no test image has a sibling in the training list ({len(photographs)} lesions have {len(images)} images), so "
            f"nothing can leak and there is nothing to show: {_WAY_OUT}"
        )
    return Lists(dealt, {IMAGE_LEVEL: leaking, LESION_LEVEL: clean}, val, test)


def thin(frame: pd.DataFrame, like: pd.DataFrame, photographs: pd.Series, *, seed: int) -> pd.DataFrame:
    """Draw from `frame` as many images as `like`, which is part of it, has of each diagnosis and number of photographs.

    photographs : of each lesion in the whole data set, indexed by `lesion_id`.
    """

    def strata(rows: pd.DataFrame) -> pd.Series:
        return rows["dx"] + " " + rows["lesion_id"].map(photographs).astype(str)

    shuffled = frame.sample(frac=1, random_state=seed)
    places = shuffled.groupby(strata(shuffled)).cumcount()
    wanted = strata(shuffled).map(strata(like).value_counts()).fillna(0)
    return shuffled[places < wanted].sort_values("image_id")


def has_sibling(test: pd.DataFrame, train: pd.DataFrame) -> pd.Series:
    """Whether each test image's lesion has an image in `train`: bool, indexed as `test`."""
    return test["lesion_id"].isin(train["lesion_id"])


def count_siblings(test: pd.DataFrame, train: pd.DataFrame) -> dict[str, Any]:
    """How many test images, and which share (0 to 1) of them, have a sibling in `train`: in all, and of each diagnosis."""
    having = has_sibling(test, train)
    grouped = having.groupby(test["dx"])
    return {
        "images": int(having.sum()),
        "share": float(having.mean()),
        "per_class": {dx: {"images": int(each.sum()), "share": float(each.mean())} for dx, each in grouped},
    }


def describe_list(frame: pd.DataFrame) -> dict[str, Any]:
    """Images, lesions, and images of each diagnosis."""
    counts = frame["dx"].value_counts()
    lesions = int(frame["lesion_id"].nunique())
    return {"images": len(frame), "lesions": lesions, "class_counts": {dx: int(counts.get(dx, 0)) for dx in CLASSES}}


def prediction_table(listed: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    """A prediction table of logits, float (images, classes), whose probabilities are their softmax, without calibration."""
    rounded = np.round(logits.astype(np.float64), LOGIT_DECIMALS)
    numbers = pd.DataFrame(np.hstack([rounded, softmax(rounded, axis=1)]), listed.index, [*LOGIT_COLUMNS, *PROBABILITY_COLUMNS])
    return pd.concat([listed[list(DESCRIPTIVE_COLUMNS)], numbers], axis=1)


def measure_inflation(tables: dict[str, pd.DataFrame], siblings: np.ndarray, how: BootstrapParams) -> pd.DataFrame:
    """Headline metrics of both trainings and their difference, in all test images and in those with and without a sibling.

    Parameters
    ----------
    tables : the prediction table of each of `ARMS`, of the same images in the same order.
    siblings : bool (images,), whether an image has a sibling in the training list of `image_level`. Of the images without,
        neither training has seen the lesion: their difference is a control, and should be about 0.
    how : the paired bootstrap over lesions (`pairing.compare`).

    Returns
    -------
    Rows of `COLUMNS`, one a group and metric; `inflation` is `image_level` less `lesion_level`. An empty group has none.
    """
    paired = pair(tables[LESION_LEVEL], tables[IMAGE_LEVEL])
    chosen = {ALL: np.ones(len(siblings), dtype=bool), WITH: siblings, WITHOUT: ~siblings}
    parts = {group: Paired(paired.first[rows], paired.second[rows]) for group, rows in chosen.items() if rows.any()}
    tables_of = [_measure_group(part, how).assign(group=group) for group, part in parts.items()]
    return pd.concat(tables_of, ignore_index=True)[list(COLUMNS)]


def _measure_group(part: Paired, how: BootstrapParams) -> pd.DataFrame:
    """`COLUMNS` of one group but its name."""
    table = compare(part, how).rename(columns={"first": LESION_LEVEL, "second": IMAGE_LEVEL, "difference": "inflation"})
    counts = {"images": len(part.first), "lesions": part.first["lesion_id"].nunique()}
    melanomas = part.first.loc[part.first["dx"] == "mel", "lesion_id"].nunique()
    return table[table["metric"].isin(HEADLINE)].assign(**counts, melanoma_lesions=melanomas)


def describe_inflation(rows: pd.DataFrame) -> dict[str, Any]:
    """The rows of `measure_inflation` nested by group and metric; a group without an image is None."""
    counts = ["images", "lesions", "melanoma_lesions"]
    values = ["image_level", "lesion_level", "inflation", "low", "high", "p"]
    described: dict[str, Any] = dict.fromkeys(GROUPS)
    for group, part in rows.groupby("group"):
        metrics = part.set_index("metric")[values].to_dict(orient="index")
        described[str(group)] = {name: int(part[name].iloc[0]) for name in counts} | {"metrics": metrics}
    return described
