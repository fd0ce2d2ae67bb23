"""Learning rates over a training: a frozen phase, then fine-tuning with the schedule that `train.schedule` names."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from skinlesion.config.training import TrainParams

ONE_CYCLE_START = 1 / 25  # of the peak, at the first step: torch's div_factor
ONE_CYCLE_END = ONE_CYCLE_START / 1e4  # of the peak, at the last step: torch's final_div_factor

# Steps of fine-tuning done (0 before the first) to the factor on every group's own rate.
Factor = Callable[[int], float]


def make_schedule(optimizer: torch.optim.Optimizer, params: TrainParams, *, steps_per_epoch: int) -> Schedule:
    """The schedule of `params` over an optimizer whose groups hold their peak rate (`lr`) and a `name`: `head...`, `backbone...`.

    Parameters
    ----------
    optimizer : as it was made: its rates must still be the peak rates. Fabric's wrapper will do.
    steps_per_epoch : optimizer steps, not batches.
    """
    total_steps = (params.epochs - params.freeze_epochs) * steps_per_epoch
    exact_warmup = params.warmup_epochs * steps_per_epoch
    warmup_steps = round(exact_warmup)
    factors: dict[str, Factor] = {
        "none": partial(warmup, warmup_steps=warmup_steps),
        "plateau": partial(warmup, warmup_steps=warmup_steps),
        "cosine": partial(warmup_cosine, warmup_steps=warmup_steps, total_steps=total_steps),
        "cosine_restarts": partial(
            warmup_restarts, warmup_steps=warmup_steps, cycle_steps=params.restart_epochs * steps_per_epoch
        ),
        "one_cycle": partial(one_cycle, rise_steps=exact_warmup, total_steps=total_steps),
    }
    plateau = Plateau(params.plateau_patience, params.plateau_factor) if params.schedule == "plateau" else None
    return Schedule(optimizer, factors[params.schedule], freeze_lr=params.freeze_lr, warmup_steps=warmup_steps, plateau=plateau)


def warmup(step: int, *, warmup_steps: int) -> float:
    """Linear rise over the first `warmup_steps`, the last of which has factor 1; then 1."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Linear rise to 1, then a half cosine to 0 at `total_steps`."""
    if step < warmup_steps:
        return warmup(step, warmup_steps=warmup_steps)
    return half_cosine((step - warmup_steps) / max(1, total_steps - warmup_steps))


def warmup_restarts(step: int, *, warmup_steps: int, cycle_steps: int) -> float:
    """Linear rise to 1, then half cosines to 0, each twice as long as the one before (SGDR, Loshchilov and Hutter 2017)."""
    if step < warmup_steps:
        return warmup(step, warmup_steps=warmup_steps)
    position = step - warmup_steps
    while position >= cycle_steps:
        position -= cycle_steps
        cycle_steps *= 2
    return half_cosine(position / cycle_steps)


def one_cycle(step: int, *, rise_steps: float, total_steps: int) -> float:
    """Half a cosine from 1/25 up to 1, then one down to 1/250,000 at the last step (Smith and Topin 2019).

    It is torch's `OneCycleLR` with `pct_start = rise_steps / total_steps`, `anneal_strategy="cos"` and fixed momentum.
    """
    peak, end = rise_steps - 1, total_steps - 1
    if step <= peak:
        return _between(ONE_CYCLE_START, 1.0, step / peak if peak > 0 else 1.0)
    return _between(1.0, ONE_CYCLE_END, min(1.0, (step - peak) / (end - peak)))


def half_cosine(progress: float) -> float:
    """1 at progress 0, falling to 0 at 1 and after."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _between(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * half_cosine(progress)


class Plateau:
    """A factor that falls when a value stops rising: torch's `ReduceLROnPlateau` over one rate, which starts at 1.

    Any rise counts (`threshold` 0), as it does for the selection of the best epoch: torch's own threshold is relative, which
    for a negated loss would take a small worsening for a rise.
    """

    def __init__(self, patience: int, factor: float) -> None:
        self.holder = torch.optim.SGD([torch.zeros(())], lr=1.0)
        self.scheduler = ReduceLROnPlateau(
            self.holder, mode="max", patience=patience, factor=factor, threshold=0.0, threshold_mode="abs", eps=0.0
        )

    @property
    def factor(self) -> float:
        return self.holder.param_groups[0]["lr"]

    def epoch_end(self, value: float) -> None:
        """Take the value of an epoch, the higher the better."""
        self.scheduler.step(value)

    def state_dict(self) -> dict[str, float]:
        scheduler = self.scheduler
        return {"factor": self.factor, "best": scheduler.best, "num_bad_epochs": scheduler.num_bad_epochs}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.holder.param_groups[0]["lr"] = state["factor"]
        self.scheduler.load_state_dict({"best": state["best"], "num_bad_epochs": state["num_bad_epochs"]})


class Schedule:
    """Sets the rates of an optimizer's groups. It counts the steps of fine-tuning alone, and starts outside the frozen phase.

    Fine-tuning: a group's rate is its own peak rate times a factor of the step. Frozen phase: `freeze_lr` in the groups of the
    head and 0 in those of the backbone.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        factor: Factor,
        *,
        freeze_lr: float,
        warmup_steps: int = 0,
        plateau: Plateau | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.factor = factor
        self.freeze_lr = freeze_lr
        self.warmup_steps = warmup_steps
        self.plateau = plateau
        self.peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self.is_head = [_is_head(group["name"]) for group in optimizer.param_groups]
        self.steps = 0
        self.frozen = False
        self._apply()

    def set_frozen(self, frozen: bool) -> None:
        """Enter or leave the frozen phase; the rates are those of the phase at once."""
        self.frozen = frozen
        self._apply()

    def step(self) -> None:
        """After every optimizer step, also in the frozen phase, which it leaves out of its count."""
        if not self.frozen:
            self.steps += 1
            self._apply()

    def epoch_end(self, improved_value: float) -> None:
        """After every epoch the validation metric, the higher the better. Schedule plateau alone reads it.

        Epochs of the frozen phase and of the warm-up do not count: the rate has nothing to fall from yet.
        """
        if self.plateau is not None and not self.frozen and self.steps > self.warmup_steps:
            self.plateau.epoch_end(improved_value)
            self._apply()

    def last_lr(self) -> float:
        """The present rate of the head (the largest, should it have several groups)."""
        groups = self.optimizer.param_groups
        return max(group["lr"] for group, is_head in zip(groups, self.is_head, strict=True) if is_head)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on exactly, in plain numbers."""
        return {
            "steps": self.steps,
            "frozen": self.frozen,
            "plateau": self.plateau.state_dict() if self.plateau is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; the rates are set anew."""
        self.steps, self.frozen = state["steps"], state["frozen"]
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])
        self._apply()

    def _apply(self) -> None:
        """Write the rates into the optimizer's groups."""
        factor = self.factor(self.steps) * (self.plateau.factor if self.plateau is not None else 1.0)
        groups = self.optimizer.param_groups  # asked for each time: loading an optimizer's state replaces the list
        for group, peak, is_head in zip(groups, self.peaks, self.is_head, strict=True):
            if self.frozen:
                group["lr"] = self.freeze_lr if is_head else 0.0
            else:
                group["lr"] = peak * factor


def _is_head(name: str) -> bool:
    """Whether a group of that name is the head's; the only other kind is the backbone's."""
    if not name.startswith(("head", "backbone")):
        raise ValueError(f"parameter group '{name}' is neither of the head nor of the backbone")
    return name.startswith("head")
