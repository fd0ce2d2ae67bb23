"""Photographs of a synthetic lesion: the skin around it, how it lies in the picture, and what disturbs every picture.

Nothing in this module knows a diagnosis, and its random numbers come from generators of their own: what lies outside the
lesion's mask is independent of the class, so that a map of a network's evidence can be checked against the mask.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from skinlesion.data.sample.lesion import (
    SUPERSAMPLING,
    Lesion,
    Pixels,
    blend,
    draw_lesion,
    drawing,
    empty_picture,
    smooth_noise,
    weight_of,
)

REFERENCE_SKIN = np.array([222.0, 172.0, 162.0])  # the skin on which the lesions' colors are meant
SKIN_TONES = np.array([[226, 168, 164], [220, 146, 126], [204, 176, 184], [238, 210, 202], [206, 164, 138], [214, 182, 160]])


@dataclass(frozen=True)
class _Skin:
    """The patient's skin: color (3,) in 0 to 255, and how strongly it is mottled (1 is usual)."""

    tone: np.ndarray
    mottling: float


def draw_views(
    dx: str, seeds: np.random.SeedSequence, *, views: int, width: int, height: int
) -> list[tuple[Image.Image, Image.Image]]:
    """Draw one lesion and photograph it several times.

    The views share the lesion and the skin's color; they differ by rotation, flip, zoom, shift, light and disturbances.

    Parameters
    ----------
    dx : diagnosis code, one of `diagnoses.CLASSES`.
    seeds : the lesion's own seeds; equal seeds draw equal pixels.
    views : number of pictures, >= 1.
    width, height : of the pictures in pixels.

    Returns
    -------
    One pair a view: the picture (RGB) and its mask (L, 255 inside the lesion's outline, 0 outside).
    """
    lesion_seed, skin_seed, *view_seeds = seeds.spawn(2 + views)
    lesion = draw_lesion(dx, np.random.default_rng(lesion_seed), width * height)
    skin = _draw_skin(np.random.default_rng(skin_seed))
    return [_draw_view(lesion, skin, np.random.default_rng(seed), width=width, height=height) for seed in view_seeds]


def _draw_skin(rng: np.random.Generator) -> _Skin:
    first, second = SKIN_TONES[rng.choice(len(SKIN_TONES), 2, replace=False)]
    share = rng.random()
    return _Skin(share * first + (1 - share) * second + rng.normal(0, 5, 3), rng.uniform(0.5, 1.6))


def _draw_view(
    lesion: Lesion, skin: _Skin, rng: np.random.Generator, *, width: int, height: int
) -> tuple[Image.Image, Image.Image]:
    shape = (height, width)
    picture = _background(skin, rng, shape)
    placed, mask = _place(lesion, rng, shape)
    color = empty_picture(shape)
    color[:] = placed[..., :3]
    color *= (skin.tone / REFERENCE_SKIN) ** 0.6  # pigment lies in the skin and takes on its hue
    picture += (color - picture) * (placed[..., 3:] / 255)
    for disturb, probability in ((_bubbles, 0.15), (_hair, 0.4), (_ruler, 0.12)):
        if rng.random() < probability:
            disturb(picture, rng)
    picture = _blur(picture, rng)
    _light(picture, rng)
    picture += rng.normal(0, 2.0, picture.shape)
    return Image.fromarray(np.clip(picture, 0, 255).round().astype(np.uint8)), mask


def _background(skin: _Skin, rng: np.random.Generator, shape: tuple[int, int]) -> Pixels:
    """Skin without a lesion, float64 (height, width, 3): its color with texture of low frequency."""
    picture = empty_picture(shape)
    picture[:] = skin.tone
    for cells, strength in ((5, 6.0), (16, 4.0), (70, 2.0)):
        texture = skin.mottling * strength * smooth_noise(rng, shape, cells)
        for channel, share in enumerate((0.6, 1.0, 1.0)):
            picture[..., channel] += texture * share
    return picture


