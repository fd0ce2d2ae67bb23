"""Augmentation of one image: what each value does, in which range, and that torch's default generator alone decides."""

import colorsys
import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from skinlesion.config.augmentation import Augmentation
from skinlesion.training.augmentation.presets import NONE, PRESETS
from skinlesion.training.augmentation.transforms import MEAN_COLOR, ReflectedAffine, train_transform

SIZE = 48
# One value that is on for each field that changes a single image; tests/training/test_mixing.py has the others.
OPTIONS: dict[str, Any] = {
    "horizontal_flip": True,
    "vertical_flip": True,
    "rotation": 20.0,
    "min_scale": 0.5,
    "zoom": 0.2,
    "color_jitter": 0.2,
    "hue": 0.1,
    "rand_augment": 9,
    "trivial_augment": True,
    "hair": 1.0,
    "random_erasing": 1.0,
}
ON_BATCHES = {"mixup", "cutmix", "mix_share"}
EVERYTHING = NONE.model_copy(update=OPTIONS)


def only(**values: Any) -> Augmentation:
    return NONE.model_copy(update=values)


def picture(size: int = SIZE) -> torch.Tensor:
    """A colored image of smooth noise, no two sides alike."""
    coarse = torch.randint(0, 256, (3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return v2.functional.resize(coarse, [size, size], antialias=True)


def plain(*color: int, size: int = SIZE) -> torch.Tensor:
    return torch.tensor(color, dtype=torch.uint8).view(3, 1, 1).repeat(1, size, size)


def draws(augmentation: Augmentation, image: torch.Tensor, number: int) -> list[torch.Tensor]:
    """What becomes of an image under the seeds 0, 1, ..."""
    transform = train_transform(augmentation, size=image.shape[-1])
    results = []
    for seed in range(number):
        torch.manual_seed(seed)
        results.append(transform(image))
    return results


def test_every_value_is_tested() -> None:
    assert OPTIONS.keys() | ON_BATCHES == Augmentation.model_fields.keys()


def test_nothing_switched_on_changes_nothing() -> None:
    assert all(torch.equal(result, picture()) for result in draws(NONE, picture(), 5))


@pytest.mark.parametrize("option", OPTIONS)
def test_each_value_alone_changes_images_and_not_their_type(option: str) -> None:
    image = picture()
    results = draws(only(**{option: OPTIONS[option]}), image, 12)
    assert any(not torch.equal(result, image) for result in results)
    assert torch.equal(image, picture())  # not in place: it may be the data set's
    assert {(result.dtype, result.shape) for result in results} == {(torch.uint8, image.shape)}


@pytest.mark.parametrize("size", [32, 45])
def test_shape_and_type_stay(size: int) -> None:
    results = draws(EVERYTHING, picture(size), 8)
    assert {(result.dtype, result.shape) for result in results} == {(torch.uint8, (3, size, size))}


def test_presets_differ_and_the_same_draws_do_too() -> None:
    for one, other in itertools.combinations(PRESETS.values(), 2):
        assert one != other
        pairs = zip(draws(one, picture(), 5), draws(other, picture(), 5), strict=True)
        assert any(not torch.equal(left, right) for left, right in pairs)


def test_torchs_default_generator_alone_decides() -> None:
    expected = draws(EVERYTHING, picture(), 10)
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        states = random.getstate(), np.random.get_state()[1].tolist()
        again = draws(EVERYTHING, picture(), 10)
        assert all(torch.equal(one, other) for one, other in zip(expected, again, strict=True))
        assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    assert len({result.numpy().tobytes() for result in expected}) == 10


@pytest.mark.parametrize(("option", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_flips(option: str, axis: int) -> None:
    image, mirrored = picture(), picture().flip(axis)
    results = draws(only(**{option: True}), image, 200)
    assert all(torch.equal(result, image) or torch.equal(result, mirrored) for result in results)
    assert 70 <= sum(torch.equal(result, mirrored) for result in results) <= 130


def spot_moves(augmentation: Augmentation, number: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """By how many degrees (clockwise) and by which factor a spot right of the center moves around and away from it."""
    image = plain(0, 0, 0, size=65)
    image[:, 31:34, 43:46] = 255  # center of the spot 12 pixels to the right of the image's
    rows, columns = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    near = rows**2 + columns**2 < 20**2  # not the reflections at the border
    angles, factors = [], []
    for result in draws(augmentation, image, number):
        weight = result[0].double() * near
        down, right = (float((weight * axis).sum() / weight.sum()) for axis in (rows, columns))
        angles.append(math.degrees(math.atan2(down, right)))
        factors.append(math.hypot(down, right) / 12)
    return np.array(angles), np.array(factors)


@pytest.mark.parametrize("degrees", [20.0, 90.0, 180.0])
def test_rotation_goes_so_many_degrees_either_way(degrees: float) -> None:
    angles, factors = spot_moves(only(rotation=degrees))
    assert np.abs(angles).max() <= degrees + 1.5
    assert angles.min() < -0.9 * degrees and angles.max() > 0.9 * degrees
    np.testing.assert_allclose(factors, 1, atol=0.03)


@pytest.mark.parametrize("zoom", [0.1, 0.4])
def test_zoom_magnifies_either_way(zoom: float) -> None:
    angles, factors = spot_moves(only(zoom=zoom))
    assert 1 - zoom - 0.03 <= factors.min() < 1 - 0.8 * zoom
    assert 1 + 0.8 * zoom < factors.max() <= 1 + zoom + 0.03
    np.testing.assert_allclose(angles, 0, atol=2)


@pytest.mark.parametrize(("angle", "magnification"), [(90.0, 1.0), (-30.0, 1.0), (10.0, 1.0), (0.0, 1.3), (25.0, 0.8)])
def test_rotation_and_zoom_are_torchvisions_away_from_the_border(angle: float, magnification: float) -> None:
    image = v2.functional.gaussian_blur(torch.randint(0, 256, (3, 33, 33), dtype=torch.uint8), [5, 5])
    ours = ReflectedAffine(180.0).transform(image, {"angle": math.radians(angle), "magnification": magnification})
    still: dict[str, Any] = {"translate": [0, 0], "shear": [0.0, 0.0], "interpolation": InterpolationMode.BILINEAR}
    theirs = v2.functional.affine(image, angle=-angle, scale=magnification, **still)  # whose angles are clockwise
    inside = slice(8, 25)
    assert (ours.int() - theirs.int())[:, inside, inside].abs().max() <= 1


@pytest.mark.parametrize("values", [{"rotation": 45.0}, {"rotation": 180.0}, {"zoom": 0.5}, {"rotation": 180.0, "zoom": 0.5}])
def test_what_lies_outside_is_reflected_in(values: dict[str, float]) -> None:
    assert all(int(result.min()) >= 254 for result in draws(only(**values), plain(255, 255, 255), 20))


@pytest.mark.parametrize("min_scale", [0.3, 0.8])
def test_a_crop_keeps_at_least_that_share_and_nearly_the_aspect(min_scale: float) -> None:
    size = 64
    across = (torch.arange(size) * 4).to(torch.uint8).expand(size, size)
    image = torch.stack([across, across.T, across])
    shares, aspects = [], []
    for result in draws(only(min_scale=min_scale), image, 150):
        width, height = (float(each.max()) - float(each.min()) for each in result[:2])
        shares.append(width * height / (4 * (size - 1)) ** 2)
        aspects.append(width / height)
    assert min_scale - 0.05 < min(shares) < min_scale + 0.1
    assert max(shares) > 0.95 - 0.1 * (1 - min_scale)
    assert 0.87 < min(aspects) < 0.95 and 1.05 < max(aspects) < 1.15


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_color_jitter_changes_brightness_contrast_and_saturation_by_that_much(strength: float) -> None:
    # each of the three steps rounds down
    gray = [float(result.float().mean()) for result in draws(only(color_jitter=strength), plain(100, 100, 100), 100)]
    assert 100 * (1 - strength) - 3 <= min(gray) < 100 * (1 - 0.8 * strength)
    assert 100 * (1 + 0.7 * strength) < max(gray) <= 100 * (1 + strength)
    halves = plain(50, 50, 50)
    halves[..., SIZE // 2 :] = 100
    contrasts = [int(result.max()) / int(result.min()) for result in draws(only(color_jitter=strength), halves, 50)]
    assert min(contrasts) < 1.99 < 2.01 < max(contrasts)
    halves[..., : SIZE // 2] = torch.tensor([180, 120, 120], dtype=torch.uint8).view(3, 1, 1)
    saturations = []
    for result in draws(only(color_jitter=strength), halves, 100):
        left, right = (result[:, 0, column].double() for column in (0, -1))
        luma = (left - right) @ torch.tensor([0.299, 0.587, 0.114]).double()  # contrast changes it as it does the color
        saturations.append(float((left[0] - left[1]) / luma) / (60 / (0.299 * 60 + 20)))
    assert 1 - strength - 0.04 <= min(saturations) < 1 - 0.8 * strength
    assert 1 + 0.7 * strength < max(saturations) <= 1 + strength + 0.04


@pytest.mark.parametrize("hue", [0.03, 0.2])
def test_hue_turns_colors_by_that_share_of_the_circle_and_leaves_grey(hue: float) -> None:
    gray = plain(120, 120, 120)
    assert all(torch.equal(result, gray) for result in draws(only(hue=hue), gray, 5))
    turns = []
    for result in draws(only(hue=hue), plain(200, 50, 50), 60):
        turn, saturation, value = colorsys.rgb_to_hsv(*(result[:, 0, 0] / 255).tolist())
        assert (saturation, value) == pytest.approx((0.75, 200 / 255), abs=0.02)
        turns.append((turn + 0.5) % 1 - 0.5)
    assert -hue - 0.005 <= min(turns) < -0.8 * hue and 0.8 * hue < max(turns) <= hue + 0.005


FILLED: dict[str, Any] = {"interpolation": InterpolationMode.BILINEAR, "fill": MEAN_COLOR}
POLICIES = [
    *(({"rand_augment": magnitude}, v2.RandAugment(2, magnitude, **FILLED)) for magnitude in (1, 9, 30)),
    ({"trivial_augment": True}, v2.TrivialAugmentWide(**FILLED)),
]


@pytest.mark.parametrize(("values", "theirs"), POLICIES)
def test_policies_are_torchvisions(values: dict[str, Any], theirs: v2.Transform) -> None:
    for seed, ours in enumerate(draws(only(**values), picture(), 20)):
        torch.manual_seed(seed)
        assert torch.equal(ours, theirs(picture()))


@pytest.mark.parametrize("size", [32, 144, 400])
def test_hairs_are_dark_thin_and_scale_with_the_image(size: int) -> None:
    skin = plain(220, 170, 160, size=size)
    results = draws(only(hair=1.0), skin, 60)
    assert all(bool((result <= skin).all()) for result in results)
    assert np.mean([torch.equal(result, skin) for result in results]) < 0.05
    # As if each pixel were bare or under the darkest hair there is; thinner than a pixel, a hair is paler instead.
    covered = np.array([float((220 - result[0].float()).mean()) / 210 for result in results])
    assert 0.01 < covered.mean() < 0.05 and covered.max() < 0.1
    assert np.median([int(result[0].min()) for result in results]) < (170 if size == 32 else 80)


def test_a_hair_is_as_long_as_the_image() -> None:
    for result in draws(only(hair=1.0), plain(220, 170, 160, size=100), 30):
        dark = result[0] < 200
        extent = max(int(dark.any(dim=side).sum()) for side in (0, 1))
        assert extent > 25


@pytest.mark.parametrize("option", ["hair", "random_erasing"])
def test_a_share_of_the_images(option: str) -> None:
    skin = plain(220, 170, 160, size=32)
    for share in (0.1, 0.6):
        changed = sum(not torch.equal(result, skin) for result in draws(only(**{option: share}), skin, 400))
        assert abs(changed / 400 - share) < 4 * math.sqrt(share * (1 - share) / 400)


def test_erasing_covers_one_rectangle_in_the_mean_color_above_all_else() -> None:
    white = plain(255, 255, 255)
    shares = []
    for result in draws(only(hair=1.0, random_erasing=1.0), white, 60):
        erased = (result == torch.tensor(MEAN_COLOR).view(3, 1, 1)).all(dim=0)
        rows, columns = (torch.nonzero(erased.any(dim=side)).flatten() for side in (1, 0))
        assert bool(erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())
        shares.append(float(erased.float().mean()))
    assert 0.015 < min(shares) < 0.05 and 0.1 < max(shares) < 0.16
