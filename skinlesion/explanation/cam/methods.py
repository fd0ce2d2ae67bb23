"""The methods that make maps, by name: all of torchcam 0.5.0, and occlusion, which is ours.

Which papers they are, and where torchcam departs from them, stands in `skinlesion.explanation.cam.maps.compute_maps`.
"""

from __future__ import annotations

from typing import get_args

from skinlesion.base.errors import PipelineError, suggest
from skinlesion.config.evaluation import CamMethod

Method = CamMethod

METHODS: tuple[Method, ...] = get_args(CamMethod)

# They change the image again and again and look at the scores: hundreds to thousands of passes an image, and no gradient.
PERTURBATION_METHODS: frozenset[Method] = frozenset({"ScoreCAM", "SSCAM", "ISCAM", "Occlusion"})

# Methods that average over samples (noise, or steps from a dark image), with torchcam's own number of them.
DEFAULT_SAMPLES: dict[Method, int] = {"SmoothGradCAMpp": 4, "SSCAM": 35, "ISCAM": 10}


def check_method(method: str) -> None:
    """Refuse a name that is no method's.

    Raises
    ------
    PipelineError
        It names the method, the nearest name and all of them.
    """
    if method not in METHODS:
        raise PipelineError(f"gradcam.methods: no method '{method}'{suggest(method, METHODS)}; known: {', '.join(METHODS)}")
