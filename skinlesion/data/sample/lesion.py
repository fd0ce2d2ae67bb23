"""What a synthetic lesion looks like: how traits follow from a diagnosis, and how traits become pixels.

A caricature of dermoscopy, made so that a small network can learn it and be wrong: every class has its textbook signs
(as in Tschandl, Rosendahl, Kittler, Scientific Data 5, 180161, 2018), the distributions overlap, and a share of the
lesions is blended with a class that dermatologists confuse it with. It says nothing about real skin.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Pixels = np.ndarray

# Mean and spread of each trait where a class does not say otherwise. Sizes are in lesion radii, colors in 0 to 255 on
# the reference skin, `area` is a share of the image, every other trait is a strength from 0 (absent) to 1.
COMMON: dict[str, tuple[float, float]] = {
    "area": (0.21, 0.05),
    "elongation": (1.1, 0.08),  # axis ratio of the outline
    "irregularity": (0.09, 0.04),  # standard deviation of the outline's radius
    "softness": (0.22, 0.1),  # width of the border
    "asymmetry": (0.2, 0.15),  # one side darker than the other
    "mottle": (0.3, 0.12),  # uneven pigment
    "network": (0.1, 0.12),  # pigment network
    "blotches": (0.05, 0.12),  # black-brown areas
    "veil": (0.0, 0.1),  # blue-gray areas
    "pale_rim": (0.2, 0.15),
    "white_center": (0.0, 0.1),
    "milia": (0.0, 0.12),  # white-yellow dots
    "openings": (0.0, 0.12),  # brown dots
    "vessels": (0.0, 0.12),  # arborising vessels
    "nests": (0.0, 0.1),  # blue-gray ovoid blobs
    "scale": (0.0, 0.12),  # white flakes and rosettes
    "lacunae": (0.0, 0.08),  # red-purple round lagoons
}
TRAITS: dict[str, dict[str, tuple[float, float]]] = {
    "akiec": {"red": (196, 18), "green": (118, 16), "blue": (104, 16), "area": (0.24, 0.05), "irregularity": (0.12, 0.05)}
    | {"softness": (0.55, 0.18), "mottle": (0.45, 0.15), "scale": (0.7, 0.22), "vessels": (0.15, 0.15)},
    "bcc": {"red": (208, 16), "green": (132, 18), "blue": (130, 18), "irregularity": (0.11, 0.05), "softness": (0.3, 0.12)}
    | {"vessels": (0.7, 0.25), "nests": (0.5, 0.3), "mottle": (0.2, 0.1)},
    "bkl": {"red": (160, 24), "green": (116, 22), "blue": (84, 18), "irregularity": (0.1, 0.04), "softness": (0.09, 0.05)}
    | {"milia": (0.6, 0.28), "openings": (0.5, 0.28), "mottle": (0.4, 0.15), "scale": (0.1, 0.15), "pale_rim": (0.05, 0.1)},
    "df": {"red": (178, 18), "green": (124, 16), "blue": (106, 16), "irregularity": (0.05, 0.03), "softness": (0.45, 0.15)}
    | {"white_center": (0.8, 0.2), "network": (0.4, 0.2), "area": (0.2, 0.04)},
    "mel": {"red": (118, 28), "green": (75, 21), "blue": (63, 16), "irregularity": (0.15, 0.055), "softness": (0.17, 0.08)}
    | {"asymmetry": (0.55, 0.27), "mottle": (0.47, 0.18), "blotches": (0.5, 0.32), "veil": (0.4, 0.3), "network": (0.35, 0.25)}
    | {"area": (0.23, 0.05)},
    "nv": {"red": (146, 26), "green": (92, 20), "blue": (70, 16), "irregularity": (0.06, 0.035), "softness": (0.25, 0.1)}
    | {"network": (0.55, 0.25), "blotches": (0.08, 0.15), "pale_rim": (0.45, 0.2), "mottle": (0.25, 0.12), "area": (0.2, 0.05)},
    "vasc": {"red": (158, 22), "green": (58, 18), "blue": (76, 20), "irregularity": (0.09, 0.04), "softness": (0.14, 0.07)}
    | {"lacunae": (0.85, 0.2), "area": (0.18, 0.04)},
}
CONFUSED_WITH: dict[str, tuple[str, ...]] = {
    "akiec": ("bkl", "bcc"),
    "bcc": ("akiec", "nv"),
    "bkl": ("nv", "akiec", "mel"),
    "df": ("nv", "akiec"),
    "mel": ("nv", "bkl"),
    "nv": ("mel", "bkl", "df"),
    "vasc": ("bcc", "mel"),
}
NAMES: tuple[str, ...] = (*COMMON, "red", "green", "blue")
BOUNDS: dict[str, tuple[float, float]] = {
    "area": (0.14, 0.32),
    "elongation": (1.0, 1.3),
    "irregularity": (0.01, 0.24),
    "softness": (0.04, 0.9),
    **dict.fromkeys(("red", "green", "blue"), (25.0, 240.0)),
}
MIXED_SHARE = 0.36  # of the lesions carry signs of a class they are confused with,
MIXED_WEIGHT = (0.3, 0.66)  # with a weight from this range: some lie nearer to the other class than to their own
EXTENT = 2.0  # half the side of the canvas in lesion radii; no outline reaches it
LONGEST = 1.5  # the outline's radius at most, before elongation
SUPERSAMPLING = 2  # ImageDraw has no antialiasing: shapes are drawn larger and averaged down


@dataclass(frozen=True)
class Lesion:
    """A lesion on its own canvas, before a view turns, zooms and lights it.

    image : RGBA of side x side pixels; alpha is 0 everywhere outside the outline.
    outline : float64 (K, 2), x and y in pixels from the canvas' center.
    """

    image: Image.Image
    outline: np.ndarray


def draw_traits(dx: str, rng: np.random.Generator) -> dict[str, float]:
    """Draw a lesion's traits from its diagnosis (keys as `NAMES`), a share of them blended with a confusable class."""
    values = _draw_pure(dx, rng)
    if rng.random() < MIXED_SHARE:
        other = CONFUSED_WITH[dx][int(rng.integers(len(CONFUSED_WITH[dx])))]
        values += rng.uniform(*MIXED_WEIGHT) * (_draw_pure(other, rng) - values)
    return {name: float(np.clip(value, *BOUNDS.get(name, (0.0, 1.0)))) for name, value in zip(NAMES, values, strict=True)}


