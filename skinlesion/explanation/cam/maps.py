"""Maps of where a network found its evidence: in batches, the same whatever their size, and without a trace in the model."""

import logging
import time
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from skinlesion.base.errors import PipelineError
from skinlesion.explanation.cam.extractors import open_explainer
from skinlesion.explanation.cam.methods import PERTURBATION_METHODS, MapOptions
from skinlesion.explanation.cam.modes import evaluating
from skinlesion.explanation.cam.targets import find_target
from skinlesion.model.classifier import ClassifierConfig, normalize
from skinlesion.model.float32 import full_float32
from skinlesion.model.network import SkinNetwork

logger = logging.getLogger(__name__)


def compute_maps(
    model: SkinNetwork,
    config: ClassifierConfig,
    images: np.ndarray,
    class_indices: Sequence[int] | np.ndarray,
    options: MapOptions,
    *,
    rows: np.ndarray | None = None,
    metadata: np.ndarray | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Where the network found what speaks for a class, a map an image.

    The numbers are those of torchcam 0.5.0, or of `cam.occlusion`. Where torchcam departs from the papers: GradCAMpp's
    pixel weights are the squared gradients, not normalised (eq. 19); SmoothGradCAMpp weighs the feature maps of its last noisy
    image, not of the image itself; ScoreCAM, SSCAM and ISCAM stretch a feature map over the image as if its cells tiled it, to
    mask the image with it. Where we depart from torchcam: CAM is rectified, and RefineCAM's maps are multiplied where their cells
    lie. RefineCAM refines GradCAMpp, FinerCAM is GradCAM of the class against the three that score nearest.

    Parameters
    ----------
    model : the classifier; moved to the device with its weights in channels-last order, and otherwise left as it was, also on
        error.
    images : uint8 RGB, shape (M, size, size, 3); may be memory-mapped.
    class_indices : N positions in `config.classes`, the class whose evidence an image's map shows.
    rows : N positions in `images`; all of them by default.
    metadata : float32 (N, WIDTH) of `patients.encode_metadata`, for a network that needs it; what it says of the
        patient speaks for a class too, and no map of the image shows that.
    progress : show a progress bar on a terminal, and log how long a method that takes many passes an image will be at it.

    Returns
    -------
    float32 array of shape (N, side, side): 0 where nothing speaks for the class, 1 at each map's strongest cell. A map in
    which nothing does is zero everywhere.

    Raises
    ------
    PipelineError
        No such method, it cannot read this layer or this network, or the network's scores or its maps are not finite.
    ValueError
        A class is none of the network's, or images, classes and metadata do not go together.

    References
    ----------
    CAM: Zhou et al., CVPR 2016. GradCAM: Selvaraju et al., ICCV 2017. GradCAMpp: Chattopadhyay et al., WACV 2018.
    SmoothGradCAMpp: Omeiza et al., 2019, arXiv 1908.01224. XGradCAM: Fu et al., BMVC 2020. LayerCAM: Jiang et al., IEEE TIP
    2021. FinerCAM: arXiv 2501.11309. RefineCAM: arXiv 2605.14641. LeGrad: arXiv 2404.03214. ScoreCAM: Wang et al., CVPR
    workshops 2020. SSCAM: arXiv 2006.14255. ISCAM: arXiv 2010.03023. Occlusion: Zeiler, Fergus, ECCV 2014.
    """
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    classes = [int(index) for index in class_indices]
    _check_classes(classes, len(rows), config)
    if model.needs_metadata and (metadata is None or len(metadata) != len(rows)):
        raise ValueError(f"the network needs metadata: pass a row of it for each of {len(rows)} images")
    method, device = options.method, options.device
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack the option
    target = find_target(model, method, options.layer, size=config.size)
    maps = np.zeros((len(rows), target.side, target.side), dtype=np.float32)
    stride = 1 if method in PERTURBATION_METHODS else options.batch_size
    title, started = f"{method} {config.name}", time.perf_counter()
    with (
        full_float32(),
        evaluating(model, frozen=True),
        open_explainer(options, model, target) as explain,
        tqdm(total=len(rows), desc=title, unit="image", disable=None if progress else True) as bar,
    ):
        for start in range(0, len(rows), stride):
            batch = slice(start, start + stride)
            pixels = torch.from_numpy(np.array(images[rows[batch]])).to(device)
            inputs = normalize(pixels.flip(2) if options.flipped else pixels, config)
            known = None if metadata is None else torch.from_numpy(metadata[batch]).to(device)
            seeds = [options.seed + int(row) for row in rows[batch]]
            maps[batch] = explain(inputs, known, classes[batch], seeds).float().cpu().numpy()
            bar.update(len(inputs))
            if progress and start == 0 and method in PERTURBATION_METHODS:
                seconds = (time.perf_counter() - started) * len(rows)
                logger.info("%s: about %s for %d images", title, describe_duration(seconds), len(rows))
    if not np.isfinite(maps).all():
        raise PipelineError(
            f"{method} of '{target.name}' gives maps that are not finite: name another layer, or take another method"
        )
    np.maximum(maps, 0, out=maps)
    strongest = maps.max(axis=(1, 2), keepdims=True, initial=0)
    np.divide(maps, strongest, out=maps, where=strongest > 0)
    return maps


def describe_duration(seconds: float) -> str:
    """A length of time in the unit that suits it: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _check_classes(classes: list[int], images: int, config: ClassifierConfig) -> None:
    """Refuse classes that the network does not have, and another number of them than of images."""
    if len(classes) != images:
        raise ValueError(f"class_indices has {len(classes)} numbers for {images} images: pass one for each")
    last = len(config.classes) - 1
    outside = sorted({index for index in classes if not 0 <= index <= last})
    if outside:
        raise ValueError(f"class_indices: no class {outside[0]}; they are numbers from 0 to {last}: {', '.join(config.classes)}")
