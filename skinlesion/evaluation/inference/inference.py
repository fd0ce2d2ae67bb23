"""Running classifiers over prepared images: one by one, and as an ensemble that votes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax, logsumexp
from tqdm import tqdm

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import TestTime
from skinlesion.evaluation.inference.views import views_of
from skinlesion.model.classifier import Classifier, ClassifierConfig, check_prepared, normalize
from skinlesion.model.float32 import full_float32

Network = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class Member(NamedTuple):
    """A network of any engine, and its config; a `Classifier` is one whose network is torch's."""

    model: Network
    config: ClassifierConfig


class Predicted(NamedTuple):
    """What one classifier says of N images; columns in the order of `config.classes`.

    logits : float32 (N, 7), of the images as they are.
    log_probabilities : float64 (N, 7), log of the mean over the test-time views of the softmax probabilities.
    """

    logits: np.ndarray
    log_probabilities: np.ndarray


def place_network(model: torch.nn.Module, device: torch.device) -> None:
    """Move a network to a device, in eval mode, channels last in memory, which convolutions on CPU and GPU prefer."""
    model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack the option


def batches_of(
    config: ClassifierConfig, prepared: PreparedImages, listed: pd.DataFrame, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """The images of a list, uint8 (N, size, size, 3), and their encoded metadata where the network needs it, batch by batch."""
    check_prepared(prepared, config)
    rows = prepared.rows_of(listed["image_id"])
    metadata = torch.from_numpy(encode_metadata(listed)) if config.needs_metadata else None
    for start in range(0, len(rows), batch_size):
        batch = slice(start, start + batch_size)
        yield torch.from_numpy(prepared.images[rows[batch]]), None if metadata is None else metadata[batch]


@torch.inference_mode()
@full_float32()
def predict(
    classifier: Classifier | Member,
    prepared: PreparedImages,
    listed: pd.DataFrame,
    *,
    device: torch.device,
    batch_size: int,
    test_time: TestTime = "none",
) -> Predicted:
    """Predict a list of images, each once a view, in float32 arithmetic, whatever the precision of training.

    Parameters
    ----------
    listed : rows of a split list, or of any table with its columns: `image_id`, and `age`, `sex` and `localization`, which
        are read where the classifier needs metadata.

    Returns
    -------
    A row an image in the order of `listed`. Nothing else grows with the number of images.

    Raises
    ------
    PipelineError
        An image was not prepared, was prepared in another way than the classifier expects, or a logit is not finite.
    """
    model, config = classifier
    if isinstance(model, torch.nn.Module):
        place_network(model, device)
    parts = []
    batches, count = batches_of(config, prepared, listed, batch_size), -(-len(listed) // batch_size)
    for images, metadata in tqdm(batches, f"predict {config.name}", count, unit="batch", disable=None):
        known = None if metadata is None else metadata.to(device)
        parts.append(predict_batch(model, config, images.to(device), known, test_time=test_time))
    if not parts:
        raise ValueError("no image is listed")
    return Predicted(*map(np.concatenate, zip(*parts, strict=True)))


@torch.inference_mode()
def predict_batch(
    network: Network, config: ClassifierConfig, images: torch.Tensor, metadata: torch.Tensor | None, *, test_time: TestTime
) -> Predicted:
    """Predict one batch of prepared images.

    Parameters
    ----------
    network : anything that maps float32 (N, 3, size, size), normalised, and float32 (N, WIDTH) encoded metadata, or None where
        `config` needs none, to logits of shape (N, 7).
    images : uint8 (N, size, size, 3), RGB, on the network's device, as the metadata.

    Raises
    ------
    PipelineError
        A logit is not finite.
    """
    views = views_of(normalize(images, config), test_time)
    by_view = torch.stack([network(view, metadata).float().cpu() for view in views]).numpy()
    if not np.isfinite(by_view).all():
        raise PipelineError(f"classifier '{config.name}' gives logits that are not finite: train it with a smaller train.lr")
    return Predicted(by_view[0], log_mean(log_softmax(by_view.astype(np.float64), axis=-1)))


def predict_ensemble(
    members: Mapping[str, Classifier] | Mapping[str, Member],
    prepared: PreparedImages,
    listed: pd.DataFrame,
    *,
    device: torch.device,
    batch_size: int,
    test_time: TestTime = "none",
) -> dict[str, Predicted]:
    """`predict` of each member, by its name."""
    return {
        name: predict(classifier, prepared, listed, device=device, batch_size=batch_size, test_time=test_time)
        for name, classifier in members.items()
    }


def log_mean(log_probabilities: np.ndarray) -> np.ndarray:
    """Log of the mean of probabilities over the first axis, without underflow."""
    return np.asarray(logsumexp(log_probabilities, axis=0) - np.log(len(log_probabilities)))


def soft_vote(predicted: Sequence[Predicted], *, test_time: TestTime) -> np.ndarray:
    """One set of logits, float64 (N, 7), for an ensemble: log of the mean of its members' probabilities.

    A single member that saw each image once has its own logits, which differ from that by a constant an image and so have the
    same softmax.
    """
    if len(predicted) == 1 and test_time == "none":
        return predicted[0].logits.astype(np.float64)
    return log_mean(np.stack([one.log_probabilities for one in predicted]))
