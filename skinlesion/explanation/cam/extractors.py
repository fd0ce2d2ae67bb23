"""torchcam's extractors on our networks: with metadata, with noise by image, and with maps fused where their cells lie."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torchcam import methods as torchcam_methods
from torchcam.methods import CAM, SSCAM, LeGrad, RefineCAM, SmoothGradCAMpp

from skinlesion.base.errors import PipelineError
from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.methods import DEFAULT_SAMPLES, PERTURBATION_METHODS, MapOptions
from skinlesion.explanation.cam.occlusion import occlusion_map
from skinlesion.explanation.cam.placing import cell_shares
from skinlesion.explanation.cam.pooling import image_weights
from skinlesion.model.network import SkinNetwork

# Normalised images, their metadata or None, their classes and their seeds to maps (N, side, side).
Explainer = Callable[[torch.Tensor, torch.Tensor | None, list[int], Sequence[int]], torch.Tensor]


class ExplainedNetwork(nn.Module):
    """The network as torchcam calls it, with images only, also again and again with changed ones: the metadata is kept.

    network : what is explained.
    metadata : float32 (N, WIDTH) of the batch, or (1, WIDTH) of the one image that all of a pass are copies of; None
        for a network without.
    """

    def __init__(self, network: SkinNetwork) -> None:
        super().__init__()
        self.network = network
        self.metadata: torch.Tensor | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes) of images (N, 3, size, size); PipelineError where they are NaN or infinite."""
        scores: torch.Tensor = self.network(images, self._metadata_of(len(images)))
        if not torch.isfinite(scores.detach()).all():  # torchcam would count NaN as no evidence
            raise PipelineError("the classifier's scores are not finite: its weights are damaged, run `train` again")
        return scores

    def scores_of_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of a ViT's intermediate tokens (N, 1 + patches, F), as if these were its last: LeGrad, section 3.2."""
        backbone, encoder = self.network.backbone, self.network.metadata_encoder
        features = backbone.get_submodule("heads")(backbone.get_submodule("encoder.ln")(tokens.mean(dim=1)))
        if encoder is not None:
            features = torch.cat([features, encoder(self._metadata_of(len(tokens)))], dim=1)
        scores: torch.Tensor = self.network.head(features)
        return scores.float()

    def _metadata_of(self, count: int) -> torch.Tensor | None:
        if self.metadata is None or len(self.metadata) == count:
            return self.metadata
        return self.metadata.expand(count, -1)


class SeededNoise:
    """What torchcam draws its noise from, each image's from a generator of its own: a map does not depend on its batch."""

    def __init__(self, std: float) -> None:
        self.std = std
        self._generators: list[torch.Generator] = []

    def seed(self, seeds: Sequence[int]) -> None:
        """Say the seed of each image of the next batch."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def sample(self, shape: torch.Size) -> torch.Tensor:
        """Normal noise, float32 on the CPU, of the shape of the batch."""
        return torch.stack([torch.randn(shape[1:], generator=generator) * self.std for generator in self._generators])


class PlacedRefineCAM(RefineCAM):
    """torchcam's RefineCAM, which stretches maps as if cells tiled the image; here each map lies where its cells do."""

    def __init__(self, model: nn.Module, parts: Sequence[TargetLayer], names: list[nn.Module | str], **options: Any) -> None:
        super().__init__(model, names, **options)
        self.parts = parts

    @torch.no_grad()
    def fuse_cams(  # type: ignore[override]  # static in torchcam, which calls it on the instance
        self, cams: list[torch.Tensor], target_shape: tuple[int, ...] | None = None, normalized: bool = True
    ) -> torch.Tensor:
        """The product of the maps of the parts, each (N, side, side) from 0 to 1, on the first part's cells."""
        if target_shape is not None:
            raise ValueError("maps are fused on the cells of the first layer: target_shape must be None")
        fused = torch.stack([place_on(cam, part, self.parts[0]) for cam, part in zip(cams, self.parts, strict=True)]).prod(dim=0)
        return self.base_cam._normalize(fused) if normalized else fused


def place_on(maps: torch.Tensor, layer: TargetLayer, onto: TargetLayer) -> torch.Tensor:
    """Maps (N, side, side) of a layer at the centres of another one's cells, bilinear, constant beyond the outermost centres."""
    first, step = onto.centers
    shares = torch.from_numpy(cell_shares(first + step * np.arange(onto.side), layer.side, layer.centers)).to(maps)
    return shares @ maps @ shares.T