def _draw_pure(dx: str, rng: np.random.Generator) -> np.ndarray:
    """The class's own distribution: a vector in the order of `NAMES`; the three color channels darken together."""
    means, spreads = np.array([(COMMON | TRAITS[dx])[name] for name in NAMES], dtype=np.float64).T
    deviations = rng.standard_normal(len(NAMES))
    deviations[-3:] = 0.95 * rng.standard_normal() + 0.3 * deviations[-3:]
    traits: np.ndarray = means + spreads * deviations
    return traits


def draw_lesion(dx: str, rng: np.random.Generator, image_area: float) -> Lesion:
    """Draw one lesion.

    Parameters
    ----------
    dx : diagnosis code, one of `diagnoses.CLASSES`.
    rng : the lesion's own generator.
    image_area : width x height in pixels of the image that it will lie in; it covers about 14 to 32 % of that.
    """
    traits = draw_traits(dx, rng)
    unit = math.sqrt(traits["area"] * image_area / math.pi)
    side = 2 * math.ceil(EXTENT * unit)
    y, x = np.meshgrid(*[(np.arange(side) + 0.5 - side / 2) / unit] * 2, indexing="ij")
    stretch = math.sqrt(traits["elongation"])
    radii = _outline_radii(traits["irregularity"], rng)
    angle = np.arctan2(y * stretch, x / stretch)
    distance = np.hypot(x / stretch, y * stretch) / np.interp(angle, _angles(), radii, period=2 * math.pi)
    color = _paint(traits, rng, x=x, y=y, distance=distance)
    ragged = np.clip(1 + 0.35 * smooth_noise(rng, distance.shape, 24), 0.3, 2)
    opacity = 1 - (1 - np.clip((1 - distance) * ragged / traits["softness"], 0, 1)) ** 2
    layers = np.dstack([np.clip(color, 0, 255), 255 * opacity]).round().astype(np.uint8)
    outline = unit * np.column_stack([stretch * radii * np.cos(_angles()), radii * np.sin(_angles()) / stretch])
    return Lesion(Image.fromarray(layers), outline)


def _angles() -> np.ndarray:
    return np.linspace(-math.pi, math.pi, 360, endpoint=False)


