"""How far the maps of a method can be believed, measured image by image.

Six questions, each with what it is held against:

- `energy`: how much of the map's energy lies on the lesion (`cam.energy`), against the map of another lesion's image
  laid over this one, which knows where lesions usually lie and how large they are;
- `pointing`: does its peak lie on the lesion (`skinlesion.explanation.cam.pointing`), against the image's centre;
- `deletion`, `insertion`: area under the curve of the class's probability (`cam.deletion`), against the order of
  random maps and the order from the centre outwards;
- `flip`: does the map of the mirrored image, mirrored back, rank the patches alike (Spearman);
- `shuffled`: does the map of the network with all weights shuffled (`cam.randomization`) still do so? It must not.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.config.evaluation import CamMethod
from skinlesion.data.originals import read_mask
from skinlesion.explanation.cam import deletion, patches
from skinlesion.explanation.cam.energy import energy_ratio
from skinlesion.explanation.cam.fusing import fuse_members
from skinlesion.explanation.cam.members import MemberMaps, place_mean
from skinlesion.explanation.cam.methods import PERTURBATION_METHODS
from skinlesion.explanation.cam.placing import crop_to_square
from skinlesion.explanation.cam.pointing import center_hits, points_at
from skinlesion.explanation.cam.randomization import DEPTHS, FULL, renew_batch_norm, shuffle_cascade
from skinlesion.explanation.cam.subject import Subject
from skinlesion.model.classifier import Classifier, normalize

logger = logging.getLogger(__name__)

SEED = 0  # of the random orders, the shuffled weights, and which image's map another image is measured with
BATCH_NORM_IMAGES, BATCH_NORM_BATCH = 512, 64  # over which the shuffled networks' statistics are computed
ORDERS = ("random", "center")  # of removal, that a map's is held against
DECIMALS = 6  # of the figures, as their table has them: what is summed up can be summed up again from there, to the last digit


@dataclass(frozen=True)
class Faithfulness:
    """What was measured with one method.

    positions : of the images measured, in the subject's table.
    maps : each member's maps of them.
    figures : float64 columns of `FIGURES`, a row an image measured, to `DECIMALS`, NaN where a figure is undefined.
    curves : by order of removal (`map`, `random`, `center`), deletion and insertion of each image, see
        `skinlesion.explanation.cam.deletion.curves`.
    masks : how many images have a mask. empty_masks : how many of these show no lesion pixel where the network looks.
    """

    positions: np.ndarray
    maps: dict[str, MemberMaps]
    figures: pd.DataFrame
    curves: dict[str, tuple[np.ndarray, np.ndarray]]
    masks: int
    empty_masks: int


FIGURES: tuple[str, ...] = (
    *("energy", "energy_other", "pointing", "pointing_center"),
    *(f"{curve}{order}" for curve in ("deletion", "insertion") for order in ("", *(f"_{name}" for name in ORDERS))),
    *("flip", "shuffled"),
    *(f"shuffled {depth}" for depth in DEPTHS if depth != FULL),
)


def choose_some(table: pd.DataFrame, count: int | None) -> np.ndarray:
    """Positions of `count` images of a table in random order of their ids, then sorted; all where there are no more, or None."""
    if count is None or count >= len(table):
        return np.arange(len(table))
    by_id = np.argsort(table["image_id"].to_numpy().astype(str), kind="stable")
    return np.sort(np.random.default_rng(SEED).permutation(by_id)[:count])


def measure_methods(
    subject: Subject, methods: Sequence[CamMethod], *, images: int | None, perturbation_images: int, steps: int
) -> dict[str, Faithfulness]:
    """Measure each method.

    Parameters
    ----------
    images : how many images are measured, drawn at random, None for all; a method that perturbs the image, and so takes hundreds
        of passes a map, is measured on `perturbation_images` of these.
    steps : of deletion and insertion.
    """
    most = choose_some(subject.table, images)
    fewer = most[choose_some(subject.table.iloc[most], perturbation_images)]
    positions = {method: fewer if method in PERTURBATION_METHODS else most for method in methods}
    largest = max(positions.values(), key=len)
    shuffled = shuffle_cascade(subject.members, seed=SEED)
    for depth, members in shuffled.items():
        _renew(replace(subject, members=members).some(largest))
        shuffled[depth] = fuse_members(members, keep=subject.options.layer)
    subject = replace(subject, members=fuse_members(subject.members, keep=subject.options.layer))
    orders = _Orders(subject.some(largest), steps)
    measured: dict[str, Faithfulness] = {}
    for method, chosen in positions.items():
        logger.info(
            "%s: %d images, mapped %d times", method, len(chosen), 3 if method in PERTURBATION_METHODS else 2 + len(DEPTHS)
        )
        depths = (FULL,) if method in PERTURBATION_METHODS else tuple(DEPTHS)
        of_method = replace(subject, options=replace(subject.options, method=method))
        forgetful = {depth: shuffled[depth] for depth in depths}
        measured[method] = _measure(of_method.some(chosen), chosen, orders, np.searchsorted(largest, chosen), forgetful)
    return measured


def _measure(
    subject: Subject,
    positions: np.ndarray,
    orders: "_Orders",
    within: np.ndarray,
    shuffled: Mapping[str, Mapping[str, Classifier]],
) -> Faithfulness:
    """The subject's method on its images, which are those at `within` of the images of `orders`."""
    maps = subject.maps()
    members, size, shown = list(maps.values()), subject.square["size"], subject.shown()
    heat = patches.patch_means(members, size=size)
    figures = pd.DataFrame(np.nan, index=range(len(subject.table)), columns=list(FIGURES))
    located, *counts = _localization(subject, members)
    for name in located:
        figures[name] = located[name]
    curves = {"map": orders.curves_of(heat, within), **{name: orders.fixed(name, members, within) for name in ORDERS}}
    for order, both in curves.items():
        for kind, curve in zip(("deletion", "insertion"), both, strict=True):
            figures[kind if order == "map" else f"{kind}_{order}"] = deletion.area_under(curve)
    mirrored = patches.patch_means(list(subject.maps(flipped=True).values()), size=size, mirrored=True)
    figures["flip"] = patches.rank_correlation(heat, mirrored, shown)
    for depth, others in shuffled.items():
        other = patches.patch_means(list(replace(subject, members=others).maps().values()), size=size)
        figures["shuffled" if depth == FULL else f"shuffled {depth}"] = patches.rank_correlation(heat, other, shown)
        for each in others.values():  # or the copies of all depths and members would fill a GPU
            each.model.cpu()
    return Faithfulness(positions, maps, figures.round(DECIMALS), curves, *counts)


