"""The sections `ensemble`, `synthesize` and `train`: which networks are trained, on what, and how."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from skinlesion.base.errors import suggest
from skinlesion.config.augmentation import AugmentationParams
from skinlesion.config.schema import UNSEEN_BY_DVC, Distinct, Section, Seed, check_diagnoses

Dropout = Annotated[float, Field(ge=0, lt=1)]
Dx = Annotated[str, Field(min_length=1)]


# What torchvision registers as a model: `@register_model()` or `@register_model(name="...")` above a function.
REGISTERED = re.compile(r'^@register_model\((?:name="(\w+)")?\)$.*?^def (\w+)', re.MULTILINE | re.DOTALL)


@cache
def list_backbones() -> list[str]:
    """Names of all classification models of the installed torchvision, sorted.

    They are read from its source, because to import it takes seconds, and every stage checks `params.yaml`.
    """
    torchvision = find_spec("torchvision")
    files = Path(torchvision.origin).parent.glob("models/*.py") if torchvision and torchvision.origin else []
    return sorted(name or function for file in files for name, function in REGISTERED.findall(file.read_text(encoding="utf-8")))


# Families with a dropout of their own directly before the last layer.
WITH_DROPOUT = ("efficientnet", "googlenet", "inception", "mnasnet", "mobilenet", "squeezenet", "vgg")


def find_size_problem(backbone: str, size: int) -> str | None:
    """Why a backbone cannot take images of `size` x `size` pixels, if it cannot; torchvision itself says so after a download."""
    least = {"alexnet": 63, "inception_v3": 75}.get(backbone, 1)  # of fewer pixels, pooling leaves none
    # Patches of so many pixels; MaxViT's windows of 7 x 7 cells of 32.
    step = int(backbone.rpartition("_")[2]) if backbone.startswith("vit_") else 224 if backbone.startswith("maxvit") else 1
    if size >= least and size % step == 0:
        return None
    return f"backbone '{backbone}' takes images of {f'{least} pixels and more' if step == 1 else f'a multiple of {step} pixels'}"


class EnsembleParams(Section):
    """Which members are trained: every one of `members` with every one of `seeds`."""

    seeds: Distinct[Seed] = Field(min_length=1)
    members: Distinct[str] = Field(min_length=1)
    overrides: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _names_are_plain(self) -> "EnsembleParams":
        for name in self.members:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"members: '{name}' must be a plain name: lower-case letters, digits and '_'")
            if name in UNSEEN_BY_DVC:
                raise ValueError(f"members: '{name}' is a name in which DVC does not see changes: choose another name")
            if name not in self.overrides:
                raise ValueError(f"members: '{name}' has no entry in overrides{suggest(name, self.overrides)}; {{}} if none")
        return self

    def member_names(self) -> list[str]:
        """Names of the members, which are those of their folders: `base-0`."""
        return [f"{member}-{seed}" for member in self.members for seed in self.seeds]


class SynthesizeParams(Section):
    """How many images of which diagnoses are drawn by a conditional VAE, and how that is trained."""

    seed: Seed
    images: dict[Dx, Annotated[int, Field(ge=0, le=100_000)]]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    lr: float = Field(gt=0)
    latent: int = Field(ge=2, le=1024)
    kl_weight: float = Field(gt=0)

    @model_validator(mode="after")
    def _images_of_diagnoses(self) -> "SynthesizeParams":
        check_diagnoses(self.images, "images")
        return self


class TrainParams(Section):
    """The network and how it is trained. Which value is read by which option stands beside it in `params.yaml`."""

    # network
    backbone: str
    weights: str = Field(min_length=1)
    head: Literal["linear", "mlp"]
    hidden: int = Field(ge=1, le=8192)
    hidden_dropout: Dropout
    dropout: Dropout | None
    dropout_samples: int = Field(ge=1, le=32)
    attention: Literal["none", "se", "cbam"]
    metadata: bool
    metadata_dropout: Dropout
    # arithmetic
    precision: Literal["auto", "32", "bf16", "16"]
    compile: bool
    # phases and rates
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    accumulate: int = Field(ge=1)
    lr: float = Field(gt=0)
    backbone_lr: Annotated[float, Field(gt=0)] | None
    layer_decay: float = Field(gt=0, le=1)
    freeze_epochs: int = Field(ge=0)
    freeze_lr: float = Field(gt=0)
    # optimizer
    optimizer: Literal["adamw", "sgd"]
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    sam_rho: float = Field(ge=0)
    clip_norm: Annotated[float, Field(gt=0)] | None
    # schedule
    schedule: Literal["none", "cosine", "cosine_restarts", "one_cycle", "plateau"]
    warmup_epochs: float = Field(ge=0)
    restart_epochs: int = Field(ge=1)
    plateau_patience: int = Field(ge=0)
    plateau_factor: float = Field(gt=0, lt=1)
    # averaging of weights
    average: Literal["none", "ema", "swa"]
    ema_decay: float = Field(gt=0, lt=1)
    swa_start: float = Field(ge=0, lt=1)
    batch_norm_images: int = Field(ge=0)
    # loss
    loss: Literal["cross_entropy", "focal", "class_balanced", "ldam", "logit_adjusted"]
    focal_gamma: float = Field(ge=0)
    ldam_margin: float = Field(gt=0)
    ldam_scale: float = Field(gt=0)
    logit_tau: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Literal["none", "inverse", "sqrt_inverse", "effective"]
    effective_beta: float = Field(gt=0, lt=1)
    class_weights_mean: Literal["images", "classes"]
    class_multipliers: dict[Dx, Annotated[float, Field(gt=0)]]
    defer_weights: float = Field(ge=0, lt=1)
    # what is seen
    sampler: Literal["shuffle", "balanced", "square_root"]
    one_view_per_lesion: bool
    augmentation: AugmentationParams
    # selection
    select_by: Literal["macro_f1", "balanced_accuracy", "accuracy", "mel_recall", "macro_auc", "loss"]
    patience: int = Field(ge=1)
    loggers: Distinct[Literal["dvclive", "tensorboard", "mlflow"]]

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value  # YAML reads 32 as a number

    @field_validator("metadata", mode="before")
    @classmethod
    def _metadata_is_a_switch(cls, value: Any) -> Any:
        if "dx_type" in str(value):
            raise ValueError("dx_type is never an input: it tells how the diagnosis was made and so gives it away")
        return value

    @field_validator("backbone")
    @classmethod
    def _backbone_is_known(cls, value: str) -> str:
        if value not in list_backbones():
            raise ValueError(f"torchvision has no classification model of that name{suggest(value, list_backbones())}")
        return value

    @model_validator(mode="after")
    def _phases_fit(self) -> "TrainParams":
        fine_tuning = self.epochs - self.freeze_epochs
        if fine_tuning < 1:
            raise ValueError(f"freeze_epochs is {self.freeze_epochs} of {self.epochs} epochs: none is left for fine-tuning")
        if self.warmup_epochs > fine_tuning:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}, more than the {fine_tuning} epochs of fine-tuning")
        if self.schedule == "one_cycle" and not 0 < self.warmup_epochs < fine_tuning:
            raise ValueError("schedule one_cycle rises for warmup_epochs and falls after: set them above 0 and below the epochs")
        return self

    @model_validator(mode="after")
    def _options_agree(self) -> "TrainParams":
        for wrong, reason in (
            (
                self.dropout_samples > 1
                and (self.dropout == 0 or (self.dropout is None and not self.backbone.startswith(WITH_DROPOUT)))
                and (self.head == "linear" or self.hidden_dropout == 0),
                f"dropout_samples needs dropout above 0, or all samples would be equal; null is none for '{self.backbone}'"
                if self.dropout is None
                else "dropout_samples needs dropout above 0: all samples would be equal",
            ),
            (
                self.attention != "none" and self.backbone.startswith("vit_"),
                f"attention gates a feature map, and '{self.backbone}' passes on tokens instead: set attention to none, or "
                "choose a backbone with convolutions",
            ),
            (
                self.schedule == "plateau" and self.plateau_patience >= self.patience,
                f"plateau_patience is {self.plateau_patience} and patience {self.patience}: training ends before the rate falls",
            ),
            (
                self.schedule == "plateau" and self.warmup_epochs >= self.epochs - self.freeze_epochs,
                "schedule plateau begins after warmup_epochs, and they are all there are: lower warmup_epochs",
            ),
            (
                self.backbone_lr is not None and self.layer_decay < 1,
                "backbone_lr and layer_decay both set the backbone's rates: set backbone_lr to null or layer_decay to 1",
            ),
            (
                self.loss == "class_balanced" and self.class_weights != "none",
                "loss class_balanced brings its own class weights (effective): set class_weights to none",
            ),
            (
                self.loss == "ldam" and self.label_smoothing > 0,
                "loss ldam has a margin for the true class and no smoothed labels: set label_smoothing to 0",
            ),
            (
                self.defer_weights > 0
                and self.class_weights == "none"
                and self.loss != "class_balanced"
                and not self.class_multipliers,
                "defer_weights defers class weights, and there are none: set class_weights or class_multipliers",
            ),
            (
                self.sam_rho > 0 and self.accumulate > 1,
                "sam_rho climbs and steps on one batch: set accumulate to 1, or sam_rho to 0",
            ),
            (self.sam_rho > 0 and self.precision == "16", "sam_rho does not go with precision 16, whose scaler skips steps"),
            (
                self.schedule == "plateau" and self.average == "swa",
                "average swa needs a schedule that does not depend on validation: choose another than plateau",
            ),
        ):
            if wrong:
                raise ValueError(reason)
        check_diagnoses(self.class_multipliers, "class_multipliers")
        return self
