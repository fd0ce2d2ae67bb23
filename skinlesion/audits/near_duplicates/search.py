"""The search for pairs of images that show one lesion, over all images: features, candidates, verification."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from PIL import UnidentifiedImageError
from tqdm import tqdm

from skinlesion.artifacts.raw import image_path
from skinlesion.audits.near_duplicates.alignment import correlate, fit_similarity
from skinlesion.audits.near_duplicates.keypoints import Keypoints, find_keypoints, inside_ring, to_gray
from skinlesion.audits.near_duplicates.vocabulary import Index
from skinlesion.base.decoding import decode_picture
from skinlesion.base.errors import PipelineError
from skinlesion.base.parallel import map_in_order

FEWEST_VOTES = 3  # that agree; fewer make no candidate

Pair = tuple[int, int]  # rows of two images, the smaller first


@dataclass(frozen=True)
class Candidates:
    """What the votes propose.

    others : pairs of different lesions, sorted. images : how many images were asked.
    siblings : the pairs of one lesion that would have been proposed had the two images had different ids.
    """

    others: list[Pair]
    siblings: set[Pair]
    images: int


class Verified(NamedTuple):
    """How well two images lie over each other: matches that agree, correlation of grey values, zoom of the second against the
    first, turn in degrees, and whether the first is mirrored."""

    a: int
    b: int
    inliers: int
    correlation: float
    zoom: float
    turn: float
    mirrored: bool


def read_gray(image_id: str) -> np.ndarray:
    """An original as `to_gray` gives it.

    Raises
    ------
    PipelineError
        The image is not readable.
    """
    path = image_path(image_id)
    try:
        return to_gray(decode_picture(path.read_bytes(), ["JPEG"], lambda file: np.asarray(file.convert("RGB"))))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise PipelineError(f"image {path} is not readable ({error}): run `download` again") from None


def describe_images(image_ids: Iterable[str], *, workers: int) -> list[Keypoints]:
    """The local features of every image, in order; about 40 kB an image."""
    ids = list(image_ids)
    cv2.setNumThreads(1)  # the threads are ours: one an image
    described = map_in_order(lambda image_id: find_keypoints(read_gray(image_id)), ids, workers=workers)
    return list(tqdm(described, total=len(ids), desc="features", unit=" images", disable=None))


def sibling_pairs(lesion_ids: pd.Series) -> list[Pair]:
    """All pairs of images that have one lesion id."""
    rows = pd.Series(np.arange(len(lesion_ids))).groupby(lesion_ids.to_numpy()).agg(list)
    return sorted(pair for members in rows for pair in combinations(members, 2))


def find_candidates(
    keypoints: Sequence[Keypoints], lesion_ids: pd.Series, *, neighbors: int, seed: int, mirrored: bool, workers: int
) -> Candidates:
    """Of each image, the `neighbors` images of other lesions with the most votes, and whether its siblings would be among them.

    mirrored : whether the mirror image asks too.
    """
    index, lesions = Index(keypoints, seed=seed), pd.factorize(lesion_ids)[0]

    def ask(row: int) -> tuple[list[Pair], list[Pair]]:
        votes = index.votes(keypoints[row])
        if mirrored:
            votes = np.maximum(votes, index.votes(keypoints[row].mirrored()))
        own = lesions == lesions[row]
        others = np.where(own, 0, votes)
        best = np.argsort(-others, kind="stable")[:neighbors]
        least = max(FEWEST_VOTES, others[best[-1]] + (len(best) == neighbors))
        siblings = [other for other in np.flatnonzero(own & (votes >= least)) if other != row]
        chosen = best[others[best] >= FEWEST_VOTES]
        return [_pair(row, int(other)) for other in chosen], [_pair(row, int(other)) for other in siblings]

    answers = map_in_order(ask, range(len(keypoints)), workers=workers)
    others, siblings = set(), set()
    for proposed, reached in tqdm(answers, total=len(keypoints), desc="candidates", unit=" images", disable=None):
        others.update(proposed)
        siblings.update(reached)
    return Candidates(sorted(others), siblings, len(keypoints))


def _pair(row: int, other: int) -> Pair:
    return min(row, other), max(row, other)


def verify(
    pairs: Sequence[Pair], keypoints: Sequence[Keypoints], image_ids: pd.Series, *, mirrored: bool, workers: int
) -> list[Verified]:
    """Lay the images of each pair over each other, in order.

    mirrored : whether the mirror image of the first is tried too; the one with more inliers counts.
    """
    ids = image_ids.tolist()

    def check(pair: Pair) -> Verified:
        first, second = (keypoints[row] for row in pair)
        fits = [(fit_similarity(first, second), False)]
        if mirrored:
            fits.append((fit_similarity(first.mirrored(), second), True))
        fit, turned_over = max(fits, key=lambda tried: tried[0].inliers)
        if not fit.inliers:
            return Verified(*pair, 0, 0.0, 1.0, 0.0, False)
        grays = [read_gray(ids[row]) for row in pair]
        if turned_over:
            grays[0] = np.ascontiguousarray(grays[0][:, ::-1])
        correlation = correlate(grays[0], grays[1], (inside_ring(grays[0]), inside_ring(grays[1])), fit)
        return Verified(*pair, fit.inliers, correlation, abs(fit.turn), float(np.degrees(np.angle(fit.turn))), turned_over)

    checked = map_in_order(check, pairs, workers=workers)
    return list(tqdm(checked, total=len(pairs), desc="verification", unit=" pairs", disable=None))
