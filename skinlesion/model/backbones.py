"""Torchvision's classification networks by name, their heads taken off, and weights from ImageNet or a file."""

import re
import urllib.error
from collections import OrderedDict
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from types import MethodType
from typing import Any

import safetensors.torch
import torch
import torchvision
from torch import nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from skinlesion.base.errors import PipelineError, name_some, reason_of
from skinlesion.base.files import file_digest, resolve_from_root
from skinlesion.base.web import LONGEST_PAGE, name_answer, named_urllib
from skinlesion.config.prerequisites import find_weights_problem
from skinlesion.config.training import list_backbones

RGB = tuple[float, float, float]

# Mean and standard deviation of RGB in [0, 1] that torchvision's ImageNet checkpoints were trained with; we keep to them
# also with random weights. The few networks of the second kind want inputs from -1 to 1 (`transform_input` for two of them).
IMAGENET_NORMALIZATION: tuple[RGB, RGB] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF_NORMALIZATION: tuple[RGB, RGB] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
HALF_NORMALIZED = ("efficientnet_v2_l", "googlenet", "inception_v3")

# GoogLeNet and Inception v3 train with auxiliary heads, which we leave out; checkpoints bring their tensors along.
AUXILIARY_HEADS = ("aux1.", "aux2.", "AuxLogits.")

# DenseNet's published files are from a time when names of layers could hold a full stop: denselayer1.norm.1 is norm1 now.
DOTTED = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
# What torch says of a tensor of another shape.
MISFIT = re.compile(r"size mismatch for (\S+): .*?\[(.*?)\].*\[(.*?)\].*")


def normalization(name: str) -> tuple[RGB, RGB]:
    """Mean and standard deviation of RGB in [0, 1] that a backbone's ImageNet checkpoint was trained with."""
    return HALF_NORMALIZATION if name in HALF_NORMALIZED else IMAGENET_NORMALIZATION


def build_backbone(name: str, *, num_classes: int, size: int) -> nn.Module:
    """Build a network with random weights and a head of `num_classes` logits for images of `size` x `size` pixels.

    The network maps float32 (N, 3, size, size) to float32 (N, num_classes). Its head is made by torchvision itself, so
    it is right for every family.

    Raises
    ------
    PipelineError
        Unknown name, or the network cannot take images of that size.
    """
    if name not in list_backbones():
        raise PipelineError(f"torchvision {torchvision.__version__} has no classification model '{name}'")
    options: dict[str, Any] = {"num_classes": num_classes}
    if name.startswith("vit_"):
        options["image_size"] = size
    elif name.startswith("maxvit"):
        options["input_size"] = (size, size)
    elif name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": True}
    try:
        model: nn.Module = models.get_model(name, weights=None, **options)
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"backbone '{name}' cannot take images of {size} x {size} pixels ({reason}): change prepare.size"
        ) from None
    if isinstance(model, models.MNASNet):
        # Its own method refuses state dicts without torch's version tags, which safetensors files do not have.
        model._load_from_state_dict = MethodType(nn.Module._load_from_state_dict, model)
    return model.train()


class RemovedHead(nn.Identity):
    """Stands where a network's last layer was."""


def remove_head(model: nn.Module) -> tuple[nn.Linear, float]:
    """Take the last layer, and a dropout directly before it, out of a torchvision network, which then gives embeddings.

    Returns
    -------
    last : the layer, which maps the embedding (N, F) to the logits. SqueezeNet's 1 x 1 convolution of the feature map comes
        as a linear layer with its weights, for the map is pooled first: the embedding is the mean of the map.
    dropout : probability of the dropout that was taken out, 0 if there was none. One further in front (AlexNet) stays.
    """
    place, _, key = _head_name(model).rpartition(".")
    parent = model.get_submodule(place)
    last: Any = parent.get_submodule(key)
    dropout = 0.0
    keys = [child for child, _ in parent.named_children()]
    for before in keys[: keys.index(key)][-1:]:
        module = parent.get_submodule(before)
        if isinstance(module, nn.Dropout):
            setattr(parent, before, nn.Identity())
            dropout = module.p
    setattr(parent, key, RemovedHead())
    return (_as_linear(last) if isinstance(last, nn.Conv2d) else last), dropout


def _head_name(model: nn.Module) -> str:
    """Name of the last layer, or of where it was."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d, RemovedHead))]
    return names[-1]


def _as_linear(convolution: nn.Conv2d) -> nn.Linear:
    """A 1 x 1 convolution as a linear layer."""
    linear: nn.Linear = nn.utils.skip_init(nn.Linear, convolution.in_channels, convolution.out_channels)
    linear.load_state_dict({"weight": convolution.weight.flatten(1), "bias": convolution.bias})
    return linear


def load_pretrained(model: nn.Module, weights: str, *, backbone: str) -> str | None:
    """Load `none | imagenet | PATH` into a torchvision network with or without its head, all tensors but the head's.

    A relative path starts at the main project root. A file may be a safetensors file or a `torch.save` of a state dict
    (loaded with `weights_only=True`).

    Returns
    -------
    sha256 of the file, or of the checkpoint's file name and content as torchvision names it; None for `none`.

    Raises
    ------
    PipelineError
        The download failed, the file is missing or damaged, or it does not fit the network. Never a silent random start.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        state, digest = _imagenet_state(backbone)
    else:
        if problem := find_weights_problem(weights):
            raise PipelineError(problem)
        path = resolve_from_root(weights)
        state, digest = _read_state(path), file_digest(path, "sha256")
    _load_all_but_head(model, state, backbone=backbone, weights=weights)
    return digest


