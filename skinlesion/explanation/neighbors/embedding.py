"""Where a classifier puts an image: what its head is given of the picture, as a direction."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from tqdm import tqdm

from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.base.errors import PipelineError
from skinlesion.model.classifier import Classifier, check_prepared, normalize
from skinlesion.model.float32 import full_float32


def embed(
    members: Mapping[str, Classifier],
    prepared: PreparedImages,
    image_ids: Iterable[str],
    *,
    device: torch.device,
    batch_size: int,
) -> np.ndarray:
    """Embed images by every member of an ensemble; the dot product of two rows is the mean of the members' cosine similarities.

    A member's embedding is what its backbone gives and its head takes, attention included and metadata not, of the image as it
    is, in float32 arithmetic whatever the precision of training, and scaled to length 1. The members' embeddings stand side by
    side, divided by the root of their number.

    Parameters
    ----------
    image_ids : N images.
    batch_size : images a step; changes speed and memory, not results.

    Returns
    -------
    float32 (N, sum of the members' features), rows of length 1. Where all features of a member are zero, an image has no
    direction: they stay zero, and it is similar to nothing for that member.

    Raises
    ------
    PipelineError
        An image was not prepared, was prepared in another way than a classifier expects, or a feature is not finite.
    """
    rows = prepared.rows_of(image_ids)
    each = [_embed(classifier, prepared, rows, device=device, batch_size=batch_size) for classifier in members.values()]
    side_by_side: np.ndarray = np.concatenate(each, axis=1)
    side_by_side /= np.sqrt(np.float32(len(each)))
    return side_by_side


@torch.inference_mode()
@full_float32()
def _embed(
    classifier: Classifier, prepared: PreparedImages, rows: np.ndarray, *, device: torch.device, batch_size: int
) -> np.ndarray:
    """One member's embeddings, float32 (rows, features), of length 1 or 0."""
    model, config = classifier
    check_prepared(prepared, config)
    backbone = model.eval().to(device, memory_format=torch.channels_last).backbone  # type: ignore[call-overload]  # torch's stubs lack the option
    parts = []
    for start in tqdm(range(0, len(rows), batch_size), desc=f"embed {config.name}", unit="batch", disable=None):
        images = normalize(torch.from_numpy(prepared.images[rows[start : start + batch_size]]).to(device), config)
        features = backbone(images).float().cpu().numpy()
        if not np.isfinite(features).all():
            raise PipelineError(
                f"classifier '{config.name}' gives features that are not finite: train it with a smaller train.lr"
            )
        # float64, in which no square of a float32 overflows or vanishes.
        lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
        parts.append(np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0, casting="same_kind"))
    if not parts:
        raise ValueError("no image is listed")
    return np.concatenate(parts)