def _place(lesion: Lesion, rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, Image.Image]:
    """Turn, flip, zoom and shift the lesion: uint8 RGBA (height, width, 4), and the mask from the same outline."""
    height, width = shape
    angle, zoom = rng.uniform(0, 2 * math.pi), rng.uniform(0.88, 1.12)
    turn = zoom * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn[:, 0] *= rng.choice([-1, 1])
    center = np.array([width, height]) * (0.5 + np.clip(rng.normal(0, 0.05, 2), -0.12, 0.12))
    back = np.linalg.inv(turn)
    offset = np.array(lesion.image.size) / 2 - back @ center
    affine = (*back[0], offset[0], *back[1], offset[1])
    placed = lesion.image.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in lesion.outline @ turn.T + center - 0.5], fill=255)
    return np.asarray(placed), mask


def _bubbles(picture: Pixels, rng: np.random.Generator) -> None:
    """Bubbles in the immersion gel: bright rings."""
    height, width = picture.shape[:2]
    canvas, pen = drawing((height, width))
    for _ in range(int(rng.integers(1, 6))):
        radius = height * rng.uniform(0.015, 0.05)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        box = [SUPERSAMPLING * value for value in (x - radius, y - radius, x + radius, y + radius)]
        pen.ellipse(box, outline=170, width=max(1, round(0.3 * radius * SUPERSAMPLING)))
    blend(picture, (246, 244, 240), weight_of(canvas))


def _hair(picture: Pixels, rng: np.random.Generator) -> None:
    """Hairs: quadratic Bezier curves, most of them roughly parallel, dark or fair."""
    height, width = picture.shape[:2]
    canvas, pen = drawing((height, width))
    along = rng.uniform(0, math.pi)
    position = np.linspace(0, 1, 14)[:, None]
    for _ in range(int(rng.geometric(0.12))):
        heading, half = along + rng.normal(0, 0.4), 0.5 * width * rng.uniform(0.3, 0.9)
        middle = rng.uniform(0, 1, 2) * (width, height)
        reach = half * np.array([math.cos(heading), math.sin(heading)])
        start, end, bend = middle - reach, middle + reach, middle + rng.normal(0, 0.12 * width, 2)
        curve = (1 - position) ** 2 * start + 2 * position * (1 - position) * bend + position**2 * end
        thickness = max(1, round(SUPERSAMPLING * height * rng.uniform(0.004, 0.009)))
        pen.line([tuple(point) for point in curve * SUPERSAMPLING], fill=230, width=thickness)
    color = (52, 38, 34) if rng.random() < 0.75 else (168, 132, 96)
    blend(picture, color, weight_of(canvas))


def _ruler(picture: Pixels, rng: np.random.Generator) -> None:
    """Black marks of a scale along the upper or lower edge, every fifth longer."""
    height, width = picture.shape[:2]
    canvas, pen = drawing((height, width))
    spacing, from_top = width * rng.uniform(0.035, 0.06), rng.random() < 0.5
    for mark, x in enumerate(np.arange(rng.uniform(0, spacing), width, spacing)):
        length = height * (0.075 if mark % 5 == 0 else 0.045)
        y = (0, length) if from_top else (height - length, height)
        pen.line([SUPERSAMPLING * value for value in (x, y[0], x, y[1])], fill=235, width=max(1, round(0.012 * height)))
    blend(picture, (30, 28, 30), weight_of(canvas))


def _blur(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Out of focus by up to 0.8 % of the height."""
    radius = picture.shape[0] * rng.uniform(0, 0.008)
    sharp = Image.fromarray(np.clip(picture, 0, 255).round().astype(np.uint8))
    blurred = empty_picture(picture.shape[:2])
    blurred[:] = np.asarray(sharp.filter(ImageFilter.GaussianBlur(radius)))
    return blurred


def _light(picture: Pixels, rng: np.random.Generator) -> None:
    """Exposure, color cast, a slope of brightness, and in some pictures the dark corners of the dermatoscope's ring."""
    height, width = picture.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    direction, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.08)
    brightness = rng.uniform(0.88, 1.1) * (1 + slope * (x * math.cos(direction) + y * math.sin(direction)))
    ring = rng.uniform(0.85, 1.0) if rng.random() < 0.25 else None
    if ring is not None:
        distance = np.hypot(x * width, y * height) / math.hypot(width, height)
        brightness = brightness * (1 - 0.92 / (1 + np.exp(-40 * (distance - ring * 0.92))))
    picture *= brightness[..., None] * rng.uniform(0.96, 1.04, 3)
