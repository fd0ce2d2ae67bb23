"""Dealing lesions to training, validation and test, and proving that the deal is honest."""

import warnings
from collections.abc import Iterable
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from skinlesion.artifacts.splits import LINK_COLUMNS, SPLIT_NAMES
from skinlesion.artifacts.tables import parse_csv
from skinlesion.base.errors import PipelineError, name_some
from skinlesion.diagnoses import CLASSES


def check_images(metadata: pd.DataFrame, image_ids: Iterable[str]) -> None:
    """Insist that metadata and image files name the same images.

    Raises
    ------
    PipelineError
        A row has no image, or an image has no row.
    """
    rows, files = set(metadata["image_id"]), set(image_ids)
    way_out = "run `download` again, or correct the metadata of the source"
    for odd, kind in (
        (rows - files, "row(s) of the metadata without an image"),
        (files - rows, "image(s) without a row in the metadata"),
    ):
        if odd:
            raise PipelineError(f"{len(odd)} {kind}: {name_some(sorted(odd))}: {way_out}")


def check_diagnoses(metadata: pd.DataFrame) -> None:
    """Insist that every lesion has one diagnosis.

    Raises
    ------
    PipelineError
        A lesion has several.
    """
    pairs = metadata[["lesion_id", "dx"]].drop_duplicates()
    broken = pairs[pairs["lesion_id"].duplicated(keep=False)]
    if len(broken):
        found = broken.groupby("lesion_id")["dx"].unique()
        offenders = name_some(f"{lesion} ({' and '.join(sorted(dx))})" for lesion, dx in found.items())
        raise PipelineError(f"lesion with two diagnoses: {offenders}: correct dx or lesion_id in the source's metadata")


def read_links(path: Path) -> pd.DataFrame:
    """Read pairs of images that show the same lesion under two ids: a row a pair, string columns `LINK_COLUMNS`.

    Raises
    ------
    PipelineError
        The file is missing or no CSV, or lacks a column.
    """
    try:
        links = parse_csv(path, name=f"split.links: {path}", dtype="str")
    except FileNotFoundError:
        raise PipelineError(f"split.links: {path} not found: correct the path, or set split.links to null") from None
    missing = [name for name in LINK_COLUMNS if name not in links.columns]
    if missing:
        raise PipelineError(
            f"split.links: {path} lacks the column(s) {', '.join(missing)}; it has {name_some(links.columns, 40)}"
        )
    return links[list(LINK_COLUMNS)]


def merge_lesions(metadata: pd.DataFrame, links: pd.DataFrame) -> pd.DataFrame:
    """Give linked lesions, however long the chain of links, one `lesion_id`: the smallest of theirs.

    Parameters
    ----------
    metadata : a row an image, one diagnosis a lesion (see `check_diagnoses`).
    links : as `read_links` gives them.

    Raises
    ------
    PipelineError
        A link names an image that is not in the metadata, or joins two diagnoses.
    """
    known = metadata.set_index("image_id")
    unknown = sorted(set(links.to_numpy().ravel()) - set(known.index))
    if unknown:
        raise PipelineError(f"split.links names unknown image(s) {name_some(repr(image) for image in unknown)}: correct the list")
    ends = [known.loc[links[column]] for column in LINK_COLUMNS]
    differ = ends[0]["dx"].to_numpy() != ends[1]["dx"].to_numpy()
    if differ.any():
        pairs = zip(*(end[differ].itertuples() for end in ends), strict=True)
        offenders = name_some(f"{a.Index} ({a.dx}) and {b.Index} ({b.dx})" for a, b in pairs)
        raise PipelineError(f"split.links joins two diagnoses: {offenders}: remove the pair, or correct its dx at the source")
    lesions = np.unique(metadata["lesion_id"].to_numpy(dtype=object))  # sorted, so the first of a component is its smallest
    edges = tuple(np.searchsorted(lesions, end["lesion_id"].to_numpy(dtype=object)) for end in ends)
    graph = coo_array((np.ones(len(links)), edges), shape=(len(lesions), len(lesions)))
    component = connected_components(graph, directed=False)[1]
    _, first = np.unique(component, return_index=True)
    merged = dict(zip(lesions, lesions[first[component]], strict=True))
    return metadata.assign(lesion_id=metadata["lesion_id"].map(merged))


