"""Whether two images show one lesion: matches of local features that agree on one turn, zoom and shift.

What is shown to be one is the skin in the pictures. Two lesions that lie side by side on it can each be the subject of one.
"""

from typing import NamedTuple

import cv2
import numpy as np

from skinlesion.audits.near_duplicates.keypoints import SIDE, Keypoints

RATIO = 0.9  # of the distances to the best and the second-best match; above it a match says nothing
LOOSE = 0.06 * SIDE  # pixels: how far a match may lie from where another single match puts it
TIGHT = 0.015 * SIDE  # pixels: how far from where the fit of all puts it
TURN = 0.5  # radians by which the directions of matches may differ from the fit
GROWTH = 0.8  # octaves, the same of their sizes
LARGEST_ZOOM = 2.5  # of one image against the other
SEEDS = 5  # single matches, those with the most followers, from which a fit is begun
APART = 3.0  # pixels: features nearer than that count once
FEWEST = 3  # matches that a fit needs
BLUR = 2.0  # pixels, sigma, before grey values are compared
SMALLEST_OVERLAP = 0.15  # of the image's area; below it a correlation says nothing


class Fit(NamedTuple):
    """How an image lies over another one: x + iy goes to `turn` * (x + iy) + `shift`; `inliers` matches say so."""

    inliers: int
    turn: complex
    shift: complex


NO_FIT = Fit(0, 1, 0)


def match(first: Keypoints, second: Keypoints) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the features that are each other's nearest, and clearly nearer than the next one (Lowe's ratio)."""
    if len(first) < 2 or len(second) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    one, other = (keypoints.descriptors.astype(np.float32) / 255 for keypoints in (first, second))
    distances = np.sqrt(np.maximum((one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T, 0))
    nearest = distances.argmin(axis=1)
    rows = np.arange(len(first))
    best = distances[rows, nearest]
    mutual = distances.argmin(axis=0)[nearest] == rows
    second_best = np.partition(distances, 1, axis=1)[:, 1]
    kept = np.flatnonzero(mutual & (best < RATIO * second_best))
    return kept, nearest[kept]


def fit_similarity(first: Keypoints, second: Keypoints) -> Fit:
    """The turn, zoom and shift on which most matches agree.

    A match of two features, with their directions and sizes, determines a similarity by itself, so all of them are tried
    rather than drawn (RANSAC without chance); those with the most followers are then fitted by least squares to them.
    """
    rows, columns = match(first, second)
    if len(rows) < FEWEST:
        return NO_FIT
    here, there = first.position[rows].astype(complex), second.position[columns].astype(complex)
    turns = second.size[columns] / first.size[rows] * np.exp(1j * (second.angle[columns] - first.angle[rows]))
    shifts = there - turns * here
    apart = np.abs(turns[:, None] * here + shifts[:, None] - there)
    plausible = np.abs(np.log(np.abs(turns))) < np.log(LARGEST_ZOOM)
    followers = (apart < LOOSE) & _agree(turns[:, None], turns) & plausible[:, None]
    seeds = np.argsort(-followers.sum(axis=1), kind="stable")[:SEEDS]
    return max((_refine(here, there, turns, followers[seed]) for seed in seeds), key=lambda fit: fit.inliers)


def _agree(turn: np.ndarray | complex, turns: np.ndarray) -> np.ndarray:
    """Which matches have the direction and the size of a similarity; bool, of the shape that both broadcast to."""
    relative = turns / turn
    return (np.abs(np.angle(relative)) < TURN) & (np.abs(np.log2(np.abs(relative))) < GROWTH)


def _refine(here: np.ndarray, there: np.ndarray, turns: np.ndarray, inliers: np.ndarray) -> Fit:
    """Fit by least squares and choose the inliers anew, in turns, until they stay."""
    for _ in range(5):
        if inliers.sum() < FEWEST:
            return NO_FIT
        source, target = here[inliers], there[inliers]
        centered = source - source.mean()
        turn = np.vdot(centered, target - target.mean()) / max(np.vdot(centered, centered).real, 1e-9)
        if not 1 / LARGEST_ZOOM < abs(turn) < LARGEST_ZOOM:
            return NO_FIT
        shift = target.mean() - turn * source.mean()
        before, inliers = inliers, (np.abs(turn * here + shift - there) < TIGHT) & _agree(turn, turns)
        if (before == inliers).all():
            break
    places = [np.unique(np.round(points[inliers] / APART)) for points in (here, there)]
    count = min(map(len, places))
    return Fit(count, complex(turn), complex(shift)) if count >= FEWEST else NO_FIT


def correlate(first: np.ndarray, second: np.ndarray, inside: tuple[np.ndarray, np.ndarray], fit: Fit) -> float:
    """Correlation, -1 to 1, of the grey values of two images, the first laid over the second; 0 where they hardly overlap.

    first, second : uint8 grey images, the first already mirrored if the fit is of its mirror image.
    inside : where each is not ring, above 127 (`inside_ring`).
    """
    height, width = second.shape
    turn, shift = complex(fit.turn), complex(fit.shift)
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    laid = cv2.warpAffine(cv2.GaussianBlur(first, (0, 0), BLUR), matrix, (width, height))
    seen = (cv2.warpAffine(inside[0], matrix, (width, height)) > 127) & (inside[1] > 127)
    if seen.mean() < SMALLEST_OVERLAP:
        return 0.0
    values = np.stack([laid[seen], cv2.GaussianBlur(second, (0, 0), BLUR)[seen]]).astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    spread = np.sqrt((values**2).sum(axis=1).prod())
    return float((values[0] * values[1]).sum() / spread) if spread > 0 else 0.0
