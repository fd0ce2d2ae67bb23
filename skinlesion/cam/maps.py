"""Class activation maps by torchcam: batched, the same whatever the size of a batch, and without a trace in the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torchcam.methods import GradCAM, GradCAMpp, LayerCAM, SmoothGradCAMpp, XGradCAM
from tqdm import tqdm

from skinlesion.cam.layers import TargetLayer, find_layer, reshape_for
from skinlesion.classifier import ClassifierConfig, normalize
from skinlesion.errors import PipelineError
from skinlesion.network import SkinNetwork

Method = Literal["GradCAM", "GradCAMpp", "SmoothGradCAMpp", "XGradCAM", "LayerCAM"]


class SeededSmoothGradCAMpp(SmoothGradCAMpp):
    """torchcam's SmoothGradCAMpp, each image's noise from a generator of its own: a map does not depend on its batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._generators: list[torch.Generator] = []
        self._distrib = self  # torchcam draws its noise by `self._distrib.sample`

    def seed(self, seeds: Sequence[int]) -> None:
        """Say the seed of each image of the next batch."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def sample(self, shape: torch.Size) -> torch.Tensor:
        """Normal noise, float32 on the CPU, of the shape of the batch."""
        return torch.stack([torch.randn(shape[1:], generator=generator) * self.std for generator in self._generators])


METHODS: dict[str, type] = {
    "GradCAM": GradCAM,
    "GradCAMpp": GradCAMpp,
    "SmoothGradCAMpp": SeededSmoothGradCAMpp,
    "XGradCAM": XGradCAM,
    "LayerCAM": LayerCAM,
}


class _ImagesAlone(nn.Module):
    """The network as torchcam calls it, with images only, also again and again with noise: the batch's metadata is kept."""

    def __init__(self, network: SkinNetwork) -> None:
        super().__init__()
        self.network = network
        self.metadata: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, 3, size, size)."""
        return self.network(images, self.metadata)


def compute_maps(
    model: SkinNetwork,
    config: ClassifierConfig,
    images: np.ndarray,
    class_indices: Sequence[int] | np.ndarray,
    *,
    method: Method,
    layer: str,
    device: torch.device,
    batch_size: int,
    seed: int,
    rows: np.ndarray | None = None,
    metadata: np.ndarray | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Where the network found what speaks for a class, an image at a time in batches.

    Parameters
    ----------
    model : the classifier; moved to `device`, and otherwise left as it was, also on error.
    images : uint8 RGB, shape (M, size, size, 3); may be memory-mapped.
    class_indices : N positions in `config.classes`, the class whose evidence an image's map shows.
    method : a method of torchcam 0.5.0, whose numbers these are. Where it departs from the papers: GradCAMpp's pixel
        weights are the squared gradients, not normalised (eq. 19); SmoothGradCAMpp weighs the feature maps of its last
        noisy image, not of the image itself.
    layer : `auto` or a layer's name in the backbone, see `skinlesion.cam.layers.find_layer`. A layer whose output the network
        changes in place (by a ReLU) is taken as changed, and so is one that attention follows.
    batch_size : changes speed and memory, not results: maps agree to 1e-5, of SmoothGradCAMpp, whose quotient of small
        numbers magnifies rounding, to 1e-3.
    seed : of the noise of SmoothGradCAMpp; the n-th map uses `seed + n`. The other methods draw nothing.
    rows : N positions in `images`; all of them by default.
    metadata : float32 (N, WIDTH) of `skinlesion.metadata.encode_metadata`, for a network that needs it; what it says of the
        patient speaks for a class too, and no map of the image shows that.
    progress : show a progress bar on a terminal.

    Returns
    -------
    float32 array of shape (N, side, side): 0 where nothing speaks for the class, 1 at each map's strongest cell. A map in
    which nothing does is zero everywhere.

    Raises
    ------
    PipelineError
        The layer cannot be used, or the network's scores are not finite.

    References
    ----------
    Selvaraju et al., Grad-CAM, ICCV 2017; Chattopadhyay et al., Grad-CAM++, WACV 2018; Omeiza et al., Smooth Grad-CAM++,
    2019; Fu et al., XGrad-CAM, BMVC 2020; Jiang et al., LayerCAM, IEEE TIP 2021.
    """
    rows = np.arange(len(images)) if rows is None else np.asarray(rows)
    classes = [int(index) for index in class_indices]
    if len(classes) != len(rows) or not all(0 <= index < len(config.classes) for index in classes):
        raise ValueError(f"class_indices must be {len(rows)} numbers from 0 to {len(config.classes) - 1}")
    if model.needs_metadata and (metadata is None or len(metadata) != len(rows)):
        raise ValueError(f"the network needs metadata: pass a row of it for each of {len(rows)} images")
    model.to(device)
    target = find_layer(model.backbone, layer, size=config.size)
    explained = _ImagesAlone(model)
    maps = np.zeros((len(rows), target.side, target.side), dtype=np.float32)
    with (
        _gradients_from(model, target),
        METHODS[method](explained, f"network.backbone.{target.name}", reshape_transform=reshape_for(target)) as extractor,
        tqdm(total=len(rows), desc=f"{method} {config.name}", unit="image", disable=None if progress else True) as bar,
    ):
        for start in range(0, len(rows), batch_size):
            batch = slice(start, start + batch_size)
            inputs = normalize(torch.from_numpy(np.array(images[rows[batch]])).to(device), config)
            if isinstance(extractor, SeededSmoothGradCAMpp):
                extractor.seed(range(seed + start, seed + start + len(inputs)))
            if model.needs_metadata:
                explained.metadata = torch.from_numpy(metadata[batch]).to(device)
            scores = explained(inputs)
            _check_finite(scores.detach())
            # Not torchcam's own normalisation: it subtracts each map's minimum, which turns a uniform map into nothing.
            maps[batch] = extractor(class_idx=classes[batch], scores=scores, normalized=False)[0].float().cpu().numpy()
            bar.update(len(inputs))
    strongest = maps.max(axis=(1, 2), keepdims=True, initial=0)
    return np.divide(maps, strongest, out=np.zeros_like(maps), where=strongest > 0)


def _check_finite(scores: torch.Tensor) -> None:
    """Refuse scores that are NaN or infinite: torchcam would count NaN as no evidence."""
    if not torch.isfinite(scores).all():
        raise PipelineError("the classifier's scores are not finite: its weights are damaged, run `train` again")


@contextmanager
def _gradients_from(model: SkinNetwork, target: TargetLayer) -> Iterator[None]:
    """Eval mode, and a graph that starts at the target layer, where torchcam's gradients end.

    What lies before needs no gradient: that saves its memory and time, and works for a frozen model. Mode and
    `requires_grad` flags are restored, and the hook is removed, whatever happens.
    """

    def start_graph(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        # A leaf may not be changed in place, as a ReLU that follows might: hence the clone.
        return output.detach().requires_grad_(True).clone()

    training = {module: module.training for module in model.modules()}
    frozen = {parameter: parameter.requires_grad for parameter in model.parameters()}
    # Registered before torchcam's hooks, so that they see its output, and after that of attention.
    handle = model.backbone.get_submodule(target.name).register_forward_hook(start_graph)
    try:
        model.eval().requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        handle.remove()
        for module, mode in training.items():
            module.training = mode
        for parameter, flag in frozen.items():
            parameter.requires_grad_(flag)
