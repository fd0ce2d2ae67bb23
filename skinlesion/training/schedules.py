"""Learning rates over a training: a frozen phase, then fine-tuning with the schedule that `train.schedule` names."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from skinlesion.config.training import TrainParams

ONE_CYCLE_START = 1 / 25  # of the peak, at the first step: torch's div_factor
ONE_CYCLE_END = ONE_CYCLE_START / 1e4  # of the peak, at the last step: torch's final_div_factor

# Steps done (0 before the first) to a factor on a group's peak rate.
Factor = Callable[[int], float]


def make_schedule(optimizer: torch.optim.Optimizer, params: TrainParams, *, steps_per_epoch: int) -> "Schedule":
    """The schedule of `params` over an optimizer whose groups hold their peak rate (`lr`) and a `name`: `head...`, `backbone...`.

    Parameters
    ----------
    optimizer : as it was made: its rates must still be the peak rates.
    steps_per_epoch : optimizer steps, not batches.

    Raises
    ------
    ValueError
        A group has another name.
    """
    total_steps = (params.epochs - params.freeze_epochs) * steps_per_epoch
    exact_warmup = params.warmup_epochs * steps_per_epoch
    warmup_steps = round(exact_warmup)
    curves: dict[str, Factor] = {
        "cosine": lambda step: half_cosine(step / max(1, total_steps - warmup_steps)),
        "cosine_restarts": partial(restarts, cycle_steps=params.restart_epochs * steps_per_epoch),
    }
    factor: Factor = partial(warmed_up, warmup_steps=warmup_steps, curve=curves.get(params.schedule, lambda _: 1.0))
    if params.schedule == "one_cycle":
        factor = partial(one_cycle, rise_steps=exact_warmup, total_steps=total_steps)
    frozen_steps = params.freeze_epochs * steps_per_epoch
    # True, and meant, where the scaler of 16-bit precision skips the first step.
    warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before")
    by_step = LambdaLR(
        optimizer,
        [
            partial(
                frozen_first,
                frozen_steps=frozen_steps,
                frozen_factor=params.freeze_lr / group["lr"] if _is_head(group["name"]) else 0.0,
                factor=factor,
            )
            for group in optimizer.param_groups
        ],
    )
    if params.schedule != "plateau":
        return Schedule(by_step)
    # Any rise counts, as it does for the selection of the best epoch: torch's own threshold is relative, which for a negated
    # loss would take a small worsening for a rise.
    plateau = ReduceLROnPlateau(
        optimizer, mode="max", patience=params.plateau_patience, factor=params.plateau_factor, threshold=0.0, eps=0.0
    )
    return Schedule(by_step, plateau, plateau_after=frozen_steps + warmup_steps)


def frozen_first(step: int, *, frozen_steps: int, frozen_factor: float, factor: Factor) -> float:
    """A constant in the frozen phase, whose steps `factor` does not count."""
    return frozen_factor if step < frozen_steps else factor(step - frozen_steps)


def warmed_up(step: int, *, warmup_steps: int, curve: Factor) -> float:
    """Linear rise over the first `warmup_steps`, the last of which has factor 1; then `curve`, which begins with step 0."""
    return (step + 1) / warmup_steps if step < warmup_steps else curve(step - warmup_steps)


def restarts(step: int, *, cycle_steps: int) -> float:
    """Half cosines from 1 to 0, each twice as long as the one before (SGDR, Loshchilov and Hutter 2017)."""
    while step >= cycle_steps:
        step -= cycle_steps
        cycle_steps *= 2
    return half_cosine(step / cycle_steps)


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


class Schedule:
    """The rates of an optimizer's groups: by steps, and for the schedule `plateau` by epochs once its warm-up is over.

    Fine-tuning: a group's rate is its own peak rate times a factor of the step. Frozen phase: `freeze_lr` in the groups of the
    head and 0 in those of the backbone.

    Parameters
    ----------
    by_step : sets the rates after every step.
    plateau : lowers them after epochs in vain. It changes the rates themselves, so `by_step`, which would set them anew, rests
        from the step after `plateau_after` on; its factor is 1 by then.
    plateau_after : steps of the frozen phase and of the warm-up.
    """

    def __init__(self, by_step: LambdaLR, plateau: ReduceLROnPlateau | None = None, *, plateau_after: int = 0) -> None:
        self.by_step, self.plateau, self.plateau_after = by_step, plateau, plateau_after

    @property
    def _plateau_rules(self) -> bool:
        return self.plateau is not None and self.by_step.last_epoch > self.plateau_after

    def step(self) -> None:
        """After every optimizer step, also in the frozen phase."""
        if not self._plateau_rules:
            self.by_step.step()

    def epoch_end(self, improved_value: float) -> None:
        """After every epoch the validation metric, the higher the better. Schedule plateau alone reads it.

        Epochs of the frozen phase and of the warm-up do not count: the rate has nothing to fall from yet.
        """
        if self.plateau is not None and self._plateau_rules:
            self.plateau.step(improved_value)

    def last_lr(self) -> float:
        """The rate of the head for the next step (the largest, should the head have several groups)."""
        return max(float(group["lr"]) for group in self.by_step.optimizer.param_groups if _is_head(group["name"]))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on exactly, in plain numbers; the rates themselves are the optimizer's state."""
        return {
            "by_step": self.by_step.state_dict(),
            "plateau": self.plateau.state_dict() if self.plateau is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`, the optimizer's own state being loaded too."""
        self.by_step.load_state_dict(state["by_step"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])


def _is_head(name: str) -> bool:
    """Whether a group of that name is the head's; the only other kind is the backbone's."""
    if not name.startswith(("head", "backbone")):
        raise ValueError(f"parameter group '{name}' is neither of the head nor of the backbone")
    return name.startswith("head")
