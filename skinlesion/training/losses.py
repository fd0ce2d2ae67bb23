"""The training losses. None changes what the network says afterwards: its plain logits are the logits, whatever the loss.

Every loss is made of the same parts. A *class loss* l_c is what an image would cost if its diagnosis were c; a target gives
each class a share q_c (one-hot, mixed by MixUp or CutMix, smoothed); a class has a weight w_c. An image costs the sum over the
classes of q_c w_c l_c, which for cross-entropy is what `torch.nn.functional.cross_entropy` calls `reduction="none"`.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from skinlesion.config.training import TrainParams
from skinlesion.diagnoses import CLASSES


class Criterion(nn.Module):
    """The loss of each image.

    Parameters
    ----------
    class_losses : logits (N, C) to class losses (N, C).
    weights : float32 (C,), of the classes.
    label_smoothing : share e of the target that is spread evenly: (1 - e) q_c + e / C (Szegedy et al., CVPR 2016), 0 to < 1.
    """

    weights: torch.Tensor
    one_hot: torch.Tensor

    def __init__(self, class_losses: nn.Module, weights: torch.Tensor, *, label_smoothing: float) -> None:
        super().__init__()
        self.class_losses, self.label_smoothing = class_losses, label_smoothing
        self.register_buffer("weights", weights)
        self.register_buffer("one_hot", torch.eye(len(weights)))

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, *, weighted: bool = True) -> torch.Tensor:
        """Losses float32 (N,), one an image, with the gradient.

        They are not reduced: the mean of a batch is over its images, so that batches that are accumulated or shared between
        processes give what they give as one. (`reduction="mean"` of torch divides by the sum of the weights instead, with
        which an image counts the less the rarer its neighbors in the batch.)

        Parameters
        ----------
        logits : float32 (N, C).
        targets : int64 (N,), class indices; or float32 (N, C), shares of the classes that sum to 1.
        weighted : False leaves the class weights and multipliers out; see `weights_apply`.
        """
        shares = targets if targets.is_floating_point() else self.one_hot[targets]
        shares = (1 - self.label_smoothing) * shares + self.label_smoothing / shares.shape[1]
        if weighted:
            shares = shares * self.weights
        losses: torch.Tensor = (shares * self.class_losses(logits)).sum(dim=1)
        return losses


class Focal(nn.Module):
    """-(1 - p_c)^gamma log p_c (Lin et al., Focal Loss for Dense Object Detection, ICCV 2017); its alpha is the class weight."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        log_probabilities = logits.log_softmax(dim=1)
        # Where p is 1 the slope of a power below 1 is infinite, and infinity times a loss of 0 is not a number.
        others = (-torch.expm1(log_probabilities)).clamp(min=1e-12)
        return -(others**self.gamma) * log_probabilities


class LDAM(nn.Module):
    """Cross-entropy of logits of which the class's own is first lowered by `scale` times its margin.

    The margins fall with n_c^(-1/4) from `largest_margin`, that of the rarest class (Cao et al., Learning Imbalanced Datasets
    with Label-Distribution-Aware Margin Loss, NeurIPS 2019). A class without an image is nobody's, and has none. The paper
    scales the network's outputs in the loss; here the network gives the scaled ones, so that their softmax is a
    probability after training too. Its cosine-normalized last layer is not copied: the head stays linear.
    """

    margins: torch.Tensor

    def __init__(self, counts: np.ndarray, *, largest_margin: float, scale: float) -> None:
        super().__init__()
        margins = np.where(counts > 0, np.maximum(counts, 1.0) ** -0.25, 0.0)
        self.register_buffer("margins", torch.tensor(scale * largest_margin * margins / margins.max(), dtype=torch.float32))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        # (N, C, C): in row c the logits as they are if c is the diagnosis.
        lowered = logits.unsqueeze(1) - torch.diag(self.margins)
        return -lowered.log_softmax(dim=2).diagonal(dim1=1, dim2=2)


