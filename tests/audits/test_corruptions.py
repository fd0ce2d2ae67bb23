"""Corruptions of prepared images: against other implementations, at their limits, by severity, and whose draws they are."""

import colorsys
import io
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from skinlesion.audits.robustness.corruptions import STRENGTHS, corrupt
from skinlesion.audits.robustness.page import CAPTIONS, draw_corruption_page
from skinlesion.config.audits import Corruption
from skinlesion.training.augmentation.hair import draw_hairs
from tests.data.download_cases import encoded

IDS = ["ISIC_1", "ISIC_2", "ISIC_3", "ISIC_4", "ISIC_5", "ISIC_6"]
# A strength that is hardly any. Hair has none: its least is one hair.
HARMLESS = {"brightness": 1, "contrast": 1, "hue": 0, "blur": 1e-6, "jpeg": 100, "noise": 0, "rotation": 0}


def make_images(size: int = 48) -> np.ndarray:
    """Smooth skin with a darker spot, as uint8 (6, size, size, 3), no channel near black or white."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    images = []
    for _ in IDS:
        spot = np.exp(-(((rows - generator.uniform(0.3, 0.7)) ** 2 + (columns - generator.uniform(0.3, 0.7)) ** 2) / 0.03))
        skin = np.array([180, 140, 120]) + generator.uniform(-15, 15, 3)
        texture = gaussian_filter(generator.normal(0, 40, (size, size, 1)), (1, 1, 0))
        images.append(skin - 60 * spot[..., None] + texture)
    return np.clip(np.round(images), 0, 255).astype(np.uint8)


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each image, float64 (N,)."""
    return np.abs(one.astype(np.float64) - other).mean(axis=(1, 2, 3))


def test_each_corruption_has_five_strengths_and_a_caption() -> None:
    assert get_args(Corruption) == tuple(STRENGTHS) == tuple(CAPTIONS)
    assert {len(strengths) for strengths in STRENGTHS.values()} == {5}


@pytest.mark.parametrize("corruption", STRENGTHS)
def test_the_higher_the_severity_the_further_are_images_from_the_clean_ones(corruption: Corruption) -> None:
    images = make_images(size=112)  # on smaller squares the weakest blur is far below a pixel
    before = images.copy()
    corrupted = [corrupt(images, IDS, corruption, strength=strength, seed=0) for strength in STRENGTHS[corruption]]
    assert all(each.dtype == np.uint8 and each.shape == images.shape for each in corrupted)
    assert np.array_equal(images, before)
    apart = np.stack([np.zeros(len(IDS)), *(distance(each, images) for each in corrupted)])
    # Turned further or in coarser steps of JPEG, a single image may lie nearer again.
    steps = np.diff(apart.mean(axis=1) if corruption in ("rotation", "jpeg") else apart, axis=0)
    assert (steps > 0).all()


@pytest.mark.parametrize("corruption", HARMLESS)
def test_at_its_least_a_corruption_leaves_the_image(corruption: Corruption) -> None:
    images = make_images()
    corrupted = corrupt(images, IDS, corruption, strength=HARMLESS[corruption], seed=0)
    # Hue goes through HSV and JPEG through YCbCr, with colours of half the resolution.
    assert distance(corrupted, images).max() <= {"hue": 0.5, "jpeg": 2.0}.get(corruption, 0)


@pytest.mark.parametrize("corruption", STRENGTHS)
def test_an_image_has_its_own_draws_whatever_the_batch_and_the_order(corruption: Corruption) -> None:
    images, strength = make_images(), STRENGTHS[corruption][2]
    together = corrupt(images, IDS, corruption, strength=strength, seed=3)
    backwards = corrupt(images[::-1], IDS[::-1], corruption, strength=strength, seed=3)[::-1]
    alone = np.concatenate([corrupt(images[[i]], [IDS[i]], corruption, strength=strength, seed=3) for i in range(len(IDS))])
    assert np.array_equal(together, backwards) and np.array_equal(together, alone)
    if corruption not in ("blur", "jpeg"):  # nothing is drawn
        copies = corrupt(np.repeat(images[:1], 40, axis=0), [f"I{i}" for i in range(40)], corruption, strength=strength, seed=3)
        assert len(np.unique(copies.reshape(40, -1), axis=0)) == (40 if corruption in ("noise", "hair") else 2)
        again = corrupt(images, IDS, corruption, strength=strength, seed=4)
        assert not np.array_equal(again, together)


def test_the_direction_of_an_image_is_the_same_at_all_severities() -> None:
    images = make_images()
    for corruption, summary in (("brightness", np.mean), ("contrast", np.std)):
        risen = []
        for strength in STRENGTHS[corruption]:
            corrupted = corrupt(images, IDS, corruption, strength=strength, seed=0)
            risen.append(summary(corrupted, axis=(1, 2, 3)) > summary(images, axis=(1, 2, 3)))
        assert (np.stack(risen) == risen[0]).all()
        assert 0 < np.mean(risen[0]) < 1


