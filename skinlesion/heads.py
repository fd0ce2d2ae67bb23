"""From the features of an image to logits: a linear layer or a small perceptron, behind one or several dropout masks."""

from __future__ import annotations

import torch
from torch import nn


def linear_head(last: nn.Linear, *, dropout: float) -> nn.Sequential:
    """Dropout and the last layer."""
    return nn.Sequential(nn.Dropout(dropout), last)


def mlp_head(features: int, num_classes: int, *, hidden: int, dropout: float, hidden_dropout: float) -> nn.Sequential:
    """Dropout, linear, ReLU, batch norm, dropout, linear."""
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.BatchNorm1d(hidden),
        nn.Dropout(hidden_dropout),
        nn.Linear(hidden, num_classes),
    )


class MultiSampleDropout(nn.Module):
    """In training, the mean of a head's logits over several dropout masks of the same features (Inoue 2019, arXiv 1905.09788).

    The paper averages the losses of the samples; we average the logits, which leaves the choice of the loss open. The
    masks go through the head as one batch, of which the head's batch norm sees every sample. One pass in evaluation.
    """

    def __init__(self, layers: nn.Sequential, *, samples: int) -> None:
        super().__init__()
        self.layers = layers
        self.samples = samples

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (N, F) to logits (N, classes)."""
        if not self.training or self.samples == 1:
            return self.layers(features)
        logits = self.layers(features.repeat(self.samples, 1))
        return logits.unflatten(0, (self.samples, len(features))).mean(0)
