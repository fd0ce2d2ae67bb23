"""Hair-like occlusion: thin dark curves over a training image, as real hair lies over many dermatoscopic images."""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision.transforms import v2

MOST_HAIRS = 8
POINTS = 24  # straight pieces of a curve
FINER = 4  # drawn so many times larger and reduced, for smooth edges


class HairOcclusion(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Draw hairs over one uint8 image (3, size, size) with a chance of `share`, 0 to 1; same shape and type out.

    One to eight quadratic Bezier curves (brown to black, nearly opaque) cross the image; their width is 0.4 to 1.2 % of its
    side. Draws from torch's default CPU generator.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        if torch.rand(()).item() >= self.share:
            return {"hairs": None}
        number = int(torch.randint(1, MOST_HAIRS + 1, ()))
        return {"hairs": torch.rand(number, 8, dtype=torch.float64).numpy()}

    def transform(self, inpt: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        if params["hairs"] is None:
            return inpt
        size = inpt.shape[-1]
        covered = torch.from_numpy(draw_hairs(params["hairs"], size=size)).float() / 255
        red, green, blue = (0.04 + 0.2 * params["hairs"][0, 6] * shade for shade in (1.0, 0.7, 0.5))
        color = torch.tensor([red, green, blue], dtype=torch.float32).view(3, 1, 1) * 255
        opacity = (0.75 + 0.25 * float(params["hairs"][0, 7])) * covered
        return torch.lerp(inpt.float(), color.expand(inpt.shape), opacity.expand(inpt.shape)).round_().to(torch.uint8)


def draw_hairs(hairs: np.ndarray, *, size: int) -> np.ndarray:
    """How much of each pixel hairs cover, uint8 (size, size).

    hairs : float64 (number, 8), each in [0, 1]: direction, offset, bend, length, start and width of a curve; the last two are
        the color's, of the first hair alone.
    """
    canvas = Image.new("L", (FINER * size, FINER * size))
    pen = ImageDraw.Draw(canvas)
    steps = np.linspace(0, 1, POINTS)[:, None]
    for direction, offset, bend, length, start, width, _, _ in hairs:
        along = np.array([math.cos(2 * math.pi * direction), math.sin(2 * math.pi * direction)])
        across = np.array([-along[1], along[0]])
        begin = 0.5 + (offset - 0.5) * across + (start * 0.5 - 0.7) * along
        end = begin + (0.6 + 0.8 * length) * along
        control = (begin + end) / 2 + (bend - 0.5) * 0.6 * across
        curve = (1 - steps) ** 2 * begin + 2 * steps * (1 - steps) * control + steps**2 * end
        thickness = max(1, round((0.004 + 0.008 * width) * FINER * size))
        pen.line([tuple(point) for point in (curve * FINER * size).tolist()], fill=255, width=thickness, joint="curve")
    return np.array(canvas.reduce(FINER))
