"""The classifier's network: a torchvision backbone, attention on its last feature map, metadata beside it, and a head."""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import nn

from skinlesion.config.training import TrainParams
from skinlesion.model import backbones
from skinlesion.model.attention import FeatureMapAttention, Kind, attach_attention
from skinlesion.model.metadata import MetadataEncoder


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that decides which layers a network has; values and ranges as in the section `train` of params.yaml."""

    backbone: str
    head: Literal["linear", "mlp"]
    hidden: int
    hidden_dropout: float
    dropout: float | None
    dropout_samples: int
    attention: Kind
    metadata: bool
    metadata_dropout: float

    @classmethod
    def of(cls, params: TrainParams) -> "NetworkSpec":
        """The values of `params` that are the network's."""
        return cls(**{field.name: getattr(params, field.name) for field in fields(cls)})


class MultiSampleDropout(nn.Module):
    """In training, the mean of a head's logits over several dropout masks of the same features (Inoue 2019, arXiv 1905.09788).

    The paper averages the losses of the samples; we average the logits, which leaves the choice of the loss open. The
    masks go through the head as one batch, of which the head's batch norm sees every sample. One pass in evaluation.
    """

    def __init__(self, layers: nn.Sequential, *, samples: int) -> None:
        super().__init__()
        self.layers, self.samples = layers, samples

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features (N, F) to logits (N, classes)."""
        if not self.training or self.samples == 1:
            logits: torch.Tensor = self.layers(features)
            return logits
        logits = self.layers(features.repeat(self.samples, 1))
        return logits.view(self.samples, len(features), -1).mean(0)


class SkinNetwork(nn.Module):
    """Images, and metadata where it is asked for, to logits.

    backbone : a torchvision network whose last layer is gone: float32 (N, 3, size, size) to an embedding (N, F).
    attention : what a hook in the backbone applies to the last feature map, or None.
    metadata_encoder : metadata to features that are put beside the embedding, or None.
    head : features to logits.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: MultiSampleDropout,
        *,
        attention: FeatureMapAttention | None = None,
        metadata_encoder: MetadataEncoder | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.attention, self.metadata_encoder, self.head = backbone, attention, metadata_encoder, head

    @property
    def needs_metadata(self) -> bool:
        """Whether `forward` wants the second argument."""
        return self.metadata_encoder is not None

    def forward(self, images: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Logits, float32 (N, classes).

        Parameters
        ----------
        images : float32 (N, 3, size, size), normalized.
        metadata : float32 (N, WIDTH) of `artifacts.patients.encode_metadata`; not looked at by a network without metadata.

        Raises
        ------
        ValueError
            The network needs metadata and got none.
        """
        features = self.backbone(images)
        if self.metadata_encoder is not None:
            if metadata is None:
                raise ValueError("this network was built with metadata: pass encode_metadata(...) beside the images")
            features = torch.cat([features, self.metadata_encoder(metadata)], dim=1)
        logits: torch.Tensor = self.head(features)
        return logits.float()


def build_network(spec: NetworkSpec, *, num_classes: int, size: int) -> SkinNetwork:
    """Build a network with random weights for images of `size` x `size` pixels, in train mode.

    With `head: linear` and without metadata the last layer is torchvision's own, with the family's own initialization, so
    that without further options the network computes what torchvision's does.

    Raises
    ------
    PipelineError
        Unknown backbone, one that cannot take images of that size, or attention on a network without a feature map.
    """
    backbone = backbones.build_backbone(spec.backbone, num_classes=num_classes, size=size)
    last, own_dropout = backbones.remove_head(backbone)
    dropout = own_dropout if spec.dropout is None else spec.dropout
    attention = attach_attention(backbone, spec.attention, size=size)
    encoder = MetadataEncoder(dropout=spec.metadata_dropout) if spec.metadata else None
    width = last.in_features + (MetadataEncoder.FEATURES if encoder is not None else 0)
    layers: list[nn.Module]
    if spec.head == "mlp":
        inner = [nn.Linear(width, spec.hidden), nn.ReLU(), nn.BatchNorm1d(spec.hidden), nn.Dropout(spec.hidden_dropout)]
        layers = [*inner, nn.Linear(spec.hidden, num_classes)]
    else:
        layers = [last if encoder is None else nn.Linear(width, num_classes)]
    head = MultiSampleDropout(nn.Sequential(nn.Dropout(dropout), *layers), samples=spec.dropout_samples)
    return SkinNetwork(backbone, head, attention=attention, metadata_encoder=encoder)
