"""What is known of the patient (`skinlesion.artifacts.patients`), dropped at random in training and encoded to features."""

import numpy as np
import torch
from torch import nn

from skinlesion.artifacts.patients import FIELD_WIDTHS, MISSING, WIDTH


class MetadataDropout(nn.Module):
    """In training, each field (age, sex, site) of each image becomes missing with probability `probability`.

    So the network learns to do without, and does not lean on a shortcut. Draws from torch's default generator.
    """

    field_of_column: torch.Tensor
    missing: torch.Tensor

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        field_of_column = np.repeat(np.arange(len(FIELD_WIDTHS)), list(FIELD_WIDTHS.values()))
        self.register_buffer("field_of_column", torch.from_numpy(field_of_column), persistent=False)
        self.register_buffer("missing", torch.from_numpy(MISSING.copy()), persistent=False)

    def forward(self, metadata: torch.Tensor) -> torch.Tensor:
        """(N, WIDTH) to (N, WIDTH)."""
        if not self.training or self.probability == 0:
            return metadata
        draws = torch.rand(len(metadata), len(FIELD_WIDTHS), device=metadata.device)
        dropped = (draws < self.probability)[:, self.field_of_column]
        return torch.where(dropped, self.missing, metadata)


class MetadataEncoder(nn.Sequential):
    """Metadata (N, WIDTH) to features (N, FEATURES) that stand beside the image's."""

    FEATURES = 32

    def __init__(self, *, dropout: float) -> None:
        super().__init__(MetadataDropout(dropout), nn.Linear(WIDTH, self.FEATURES), nn.ReLU())
