"""The methods that make maps, by name (all of torchcam 0.5.0, and occlusion, which is ours), and how one is applied.

Which papers they are, and where torchcam departs from them, stands in `skinlesion.explanation.cam.maps.compute_maps`.
"""

from dataclasses import dataclass
from typing import get_args

import torch

from skinlesion.base.errors import PipelineError, suggest
from skinlesion.config.evaluation import CamMethod

METHODS: tuple[CamMethod, ...] = get_args(CamMethod)

# They change the image again and again and look at the scores: hundreds to thousands of passes an image, and no gradient.
PERTURBATION_METHODS: frozenset[CamMethod] = frozenset({"ScoreCAM", "SSCAM", "ISCAM", "Occlusion"})

# Methods that average over samples (noise, or steps from a dark image), with torchcam's own number of them.
DEFAULT_SAMPLES: dict[CamMethod, int] = {"SmoothGradCAMpp": 4, "SSCAM": 35, "ISCAM": 10}


@dataclass(frozen=True)
class MapOptions:
    """How maps are made, of whatever networks and images.

    layer : `auto` or a layer's name in the backbone, see `targets.find_target`. A layer whose output the
        network changes in place (by a ReLU) is taken as changed, and so is one that attention follows.
    batch_size : images a pass; of the methods that change an image again and again (`PERTURBATION_METHODS`), copies of one
        image a pass. Changes speed and memory, not results: maps agree to 1e-5, of SmoothGradCAMpp, whose quotient of small
        numbers magnifies rounding, to 1e-3. So do a GPU's with a CPU's, mostly to 1e-5; but of SmoothGradCAMpp of a trained
        network not at all: weights that change in the sixth digit move its cells by a tenth and more.
    seed : of the noise of SmoothGradCAMpp and SSCAM; the map of the image in row `r` uses `seed + r`, whichever images are
        explained with it. The other methods draw nothing.
    samples : noisy images of SmoothGradCAMpp (4 if None), noisy masks a feature map of SSCAM (35), steps of ISCAM (10);
        at least 1. The other methods have none.
    flipped : the network sees the images mirrored left to right; a map is then of the mirrored image.
    """

    method: CamMethod
    device: torch.device
    layer: str = "auto"
    batch_size: int = 32
    seed: int = 0
    samples: int | None = None
    flipped: bool = False

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"samples is {self.samples}, and must be at least 1, or None")


def check_method(method: str) -> CamMethod:
    """The method of that name.

    Raises
    ------
    PipelineError
        There is none; it names the nearest one and all of them.
    """
    for known in METHODS:
        if known == method:
            return known
    raise PipelineError(f"gradcam.methods: no method '{method}'{suggest(method, METHODS)}; known: {', '.join(METHODS)}")