@contextmanager
def open_explainer(options: MapOptions, network: SkinNetwork, target: TargetLayer) -> Iterator[Explainer]:
    """What makes maps as torchcam does. The network must be in eval mode and frozen; no hook stays, also on error.

    Parameters
    ----------
    target : what the method reads, of `skinlesion.explanation.cam.targets.find_target`.

    Yields
    ------
    A function of normalised images, their metadata (or None), classes and seeds to maps. Methods that change the image take
    one image a call. Maps are not scaled yet and may be negative.
    """
    explained, method = ExplainedNetwork(network), options.method
    by_gradients = method not in PERTURBATION_METHODS and method != "CAM"
    # Where gradients end; LeGrad sees to it itself.
    first_layer = (target.parts or (target,))[0].name if by_gradients and method != "LeGrad" else None

    def occlude(images: torch.Tensor, metadata: torch.Tensor | None, classes: list[int], _: Sequence[int]) -> torch.Tensor:
        explained.metadata = metadata
        return occlusion_map(explained, images, *classes, batch_size=options.batch_size)[None]

    if method == "Occlusion":
        yield occlude
        return
    with (
        torch.set_grad_enabled(by_gradients),
        _graph_from(network, first_layer),
        _make_extractor(options, explained, target) as extractor,
    ):

        def extract(
            images: torch.Tensor, metadata: torch.Tensor | None, classes: list[int], seeds: Sequence[int]
        ) -> torch.Tensor:
            explained.metadata = metadata
            if isinstance(noise := getattr(extractor, "_distrib", None), SeededNoise):
                noise.seed(seeds)
            # Not torchcam's own normalization: it subtracts each map's minimum, which turns a uniform map into nothing.
            maps: list[torch.Tensor] = extractor(class_idx=classes, scores=explained(images), normalized=False)
            return maps[0]

        yield extract


@contextmanager
def _graph_from(network: SkinNetwork, layer: str | None) -> Iterator[None]:
    """A graph that starts at a layer, where torchcam's gradients end.

    What lies before needs no gradient: that saves its memory and time, and works for a frozen network.
    """

    def start_graph(_: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        # A leaf may not be changed in place, as a ReLU that follows might: hence the clone.
        return output.detach().requires_grad_(True).clone()

    if layer is None:
        yield
        return
    # Registered before torchcam's hooks, so that they see its output, and after that of attention.
    with network.backbone.get_submodule(layer).register_forward_hook(start_graph):
        yield


def _make_extractor(options: MapOptions, explained: ExplainedNetwork, target: TargetLayer) -> Any:
    """torchcam's extractor of the method, on the layers of `target`."""
    method = options.method
    names: list[nn.Module | str] = [f"network.backbone.{part.name}" for part in target.parts or (target,)]
    if method == "LeGrad":
        return LeGrad(explained, names, score_projection=explained.scores_of_tokens)
    taken: dict[str, Any] = {"reshape_transform": (target.parts or (target,))[0].to_feature_maps}
    if method == "RefineCAM":
        return PlacedRefineCAM(explained, target.parts, names, **taken)
    if method == "CAM":
        return _make_cam(explained, names[0], taken)
    if method in PERTURBATION_METHODS:
        taken["batch_size"] = options.batch_size
    if method in DEFAULT_SAMPLES:
        taken["num_samples"] = options.samples or DEFAULT_SAMPLES[method]
    extractor: Any = getattr(torchcam_methods, method)(explained, names[0], **taken)
    if isinstance(extractor, SmoothGradCAMpp | SSCAM):
        extractor._distrib = SeededNoise(extractor.std)  # type: ignore[assignment]  # torchcam only calls its `sample`
    return extractor


def _make_cam(explained: ExplainedNetwork, name: nn.Module | str, options: dict[str, Any]) -> CAM:
    """CAM with the last linear layer's weights of the image's features."""
    last = [layer for layer, module in explained.named_modules() if isinstance(module, nn.Linear)][-1]
    extractor = CAM(explained, name, fc_layer=last, **options)
    extractor._fc_weights = image_weights(explained.network)
    return extractor
