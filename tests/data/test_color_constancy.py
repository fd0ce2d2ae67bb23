"""Shades of grey by hand, against the formula written out pixel by pixel, and where there is no light."""

import warnings

import numpy as np
import pytest

from skinlesion.data.color_constancy import shades_of_gray


def image_of(*pixels: tuple[int, int, int]) -> np.ndarray:
    return np.array([pixels], dtype=np.uint8)


def random_image(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.2, 1, (40, 30, 1)) * rng.integers(60, 200, 3)).astype(np.uint8)


def by_the_formula(image: np.ndarray) -> np.ndarray:
    light = np.mean(image.astype(np.float64) ** 6, axis=(0, 1)) ** (1 / 6)
    light /= np.sqrt((light**2).sum())
    return np.clip(np.rint(image / (np.sqrt(3) * light)), 0, 255).astype(np.uint8)


def test_a_single_colour_becomes_the_grey_of_its_root_mean_square() -> None:
    # sqrt((200^2 + 100^2 + 50^2) / 3) = 132.3; black pixels do not change the light's colour
    result = shades_of_gray(image_of((200, 100, 50), (100, 50, 25), (0, 0, 0)))
    assert result.tolist() == [[[132, 132, 132], [66, 66, 66], [0, 0, 0]]]
    assert result.dtype == np.uint8


def test_it_is_the_formula() -> None:
    for seed in range(4):
        np.testing.assert_array_equal(shades_of_gray(random_image(seed)), by_the_formula(random_image(seed)))


def test_a_tint_of_the_light_goes_away() -> None:
    scene = random_image()
    tinted = np.rint(scene * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
    assert np.abs(tinted.astype(int) - scene).max() > 30
    spreads = [np.ptp(shades_of_gray(image).reshape(-1, 3).mean(axis=0)) for image in (tinted, scene)]
    assert max(spreads) < 1
    assert np.ptp(scene.reshape(-1, 3).mean(axis=0)) > 15


def test_grey_stays_as_it_is() -> None:
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (20, 20, 1), dtype=np.uint8), 3, axis=2)
    np.testing.assert_array_equal(shades_of_gray(grey), grey)


@pytest.mark.parametrize("pixels", [[(0, 0, 0)], [(0, 0, 0), (200, 0, 0)], [(0, 1, 255)]])
def test_no_division_by_zero(pixels: list[tuple[int, int, int]]) -> None:
    image = image_of(*pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = shades_of_gray(image)
    assert (result[image == 0] == 0).all()


def test_what_would_be_too_bright_is_clipped_and_the_input_stays() -> None:
    image = image_of(*[(120, 240, 240)] * 50, (255, 255, 255))
    before = image.copy()
    result = shades_of_gray(image)
    assert result[0, -1].tolist()[0] == 255 and result[0, 0].tolist() == by_the_formula(image)[0, 0].tolist()
    np.testing.assert_array_equal(image, before)