class _Orders:
    """Deletion and insertion of the subject's images in orders that all methods share, computed once."""

    def __init__(self, subject: Subject, steps: int) -> None:
        self.subject = subject
        self.steps = steps
        self.seeds = np.arange(len(subject.table)) + SEED
        self.shown = subject.shown()
        self.score = subject.score()
        self.known: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}
        rows = subject.table["row"].to_numpy()
        self.ends = deletion.measure_ends(self.score, subject.images, rows, self.shown, batch_size=subject.options.batch_size)

    def curves_of(self, heat: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Deletion and insertion of the images at `within`, in the order of their maps `heat`."""
        ranks = deletion.removal_ranks(heat, self.shown[within], seeds=self.seeds[within])
        return deletion.curves(
            lambda batch, positions: self.score(batch, within[positions]),
            self.subject.images,
            self.subject.table["row"].to_numpy()[within],
            ranks,
            self.shown[within],
            self.ends.some(within),
            steps=self.steps,
            batch_size=self.subject.options.batch_size,
        )

    def fixed(self, order: str, like: Sequence[MemberMaps], within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same in the order `center`, or `random` with a map for each member, as coarse as its own."""
        key = (order, *((one.layer.side, one.layer.centers) for one in like if order == "random"))
        if key not in self.known:
            everyone = np.arange(len(self.seeds))
            heat = np.broadcast_to(patches.center_prior(), self.shown.shape) if order == "center" else self._random_heat(like)
            self.known[key] = self.curves_of(heat, everyone)
        whole = self.known[key]
        return whole[0][within], whole[1][within]

    def _random_heat(self, like: Sequence[MemberMaps]) -> np.ndarray:
        """Maps of random cells, averaged over members as real maps are."""
        generators = [np.random.default_rng(seed) for seed in self.seeds]
        drawn = [
            replace(one, maps=np.stack([generator.random([one.layer.side] * 2) for generator in generators]).astype(np.float32))
            for one in like
        ]
        return patches.patch_means(drawn, size=self.subject.square["size"])


def _localization(subject: Subject, members: list[MemberMaps]) -> tuple[pd.DataFrame, int, int]:
    """Energy and pointing of each image with a mask, and what they are held against; how many masks there are, and empty ones."""
    partners, figures, empty_masks = other_images(subject.table["lesion_id"]), {}, 0

    def placed(position: int, image: Any) -> np.ndarray:
        """The map of the image at `position` on what the network sees of `image`."""
        whole = place_mean(members, position, image.width, image.height, **subject.square)
        return crop_to_square(whole, **subject.square)

    listed = list(enumerate(subject.table.itertuples()))
    for position, image in tqdm(listed, desc="maps on masks", unit="image", disable=None):
        mask = read_mask(image.image_id, width=image.width, height=image.height)
        if mask is None:
            continue
        lesion, heat = crop_to_square(mask, **subject.square), placed(position, image)
        empty_masks += not lesion.any()
        figures[position] = {
            "energy": energy_ratio(heat, lesion),
            "energy_other": np.nan if partners is None else energy_ratio(placed(partners[position], image), lesion),
            "pointing": points_at(heat, lesion),
            "pointing_center": center_hits(lesion) if heat.any() else np.nan,
        }
    return pd.DataFrame.from_dict(figures, orient="index"), len(figures), empty_masks


def other_images(lesion_ids: pd.Series) -> np.ndarray | None:
    """For each image another one, of another lesion, each exactly once: positions; None where a lesion has over half of them.

    Lesions are put in a random order, and every image takes the one that lies as many places on as the largest lesion has images.
    """
    ids = lesion_ids.to_numpy().astype(str)
    names, lesion = np.unique(ids, return_inverse=True)
    largest = np.bincount(lesion).max()
    if len(ids) < 2 * largest:
        return None
    shuffled = np.random.default_rng(SEED).permutation(len(names))[lesion]
    order = np.argsort(shuffled, kind="stable")
    partners = np.empty(len(ids), dtype=np.int64)
    partners[order] = np.roll(order, -largest)
    return partners


def _renew(subject: Subject) -> None:
    """Compute the batch norms of shuffled networks anew, over the images that are explained, or some of them.

    Batches are of up to `BATCH_NORM_BATCH` images, whatever `batch_size`: they decide the statistics. One image alone has none.
    """
    table = subject.table.iloc[choose_some(subject.table, BATCH_NORM_IMAGES)]
    if len(table) < 2:
        return
    batches = np.array_split(np.arange(len(table)), math.ceil(len(table) / BATCH_NORM_BATCH))
    for model, config in subject.members.values():
        known = torch.from_numpy(encode_metadata(table)) if config.needs_metadata else None
        pixels = (torch.from_numpy(np.array(subject.images[table["row"].to_numpy()[batch]])) for batch in batches)
        renew_batch_norm(
            model,
            (
                (normalize(images, config), None if known is None else known[batch])
                for images, batch in zip(pixels, batches, strict=True)
            ),
            device=subject.options.device,
        )