def _imagenet_state(backbone: str) -> tuple[dict[str, torch.Tensor], str]:
    """Download (or take from torch's cache) torchvision's default ImageNet weights."""
    weights = models.get_model_weights(backbone).DEFAULT
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        with named_urllib():
            state = weights.get_state_dict(progress=True, check_hash=True)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file torch raises what it documents nowhere
        if cached.is_file() and not isinstance(error, OSError):
            raise PipelineError(
                f"ImageNet weights of '{backbone}': {cached} is damaged ({reason_of(error)}): delete it to download it again"
            ) from None
        cause = str(error)
        if isinstance(error, urllib.error.HTTPError):
            cause, _ = name_answer(error.code, error.headers.items(), error.read(LONGEST_PAGE), error.url)
        raise PipelineError(
            f"ImageNet weights of '{backbone}' could not be downloaded from {weights.url} ({cause}): try again, or download "
            "the file in a browser and name it in train.weights, or start from random weights with train.weights=none"
        ) from None
    return state, file_digest(cached, "sha256")


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a file."""
    try:
        with path.open("rb") as file:  # safetensors begins with a length in 8 bytes and JSON, torch's formats with a magic number
            is_safetensors = file.read(9)[8:] == b"{"
        # Of torch's, tensors and plain containers alone: an ordinary pickle runs whatever code its author put into it.
        load = safetensors.torch.load_file
        state = load(path) if is_safetensors else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch documents no closed list of what a damaged or hostile file raises
        raise PipelineError(f"train.weights: {path} is not a readable state dict ({reason_of(error)})") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) and (value.layout, value.device.type) == (torch.strided, "cpu")
        for name, value in state.items()
    ):  # tensors whose values are in memory
        way_out = f", and holds {name_some(state)}: save the state dict among them alone" if isinstance(state, dict) else ""
        raise PipelineError(f"train.weights: {path} must hold a plain state dict (names to tensors){way_out}")
    return state


def check_numbers(state: dict[str, torch.Tensor], place: str, *, like: dict[str, torch.Tensor], way_out: str) -> None:
    """Insist that the tensors of a state dict are numbers of the same kind as in `like`, which a load would convert silently.

    Counters (batch norm's `num_batches_tracked`) may be floating: a whole state dict in half precision has them so.

    Raises
    ------
    PipelineError
        A tensor is of integers where it should be of floating point, or holds NaN or infinity.
    """
    known = {name: tensor for name, tensor in state.items() if name in like}
    kinds = [name for name, tensor in known.items() if like[name].is_floating_point() and not tensor.is_floating_point()]
    if kinds:
        described = name_some((f"{name} {str(known[name].dtype).removeprefix('torch.')}" for name in kinds), 3)
        raise PipelineError(f"{place} has tensors of another type: {described}: {way_out}")
    broken = [name for name, tensor in known.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise PipelineError(f"{place} holds NaN or infinity in {name_some(broken, 3)}: {way_out}")


def _load_all_but_head(model: nn.Module, state: dict[str, torch.Tensor], *, backbone: str, weights: str) -> None:
    """Load all of a checkpoint but its head, which the model may have or not; anything else that does not fit is refused."""
    head = _head_name(model) + "."
    # A twin without memory takes the file's tensors as they are, by torch's and torchvision's own loading. That brings old
    # layouts up to date: counters that batch norm did not have yet, layers that have another name now.
    bare = {id(tensor): nn.Parameter(tensor.to("meta"), requires_grad=False) for tensor in model.parameters()}
    twin = deepcopy(model, bare | {id(tensor): tensor.to("meta") for tensor in model.buffers()})
    problems: dict[str, list[str]] = {}
    try:
        missing, unexpected = twin.load_state_dict(_without_heads(model, state, head), strict=False, assign=True)
        problems = {"lacks": [name for name in missing if not name.startswith(head)], "has besides": unexpected}
    except RuntimeError as error:  # torch names what has another shape, one a line, and nothing else then
        lines = str(error).strip().splitlines()[1:]
        problems = {"has other shapes in": [MISFIT.sub(r"\1 (\2) for (\3)", line.strip()) for line in lines]}
    if any(problems.values()):
        described = "; ".join(f"{verb} {name_some(sorted(names), 3)}" for verb, names in problems.items() if names)
        raise PipelineError(f"train.weights={weights} does not fit backbone '{backbone}': the file {described}")
    own = model.state_dict()
    filled = {name: tensor for name, tensor in twin.state_dict().items() if not name.startswith(head)}
    check_numbers(filled, f"train.weights={weights}", like=own, way_out="get the file again, or take another")
    model.load_state_dict(own | filled)


def _without_heads(model: nn.Module, state: dict[str, torch.Tensor], head: str) -> dict[str, torch.Tensor]:
    """A checkpoint without its heads, and with what torchvision's builders and references do to one before they load it."""
    # Torch's tags of versions are left out, as safetensors files have none: every layer then looks for its old layout.
    state = OrderedDict((name, tensor) for name, tensor in state.items() if not name.startswith((head, *AUXILIARY_HEADS)))
    if isinstance(model, models.DenseNet):
        state = OrderedDict((DOTTED.sub(r"\1\2", name), tensor) for name, tensor in state.items())
    if isinstance(model, models.VisionTransformer) and "encoder.pos_embedding" in state:
        with suppress(ValueError, RuntimeError):  # of what is no square grid of patches, which is refused for its shape then
            state = interpolate_embeddings(model.image_size, model.patch_size, state)
    return state
