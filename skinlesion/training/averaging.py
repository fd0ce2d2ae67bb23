"""Averaged weights beside the ones that learn: over steps (EMA) or over the last epochs (SWA)."""

from typing import Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from skinlesion.config.training import TrainParams

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


def make_average(network: nn.Module, params: TrainParams) -> "WeightAverage | None":
    """The average that `train.average` names, on the device where `network` is; None for `none`."""
    if params.average == "none":
        return None
    return WeightAverage(network, params.average, ema_decay=params.ema_decay, swa_after=params.swa_start * params.epochs)


class WeightAverage:
    """A second network whose tensors are running averages of the first one's; made by torch's `AveragedModel`.

    Exponential moving average: after step t (0 is the first, which copies the weights) a share d of the average stays, with
    d = min(ema_decay, (1 + t) / (10 + t)). So a short training does not keep the random head (TensorFlow's
    `ExponentialMovingAverage` with `num_updates`). Stochastic weight averaging (Izmailov et al. 2018): the plain mean of the
    weights after each epoch beyond `swa_after`.

    Batch norm's running means and variances are averaged like the weights: those of the last few batches of other weights
    would not fit. Better ones are computed on the averaged network itself (`train.batch_norm_images`). Integers are copied.

    Attributes
    ----------
    network : the averaged network; before the average is `active` a copy of the first one as it was made.
    """

    def __init__(
        self, network: nn.Module, kind: Literal["ema", "swa"], *, ema_decay: float = 0.0, swa_after: float = 0.0
    ) -> None:
        self.kind = kind
        self.ema_decay = ema_decay
        self.swa_after = swa_after
        self._model = AveragedModel(network, multi_avg_fn=self._move, use_buffers=True)

    @property
    def network(self) -> nn.Module:
        return self._model.module

    @property
    def active(self) -> bool:
        """Whether anything has been averaged yet."""
        return self._count > 0

    def after_step(self, network: nn.Module) -> None:
        """After every optimizer step; ema alone averages then."""
        if self.kind == "ema":
            self._model.update_parameters(network)

    def after_epoch(self, network: nn.Module, epoch: int) -> None:
        """After every epoch, before its validation (1 is the first); swa alone averages then."""
        if self.kind == "swa" and epoch > self.swa_after:
            self._model.update_parameters(network)

    def state_dict(self) -> dict[str, Any]:
        """Averaged tensors and their count, for `torch.save`."""
        return self._model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly from `state_dict`."""
        self._model.load_state_dict(state)

    @property
    def _count(self) -> int:
        """How many networks are in the average. The tensor stays on the CPU, so that nothing waits for a GPU."""
        return int(self._model.n_averaged)

    def _move(self, averaged: Tensors, current: Tensors, _: torch.Tensor | int) -> None:
        """Move tensors of one kind, in place, towards the current ones; never called for the first network."""
        if not averaged[0].is_floating_point():
            for mean, value in zip(averaged, current, strict=True):
                mean.copy_(value)
        elif self.kind == "ema":
            decay = min(self.ema_decay, (1 + self._count) / (10 + self._count))
            get_ema_multi_avg_fn(decay)(averaged, current, self._count)
        else:
            get_swa_multi_avg_fn()(averaged, current, self._count)