class LogitAdjusted(nn.Module):
    """Cross-entropy of the logits plus `tau` times the log prior, the class's share of the training list; plain where tau is 0.

    Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021. A class without an image counts as one image, or its
    logarithm would be infinite. The prior belongs to training alone: the argmax of the plain logits minimizes the balanced error.
    """

    adjustment: torch.Tensor

    def __init__(self, counts: np.ndarray, *, tau: float) -> None:
        super().__init__()
        prior = np.maximum(counts, 1.0) / counts.sum()
        self.register_buffer("adjustment", torch.tensor(tau * np.log(prior), dtype=torch.float32))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return -(logits + self.adjustment).log_softmax(dim=1)


def make_criterion(params: TrainParams, counts: np.ndarray) -> Criterion:
    """The loss that params describe, on the CPU.

    `class_balanced` is cross-entropy with the class weights `effective`, whose mean over the classes is 1, as Cui et al. (CVPR
    2019) have it. The others take the weights that params name.

    Parameters
    ----------
    params : the section `train`.
    counts : int (7,), training images of each class.

    Raises
    ------
    ValueError
        `counts` are not those of the seven classes.
    """
    balanced = params.loss == "class_balanced"
    weights = class_weights(
        counts,
        scheme="effective" if balanced else params.class_weights,
        beta=params.effective_beta,
        mean="classes" if balanced else params.class_weights_mean,
        multipliers=params.class_multipliers,
    )
    if params.loss == "focal":
        losses: nn.Module = Focal(params.focal_gamma)
    elif params.loss == "ldam":
        losses = LDAM(counts, largest_margin=params.ldam_margin, scale=params.ldam_scale)
    else:
        losses = LogitAdjusted(counts, tau=params.logit_tau if params.loss == "logit_adjusted" else 0.0)
    return Criterion(losses, weights, label_smoothing=params.label_smoothing)


def weights_apply(epoch: int, *, epochs: int, defer_weights: float) -> bool:
    """Whether class weights count in an epoch (the first is 1): from the one on that begins after the share `defer_weights`.

    Deferred re-weighting (Cao et al., NeurIPS 2019): the features are learnt from the images as they come, the boundaries between
    the classes then with weights. Of 10 epochs, 0.8 leaves them out of the first 8. In the last epoch they always count.
    """
    return epoch / epochs > defer_weights


def class_weights(counts: np.ndarray, *, scheme: str, beta: float, mean: str, multipliers: Mapping[str, float]) -> torch.Tensor:
    """Weights of the classes in the loss, float32 (7,), in the order of `CLASSES`.

    Parameters
    ----------
    counts : (7,), n_c, the training images of each class; whichever way they are sampled.
    scheme : `none`: 1 for every class. `inverse`: 1 / n_c. `sqrt_inverse`: its square root. `effective`:
        (1 - beta) / (1 - beta^n_c), the inverse of the effective number of images (Cui et al., Class-Balanced Loss Based on
        Effective Number of Samples, CVPR 2019). But for `none`, a class without an image has weight 0.
    beta : 0 to 1, both excluded; read by `effective`.
    mean : over which the weights have the mean 1: `images` (the sum of n_c w_c is the sum of n_c; `inverse` is then
        scikit-learn's `balanced`) or `classes` (those that have an image).
    multipliers : factors on chosen classes. They come last, so that with them the mean is no longer 1.

    Raises
    ------
    ValueError
        `counts` is not seven numbers from 0 on, or all are 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.shape != (len(CLASSES),) or (counts < 0).any() or not counts.any():
        raise ValueError(
            f"counts must hold the training images of {len(CLASSES)} classes, at least one in all: {counts.tolist()}"
        )
    weights = np.ones(len(CLASSES))
    if scheme != "none":
        present = counts > 0
        images = np.where(present, counts, np.inf)  # so that a class without an image has weight 0
        weights = {
            "inverse": 1 / images,
            "sqrt_inverse": 1 / np.sqrt(images),
            "effective": present * (1 - beta) / -np.expm1(images * np.log(beta)),
        }[scheme]
        weights /= np.average(weights, weights={"images": counts, "classes": present}[mean])
    factors = np.array([multipliers.get(name, 1.0) for name in CLASSES])
    return torch.tensor(weights * factors, dtype=torch.float32)
