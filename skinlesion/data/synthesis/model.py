"""A conditional variational autoencoder of small images, and its objective.

Kingma, Welling, Auto-Encoding Variational Bayes, ICLR 2014; conditioned on the class as in Sohn, Lee, Yan, Learning
Structured Output Representation using Deep Conditional Generative Models, NeurIPS 2015, but with the standard normal as
prior of every class; the Kullback-Leibler term weighted as in Higgins et al., beta-VAE, ICLR 2017.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (32, 64, 128, 256)  # channels after each of the four halvings
STRIDE: int = 2 ** len(WIDTHS)  # the side of an image must be a multiple of it
CLASS_WIDTH = 32  # of the embedding of a class
# Standard deviation of a pixel value (0 to 1) around its reconstruction. It fixes the scale on which `kl_weight` acts.
PIXEL_DEVIATION = 0.5


class Objective(NamedTuple):
    """The two terms of the negative evidence lower bound, in nats an image, means over a batch; scalars."""

    reconstruction: Tensor
    kl: Tensor


class ConditionalVAE(nn.Module):
    """Images to the parameters of a normal distribution of codes, and codes to images, both told the class.

    Group norm rather than batch norm: what is drawn for one image does not depend on which others are in its batch.

    Parameters
    ----------
    side : of the images in pixels, a multiple of 16.
    latent : dimensions of the code.
    num_classes : classes of the condition.
    """

    def __init__(self, *, side: int, latent: int, num_classes: int) -> None:
        super().__init__()
        if side % STRIDE:
            raise ValueError(f"side must be a multiple of {STRIDE}, not {side}")
        self.latent, self.cells = latent, side // STRIDE
        features = WIDTHS[-1] * self.cells**2
        self.classes = nn.Embedding(num_classes, CLASS_WIDTH)
        self.encoder = nn.Sequential(
            *(_down(before, after) for before, after in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)), nn.Flatten()
        )
        self.code = nn.Linear(features + CLASS_WIDTH, 2 * latent)
        self.spread = nn.Linear(latent + CLASS_WIDTH, features)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (WIDTHS[-1], self.cells, self.cells)),
            nn.SiLU(),
            *(_up(before, after) for before, after in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(WIDTHS[0], 3, kernel_size=3, padding=1),
            nn.Sigmoid(),
        )

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the codes, (N, latent) each, of images (N, 3, side, side) in [0, 1] and labels (N,)."""
        features = torch.cat([self.encoder(2 * images - 1), self.classes(labels)], dim=1)
        mean, log_variance = self.code(features).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Images (N, 3, side, side) in [0, 1] of codes (N, latent) and class indices (N,)."""
        images: Tensor = self.decoder(self.spread(torch.cat([codes, self.classes(labels)], dim=1)))
        return images

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> Objective:
        """Both terms, with codes drawn by reparametrisation from standard normal `noise` (N, latent)."""
        mean, log_variance = self.encode(images, labels)
        decoded = self.decode(mean + noise * (log_variance / 2).exp(), labels)
        return objective(images, decoded, mean=mean, log_variance=log_variance)


def objective(images: Tensor, decoded: Tensor, *, mean: Tensor, log_variance: Tensor) -> Objective:
    """Negative log likelihood of pixels (normal, `PIXEL_DEVIATION`, without its constant) and KL divergence from N(0, 1)."""
    reconstruction = F.mse_loss(decoded, images, reduction="sum") / (2 * PIXEL_DEVIATION**2)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum()
    return Objective(reconstruction / len(images), kl / len(images))


def _down(before: int, after: int) -> nn.Sequential:
    """Half the side."""
    convolution = nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(8, after), nn.SiLU())


def _up(before: int, after: int) -> nn.Sequential:
    """Twice the side. A convolution after the enlargement leaves no chequered pattern, as a transposed one does.

    Odena, Dumoulin, Olah, Deconvolution and Checkerboard Artifacts, Distill 2016.
    """
    convolution = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(nn.Upsample(scale_factor=2), convolution, nn.GroupNorm(8, after), nn.SiLU())