def deal(metadata: pd.DataFrame, *, folds: int, validation_folds: int, fold: int, seed: int) -> dict[str, pd.DataFrame]:
    """Deal whole lesions, stratified by diagnosis, to `train`, `val` and `test`; rows sorted by `image_id`.

    Of `folds` folds number `fold` is the test set; the rest is dealt to `validation_folds` folds, of which the first is the
    validation set. The deal does not depend on the order of the rows. Over all values of `fold` the test sets are a partition.

    References
    ----------
    scikit-learn, `StratifiedGroupKFold`; with `shuffle` it stratifies from 1.8 on (its pull request 32540), not before.

    Raises
    ------
    PipelineError
        There are more folds than any diagnosis has lesions.
    """
    rest, test = _take_fold(metadata, folds, fold, seed=seed, key="split.folds")
    train, val = _take_fold(rest, validation_folds, 0, seed=seed, key="split.validation_folds")
    return {name: part.sort_values("image_id") for name, part in zip(SPLIT_NAMES, (train, val, test), strict=True)}


def _take_fold(frame: pd.DataFrame, folds: int, fold: int, *, seed: int, key: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All other folds' rows, and those of number `fold`."""
    most = int(frame.groupby("dx")["lesion_id"].nunique().max())
    if most < folds:
        raise PipelineError(f"{key} is {folds}, and no diagnosis has more than {most} lesions to deal: lower it, or add images")
    dealer = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of a class with fewer images than folds; check_classes insists on what matters
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        others, taken = next(islice(dealer.split(frame, frame["dx"], frame["lesion_id"]), fold, None))
    return frame.iloc[others], frame.iloc[taken]


def check_disjoint(splits: dict[str, pd.DataFrame]) -> dict[str, int]:
    """Count what two splits share, and insist that it is nothing.

    Returns
    -------
    {'images': 0, 'lesions': 0}, as counted.

    Raises
    ------
    PipelineError
        An image or a lesion is in two splits, or twice in one.
    """
    overlap = {}
    for column, kind in (("image_id", "images"), ("lesion_id", "lesions")):
        members = {name: set(frame[column]) for name, frame in splits.items()}
        shared = {(a, b): sorted(members[a] & members[b]) for a, b in combinations(splits, 2)}
        overlap[kind] = sum(map(len, shared.values()))
        if overlap[kind]:
            offenders = "; ".join(f"{name_some(found)} in {a} and {b}" for (a, b), found in shared.items() if found)
            raise PipelineError(f"{kind} in two splits: {offenders}. This is an error of the program: please report it")
    for name, frame in splits.items():
        if frame["image_id"].duplicated().any():
            offenders = name_some(frame.loc[frame["image_id"].duplicated(), "image_id"])
            raise PipelineError(f"image twice in {name}: {offenders}. This is an error of the program: please report it")
    return overlap


def class_shares(frame: pd.DataFrame) -> pd.Series:
    """Share of the images that each diagnosis has (0 to 1, sums to 1), indexed by `CLASSES` in order."""
    return frame["dx"].value_counts(normalize=True).reindex(list(CLASSES), fill_value=0.0)


def check_classes(splits: dict[str, pd.DataFrame], *, max_deviation: float) -> float:
    """Insist that every diagnosis is in every split, with about the share that it has in the whole.

    Parameters
    ----------
    splits : the three lists.
    max_deviation : how far a share may lie from that of the whole, in percentage points.

    Returns
    -------
    The largest deviation in percentage points.

    Raises
    ------
    PipelineError
        A class is missing from a split, or deviates by more.
    """
    whole = pd.concat(splits.values())
    lesions = whole.groupby("dx")["lesion_id"].nunique().reindex(list(CLASSES), fill_value=0)
    shares = pd.DataFrame({name: 100 * class_shares(frame) for name, frame in splits.items()})
    absent = [f"{dx} ({lesions[dx]} lesion(s)) not in {name}" for (dx, name), share in shares.stack().items() if share == 0]
    if absent:
        raise PipelineError(
            f"every diagnosis must be in every split: {'; '.join(absent)}. Add images of it, or with three lesions or more "
            "choose another split.seed, or fewer split.folds and split.validation_folds"
        )
    expected = 100 * class_shares(whole)
    deviations = shares.sub(expected, axis=0).abs()
    too_far = [
        f"{dx} is {shares.at[dx, name]:.2f} % of {name} and {expected[dx]:.2f} % of the whole"
        for (dx, name), deviation in deviations.stack().items()
        if deviation > max_deviation
    ]
    if too_far:
        raise PipelineError(
            f"class share more than {max_deviation:g} percentage points from the whole: {'; '.join(too_far)}. "
            "Choose another split.seed, or a larger split.max_deviation"
        )
    return float(deviations.to_numpy().max())
