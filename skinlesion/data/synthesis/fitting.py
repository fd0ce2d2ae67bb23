"""Training the conditional VAE, and drawing from it.

It works at a side of at most 64 pixels: training images are resized to it by area, drawn ones from it by bicubic
interpolation. A VAE's images are blurred anyway, so larger ones would cost time and show nothing more.
"""

import logging
import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from skinlesion.base.errors import PipelineError
from skinlesion.config.training import SynthesizeParams
from skinlesion.data.synthesis.model import STRIDE, ConditionalVAE, Objective
from skinlesion.diagnoses import CLASSES

LARGEST_SIDE = 64  # pixels
DRAWN_AT_ONCE = 64  # images
LOG_LINES = 10  # in a training, at most about

logger = logging.getLogger(__name__)


def working_side(size: int) -> int:
    """The side in pixels at which prepared images of `size` (32 or more) are learnt and drawn: 32, 48 or 64."""
    return min(LARGEST_SIDE, size) // STRIDE * STRIDE


def shrink_images(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows of prepared images at `working_side`, by area: uint8 (N, size, size, 3) to uint8 (len(rows), side, side, 3).

    These few kilobytes an image are all that is held in memory, and no other row is read.
    """
    side = working_side(images.shape[1])
    small = np.empty((len(rows), side, side, 3), dtype=np.uint8)
    for position, row in enumerate(rows):
        pixels = torch.from_numpy(images[row].astype(np.float32)).permute(2, 0, 1)[None]
        small[position] = F.interpolate(pixels, (side, side), mode="area").round()[0].permute(1, 2, 0).byte().numpy()
    return small


def fit_vae(
    images: np.ndarray, labels: np.ndarray, params: SynthesizeParams, *, device: torch.device
) -> tuple[ConditionalVAE, Objective]:
    """Train on images of all classes, each class drawn equally often: the rare ones borrow from the rest.

    An epoch is as many draws, with replacement, as there are images. Each is flipped at random, since lesions have
    neither left nor right, up nor down. Depends on `params.seed` and the data alone: on one machine, equal arguments give
    equal weights.

    Parameters
    ----------
    images : uint8 (N, side, side, 3), side a multiple of 16.
    labels : int64 (N,), positions in `CLASSES`.
    params : the section `synthesize`.
    device : where to compute.

    Returns
    -------
    The network in evaluation mode, and the last epoch's mean of both terms in nats an image.

    Raises
    ------
    PipelineError
        The loss is not finite.
    """
    repeatable(device)
    generator = np.random.default_rng([params.seed, 0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        vae = ConditionalVAE(side=images.shape[1], latent=params.latent, num_classes=len(CLASSES))
    vae.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter faster on a CPU
    vae.train()
    optimizer = torch.optim.Adam(vae.parameters(), lr=params.lr)
    losses = Objective(torch.tensor(torch.nan), torch.tensor(torch.nan))
    for epoch in tqdm(range(1, params.epochs + 1), desc="synthesize", unit="epoch", disable=None):
        sums = torch.zeros(2, device=device)
        for rows in balanced_batches(labels, params.batch_size, generator):
            batch = [to_device(item, device) for item in (flip(images[rows], generator), labels[rows])]
            noise = to_device(generator.standard_normal((len(rows), params.latent), dtype=np.float32), device)
            terms = vae(as_pixels(batch[0]), batch[1], noise)
            optimizer.zero_grad()
            (terms.reconstruction + params.kl_weight * terms.kl).backward()
            optimizer.step()
            sums += torch.stack(terms).detach() * len(rows)
        losses = Objective(*(sums.cpu() / len(labels)))
        if not torch.stack(losses).isfinite().all():
            raise PipelineError(f"the loss of the VAE is not finite in epoch {epoch}: lower synthesize.lr ({params.lr:g})")
        if epoch % max(1, params.epochs // LOG_LINES) == 0:
            logger.info("epoch %d of %d: reconstruction %.1f, KL %.1f nats an image", epoch, params.epochs, *losses)
    return vae.eval(), losses


def balanced_batches(labels: np.ndarray, batch_size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Positions in `labels`, as many as there are labels, with replacement, each class that occurs equally likely."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = 1 / counts[inverse]
    drawn = generator.choice(len(labels), size=len(labels), p=shares / shares.sum())
    yield from (drawn[start : start + batch_size] for start in range(0, len(drawn), batch_size))


def flip(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Each of the images (N, side, side, 3) mirrored left to right, and top to bottom, with a chance of one half."""
    across, down = generator.random((2, len(images), 1, 1, 1)) < 0.5
    images = np.where(across, images[:, :, ::-1], images)
    return np.where(down, images[:, ::-1], images)


@torch.inference_mode()
def draw_images(vae: ConditionalVAE, dx: str, number: int, *, seed: int, size: int) -> Iterator[np.ndarray]:
    """Draw codes from the standard normal and decode them as images of a diagnosis.

    The draws of one diagnosis do not depend on how many of another are asked for.

    Returns
    -------
    Batches, uint8 (B, size, size, 3), `number` images in all.

    Raises
    ------
    PipelineError
        The network gives values that are not finite.
    """
    generator = np.random.default_rng([seed, 1 + CLASSES.index(dx)])
    for start in range(0, number, DRAWN_AT_ONCE):
        codes = generator.standard_normal((min(DRAWN_AT_ONCE, number - start), vae.latent), dtype=np.float32)
        yield _decode(vae, torch.from_numpy(codes), dx, size=size)


@torch.inference_mode()
def reconstruct(vae: ConditionalVAE, images: np.ndarray, dx: str, *, size: int) -> np.ndarray:
    """What the network makes of the mean codes of images: uint8 (N, side, side, 3) of one diagnosis to (N, size, size, 3)."""
    device = next(vae.parameters()).device
    labels = torch.full((len(images),), CLASSES.index(dx), device=device)
    codes, _ = vae.encode(as_pixels(to_device(images, device)), labels)
    return _decode(vae, codes, dx, size=size)


def _decode(vae: ConditionalVAE, codes: Tensor, dx: str, *, size: int) -> np.ndarray:
    """Codes (N, latent) as images of a diagnosis, uint8 (N, size, size, 3)."""
    device = next(vae.parameters()).device
    labels = torch.full((len(codes),), CLASSES.index(dx), device=device)
    decoded = vae.decode(codes.to(device), labels).cpu()
    if not decoded.isfinite().all():
        raise PipelineError("the VAE draws values that are not finite: lower synthesize.lr")
    resized = F.interpolate(decoded, (size, size), mode="bicubic", antialias=True)
    return (resized.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def as_pixels(images: Tensor) -> Tensor:
    """uint8 (N, side, side, 3) to float32 (N, 3, side, side) in [0, 1]."""
    return images.permute(0, 3, 1, 2).float() / 255


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of the array on the device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def repeatable(device: torch.device) -> None:
    """On a GPU, let torch choose algorithms that give the same result every time; on a CPU they do anyway."""
    if device.type != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for to make matrix products repeatable
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