def _outline_radii(irregularity: float, rng: np.random.Generator) -> np.ndarray:
    """Radius at each of `_angles()`: a circle of area pi with harmonics 2 to 16, the higher ones weaker."""
    order = np.arange(2, 17)
    spectrum = order**-1.4
    amplitude = rng.standard_normal(len(order)) * spectrum / math.sqrt(0.5 * (spectrum**2).sum())
    phase = rng.uniform(0, 2 * math.pi, len(order))
    waves = (amplitude[:, None] * np.cos(order[:, None] * _angles() + phase[:, None])).sum(axis=0)
    radii = np.clip(1 + irregularity * waves, 0.4, LONGEST)
    limited: np.ndarray = np.minimum(radii / math.sqrt(np.mean(radii**2)), LONGEST)
    return limited


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Pixels:
    """Float64 noise of `shape` (rows, columns), mean near 0, spread near 1, with about `cells` bumps along the longer side."""
    return _smooth(_draw_grid(rng, shape, cells), shape)


def _draw_grid(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """The random numbers of `smooth_noise`."""
    scale = min(cells / max(shape), 0.5)
    return rng.standard_normal([max(2, round(length * scale)) for length in shape]).astype(np.float32)


def _smooth(grid: np.ndarray, shape: tuple[int, int]) -> Pixels:
    """`smooth_noise` from its random numbers."""
    smooth = Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return 1.3 * np.asarray(smooth, dtype=np.float64)


def empty_picture(shape: tuple[int, int]) -> Pixels:
    """Float64 (rows, columns, 3), each channel in one piece of memory: NumPy is slow where its innermost loop has three steps."""
    return np.empty((3, *shape)).transpose(1, 2, 0)


def blend(color: Pixels, target: tuple[float, ...], weight: Pixels) -> None:
    """Move an image (rows, columns, 3) towards a color in place, by a weight of 0 to 1 a pixel."""
    color += (np.array(target) - color) * np.clip(weight, 0, 1)[..., None]


def _paint(traits: dict[str, float], rng: np.random.Generator, *, x: Pixels, y: Pixels, distance: Pixels) -> Pixels:
    """The lesion's colors, float64 (side, side, 3); `distance` is 0 in the center and 1 on the outline.

    Half of the signs are absent: of these the random numbers are drawn, so that the others get theirs, and nothing else.
    """
    shape = distance.shape
    color = empty_picture(shape)
    color[:] = traits["red"], traits["green"], traits["blue"]

    def cover(target: tuple[float, ...], strength: float, weight: Callable[[], Pixels]) -> None:
        if strength > 0:
            blend(color, target, strength * weight())

    def patches(cells: int) -> Callable[[], Pixels]:
        grid = _draw_grid(rng, shape, cells)
        return lambda: _step(_smooth(grid, shape) - 0.5, 5)

    direction = rng.uniform(0, 2 * math.pi)
    darker_side = _step(x * math.cos(direction) + y * math.sin(direction), 2.5)
    color *= 1 - 0.5 * traits["asymmetry"] * darker_side[..., None]
    cover((205, 150, 130), 0.75 * traits["pale_rim"], lambda: distance**3)
    cover((38, 26, 26), 0.9 * traits["blotches"], patches(9))
    cover((98, 104, 128), 0.85 * traits["veil"], patches(7))
    mottle = smooth_noise(rng, shape, 10) + smooth_noise(rng, shape, 26)
    color *= np.clip(1 + 0.2 * traits["mottle"] * mottle - 0.35 * traits["network"] * _network(rng, x, y), 0.2, 2)[..., None]
    cover((232, 200, 190), 0.85 * traits["white_center"], lambda: np.exp(-((distance / 0.5) ** 3)))
    scatter = partial(_scatter, rng, len(x))
    cover((92, 98, 122), 0.85 * traits["nests"], scatter(9, (0.1, 0.24), soft=True))
    cover((78, 48, 34), 0.9 * traits["openings"], scatter(26, (0.04, 0.09)))
    cover((240, 222, 176), 0.95 * traits["milia"], scatter(30, (0.04, 0.09)))
    for lagoon in ((112, 16, 50), (72, 14, 60), (182, 34, 64)):
        cover(lagoon, 0.85 * traits["lacunae"], scatter(10, (0.1, 0.26), soft=True))
    cover((188, 38, 50), 0.75 * traits["vessels"], _vessels(rng, len(x)))
    flakes, rosettes = _draw_grid(rng, shape, 64), scatter(14, (0.03, 0.06), clover=True)
    cover((246, 232, 214), 0.85 * traits["scale"], lambda: np.maximum(_step(_smooth(flakes, shape) - 1.1, 5), rosettes()))
    return color


def _step(values: Pixels, steepness: float) -> Pixels:
    """A soft threshold at 0: 0 far below, 1 far above."""
    return 1 / (1 + np.exp(-steepness * values))


def _network(rng: np.random.Generator, x: Pixels, y: Pixels) -> Pixels:
    """A honeycomb of lines: three plane waves 120 degrees apart, bent by noise; 1 on the lines, 0 in the holes."""
    bend_x, bend_y = (0.05 * smooth_noise(rng, x.shape, 10) for _ in range(2))
    turn, frequency = rng.uniform(0, math.pi), rng.uniform(24, 33)
    waves = sum(
        np.cos(frequency * ((x + bend_x) * math.cos(turn + third) + (y + bend_y) * math.sin(turn + third)))
        for third in (0, 2 * math.pi / 3, 4 * math.pi / 3)
    )
    return _step(-0.7 - np.asarray(waves), 4)


def _scatter(
    rng: np.random.Generator, side: int, count: int, radii: tuple[float, float], *, clover: bool = False, soft: bool = False
) -> Callable[[], Pixels]:
    """Scatter about `count` ellipses over the lesion, with radii (in lesion radii) from that range.

    `clover` makes four dots of each, as rosettes are; `soft` blurs their edges.

    Returns
    -------
    What draws them: where they lie, float64 (side, side) from 0 to 1.
    """
    unit, boxes = side / (2 * EXTENT), []
    for _ in range(int(rng.integers(count // 2, count + 1))):
        away, angle = 0.9 * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        x, y = away * math.cos(angle), away * math.sin(angle)
        width, height = rng.uniform(*radii, 2)
        for right, down in [(-width, 0), (width, 0), (0, -width), (0, width)] if clover else [(0, 0)]:
            boxes.append([x + right - width, y + down - height, x + right + width, y + down + height])

    def draw() -> Pixels:
        canvas, pen = drawing((side, side))
        for box in boxes:
            pen.ellipse([(edge + EXTENT) * unit * SUPERSAMPLING for edge in box], fill=255)
        return weight_of(canvas.filter(ImageFilter.GaussianBlur(0.03 * unit * SUPERSAMPLING)) if soft else canvas)

    return draw


def drawing(shape: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A black canvas of `SUPERSAMPLING` times the size, and what draws on it; `shape` is (rows, columns)."""
    canvas = Image.new("L", (shape[1] * SUPERSAMPLING, shape[0] * SUPERSAMPLING))
    return canvas, ImageDraw.Draw(canvas)


def weight_of(canvas: Image.Image) -> Pixels:
    """A drawing of `SUPERSAMPLING` times the size as float64 from 0 to 1."""
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _vessels(rng: np.random.Generator, side: int) -> Callable[[], Pixels]:
    """Branching lines that run from the border inwards and thin out: what draws them, float64 (side, side) from 0 to 1."""
    unit = side / (2 * EXTENT)
    starts = rng.uniform(0, 2 * math.pi, int(rng.integers(3, 6)))
    branches = [(math.cos(start), math.sin(start), start + math.pi, 0.065) for start in starts]
    lines = []
    while branches:
        x, y, heading, thickness = branches.pop()
        for _ in range(8):
            heading += rng.normal(0, 0.35)
            to_x, to_y = x + 0.14 * math.cos(heading), y + 0.14 * math.sin(heading)
            ends = [(value + EXTENT) * unit * SUPERSAMPLING for value in (x, y, to_x, to_y)]
            lines.append((ends, max(1, round(thickness * unit * SUPERSAMPLING))))
            x, y = to_x, to_y
            if thickness > 0.03 and rng.random() < 0.3:
                branches.append((x, y, heading + rng.choice([-0.8, 0.8]), thickness * 0.6))

    def draw() -> Pixels:
        canvas, pen = drawing((side, side))
        for ends, width in lines:
            pen.line(ends, fill=255, width=width)
        return weight_of(canvas)

    return draw