def both(corruption: Corruption, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """An image and what becomes of it, float64 (size, size, 3) in [0, 255]."""
    images = make_images()
    corrupted = corrupt(images, IDS, corruption, strength=strength, seed=0)
    return images[0].astype(np.float64), corrupted[0].astype(np.float64)


def nearest(corrupted: np.ndarray, *candidates: np.ndarray) -> float:
    """The largest difference of any pixel to the candidate that fits best, one a direction."""
    return min(float(np.abs(corrupted - np.clip(candidate, 0, 255)).max()) for candidate in candidates)


def test_brightness_and_contrast_by_their_formulas() -> None:
    image, corrupted = both("brightness", 1.3)
    assert nearest(corrupted, image * 1.3, image / 1.3) <= 1
    image, corrupted = both("contrast", 1.7)
    grey = np.floor(image @ [0.2989, 0.587, 0.114]).mean()
    assert nearest(corrupted, grey + (image - grey) * 1.7, grey + (image - grey) / 1.7) <= 1


def test_hue_equals_that_of_the_standard_library() -> None:
    image, corrupted = both("hue", 0.06)

    def turned(share: float) -> np.ndarray:
        pixels = [colorsys.rgb_to_hsv(*pixel) for pixel in (image / 255).reshape(-1, 3)]
        return 255 * np.array([colorsys.hsv_to_rgb((hue + share) % 1, s, v) for hue, s, v in pixels]).reshape(image.shape)

    assert nearest(corrupted, turned(0.06), turned(-0.06)) <= 2


def test_blur_equals_scipys_and_its_width_is_a_share_of_the_side() -> None:
    image, corrupted = both("blur", 6 / 224)
    expected = gaussian_filter(image, (48 * 6 / 224, 48 * 6 / 224, 0), mode="mirror", truncate=4)
    assert np.abs(corrupted - expected).max() <= 1
    large = np.kron(make_images()[0], np.ones((4, 4, 1))).astype(np.uint8)
    reduced = corrupt(large[None], IDS[:1], "blur", strength=6 / 224, seed=0)[0].reshape(48, 4, 48, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - corrupted)[4:-4, 4:-4].mean() < 0.5 < np.abs(reduced - image)[4:-4, 4:-4].mean()


def test_jpeg_is_pillows() -> None:
    image, corrupted = both("jpeg", 10)
    content = encoded(Image.fromarray(image.astype(np.uint8)), "JPEG", quality=10)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), corrupted)


def test_noise_has_its_deviation_and_no_color() -> None:
    grey = np.full((4, 64, 64, 3), 128, np.uint8)
    corrupted = corrupt(grey, IDS[:4], "noise", strength=0.08, seed=0).astype(np.float64)
    assert corrupted.std() / 255 == pytest.approx(0.08, rel=0.02)
    assert corrupted.mean(axis=(0, 1, 2)) == pytest.approx([128, 128, 128], abs=1)
    assert abs(np.corrcoef(corrupted.reshape(-1, 3).T)[0, 1]) < 0.03


def test_rotation_equals_scipys_interpolation_with_reflected_borders() -> None:
    image, corrupted = both("rotation", 27)
    center = (len(image) - 1) / 2
    rows, columns = np.mgrid[: len(image), : len(image)] - center

    def turned(angle: float) -> np.ndarray:
        cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        places = [center + cosine * rows + sine * columns, center - sine * rows + cosine * columns]
        return np.stack([map_coordinates(image[..., c], places, order=1, mode="reflect") for c in range(3)], axis=-1)

    assert nearest(corrupted, turned(27), turned(-27)) <= 1


def test_hairs_darken_what_they_cover_and_stay_where_they_are() -> None:
    images = np.full((1, 96, 96, 3), 200, np.uint8)
    covered = [corrupt(images, IDS[:1], "hair", strength=number, seed=0)[0] < 200 for number in STRENGTHS["hair"]]
    for fewer, more in pairwise(covered):
        assert (fewer <= more).all() and more.sum() > fewer.sum()
    shares = [corrupt(np.full((1, side, side, 3), 200, np.uint8), IDS[:1], "hair", strength=16, seed=0) for side in (64, 256)]
    lost = [200 - float(each.mean()) for each in shares]
    assert lost[0] == pytest.approx(lost[1], rel=0.25)  # widths are shares of the side, but for rounding
    assert draw_hairs(np.random.default_rng(0).random((16, 8)), size=64).max() == 255


def test_the_page_shows_every_condition_and_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    image = make_images()[0]
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        draw_corruption_page(image, IDS[0], ["noise", "hair"], [1, 4, 5], path, seed=0)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as page:
        width, height = page.size
        rows = np.asarray(page.convert("L"), dtype=np.float64)
    assert width > height
    draw_corruption_page(image, IDS[0], ["noise"], [1, 4, 5], paths[1], seed=0)
    with Image.open(paths[1]) as page:
        assert page.size[0] == width and page.size[1] < height
    assert rows.std() > 20
