"""Which images may show what an image shows: votes of similar local features for one turn, zoom and shift.

A vocabulary of two levels (Nister and Stewenius, Scalable recognition with a vocabulary tree, CVPR 2006) finds similar features
without comparing all with all; of the votes for an image, those count that agree on the geometry (Jegou, Douze, Schmid, Hamming
embedding and weak geometric consistency, ECCV 2008, here with the shift too).
"""

from collections.abc import Sequence

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from skinlesion.audits.near_duplicates.keypoints import SIDE, Keypoints

VOTERS = 200  # features of an image that vote, the strongest
POSTINGS = 128  # features that share a word on average
MOST_BRANCHES = 128  # of either level
WORDS = 3  # nearest ones of a feature that asks
SAMPLE = 100_000  # features from which the first level is learnt
LARGEST_ZOOM = 1.3  # octaves
TURN_BIN = np.pi / 6  # radians
ZOOM_BIN = 0.8  # octaves
SHIFT_BIN = SIDE / 5  # pixels
MARGIN = SIDE / 4  # pixels around an image in which the middle of one that shows the same may come to lie
_CELLS = 16  # more than the bins of any coordinate


class Index:
    """The features of all images by word. Deterministic for a seed; thread-safe once built."""

    def __init__(self, images: Sequence[Keypoints], *, seed: int) -> None:
        """Build the vocabulary from the images' own features, and sort them by word."""
        voters = [_strongest(keypoints) for keypoints in images]
        counts = np.array([len(keypoints) for keypoints in voters])
        descriptors = np.concatenate([keypoints.descriptors for keypoints in voters])
        generator = np.random.default_rng(seed)
        branches = int(np.clip(round((len(descriptors) / POSTINGS) ** 0.5), 2, MOST_BRANCHES))
        self._images = len(images)
        self._learn(descriptors, branches, generator, seed)
        words = np.concatenate([self._words(keypoints.descriptors, 1)[:, 0] for keypoints in voters])
        order = np.argsort(words, kind="stable")
        self._starts = np.searchsorted(words[order], np.arange(branches**2 + 1))
        self._image = np.repeat(np.arange(len(images)), counts)[order]
        self._position = np.concatenate([keypoints.position for keypoints in voters])[order]
        self._size = np.log2(np.concatenate([keypoints.size for keypoints in voters]))[order]
        self._angle = np.concatenate([keypoints.angle for keypoints in voters])[order]

    def _learn(self, descriptors: np.ndarray, branches: int, generator: np.random.Generator, seed: int) -> None:
        """Centres of the first level by k-means; those of the second are features drawn from each cell of the first."""
        drawn = generator.choice(len(descriptors), min(SAMPLE, len(descriptors)), replace=False)
        sample = descriptors[np.sort(drawn)].astype(np.float32)
        first = MiniBatchKMeans(branches, random_state=seed, batch_size=4096, n_init=1, max_iter=15).fit(sample)
        self._first = first.cluster_centers_.astype(np.float32)
        cells = first.predict(sample)
        self._second = np.repeat(self._first[:, None], branches, axis=1)
        for cell in range(branches):
            members = np.flatnonzero(cells == cell)
            chosen = generator.choice(members, min(branches, len(members)), replace=False) if len(members) else members
            self._second[cell, : len(chosen)] = sample[chosen]

    def _words(self, descriptors: np.ndarray, number: int) -> np.ndarray:
        """The `number` nearest words of each descriptor, int64 (n, number), all in the nearest cell of the first level."""
        values = descriptors.astype(np.float32)
        cells = _nearest(values, self._first, 1)[:, 0]
        branches = len(self._first)
        words = np.zeros((len(values), min(number, branches)), np.int64)
        for cell in np.unique(cells):
            rows = np.flatnonzero(cells == cell)
            words[rows] = cell * branches + _nearest(values[rows], self._second[cell], number)
        return words

    def votes(self, keypoints: Keypoints) -> np.ndarray:
        """For each image the most votes that agree on one turn, zoom and shift of `keypoints`' image; int64 (images,)."""
        voters = _strongest(keypoints)
        words = self._words(voters.descriptors, WORDS)
        starts, ends = self._starts[words], self._starts[words + 1]
        lengths = (ends - starts).ravel()
        asked = np.repeat(np.repeat(np.arange(len(voters)), words.shape[1]), lengths)
        found = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) + np.repeat(starts.ravel(), lengths)
        zoom = self._size[found] - np.log2(voters.size)[asked]
        kept = np.abs(zoom) < LARGEST_ZOOM
        asked, found, zoom = asked[kept], found[kept], zoom[kept]
        turn = self._angle[found] - voters.angle[asked]
        # Where the middle of the image would come to lie: more certain than where its corner would.
        middle = complex(voters.width, 0.75 * voters.width) / 2
        place = self._position[found] + 2.0**zoom * np.exp(1j * turn) * (middle - voters.position[asked])
        near = np.flatnonzero(
            (np.abs(place.real - middle.real) < middle.real + MARGIN) & (np.abs(place.imag - middle.imag) < middle.imag + MARGIN)
        )
        votes = (self._image[found[near]], turn[near], zoom[near], place[near])
        most: np.ndarray = np.maximum(self._count(*votes, offset=0.0), self._count(*votes, offset=0.5))
        return most

    def _count(self, image: np.ndarray, turn: np.ndarray, zoom: np.ndarray, place: np.ndarray, *, offset: float) -> np.ndarray:
        """The fullest bin of each image; `offset` shifts the bins, so that no agreement lies on a border in both grids."""
        bins = (
            np.mod(turn, 2 * np.pi) / TURN_BIN + offset,
            (zoom + LARGEST_ZOOM) / ZOOM_BIN + offset,
            (place.real + MARGIN) / SHIFT_BIN + offset,
            (place.imag + MARGIN) / SHIFT_BIN + offset,
        )
        cells = [np.floor(values).astype(np.int64) for values in bins]
        cells[0] %= round(2 * np.pi / TURN_BIN)
        key = image
        for values in cells:
            key = key * _CELLS + values
        key.sort()
        first = np.flatnonzero(np.diff(key, prepend=-1))
        most = np.zeros(self._images, np.int64)
        np.maximum.at(most, key[first] // _CELLS**4, np.diff(first, append=len(key)))
        return most


def _strongest(keypoints: Keypoints) -> Keypoints:
    """The features that vote."""
    position, size, angle, descriptors, width = vars(keypoints).values()
    return Keypoints(position[:VOTERS], size[:VOTERS], angle[:VOTERS], descriptors[:VOTERS], width)


def _nearest(values: np.ndarray, centers: np.ndarray, number: int) -> np.ndarray:
    """The `number` nearest centres of each row, int64 (rows, number), the nearest first."""
    distances = (centers**2).sum(axis=1) - 2 * values @ centers.T
    return np.argsort(distances, axis=1, kind="stable")[:, :number]
