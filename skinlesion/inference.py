"""Running the classifier over prepared images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from skinlesion.artifacts import PreparedImages
from skinlesion.classifier import ClassifierConfig, normalize
from skinlesion.errors import PipelineError


def check_prepared(prepared: PreparedImages, config: ClassifierConfig) -> None:
    """Refuse images that were prepared in another way than those that the classifier was trained on."""
    if (prepared.size, prepared.fit) != (config.size, config.fit):
        raise PipelineError(
            f"images were prepared at {prepared.size} px with fit '{prepared.fit}', and the classifier was trained at "
            f"{config.size} px with fit '{config.fit}': run `prepare` and `train` with the same params"
        )


@torch.inference_mode()
@torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
def predict_logits(
    model: nn.Module,
    config: ClassifierConfig,
    prepared: PreparedImages,
    image_ids: Iterable[str],
    *,
    device: torch.device,
    batch_size: int,
) -> np.ndarray:
    """Logits of images in float32 arithmetic, whatever the precision of training.

    Returns
    -------
    float32 array of shape (N, 7): a row an image in the order asked, columns in the order of `config.classes`.

    Raises
    ------
    PipelineError
        An image was not prepared, was prepared in another way than the classifier expects, or a logit is not finite.
    """
    check_prepared(prepared, config)
    rows = prepared.rows_of(image_ids)
    model = model.to(device, memory_format=torch.channels_last).eval()
    batches = []
    for start in tqdm(range(0, len(rows), batch_size), desc="predict", unit="batch", disable=None):
        images = torch.from_numpy(prepared.images[rows[start : start + batch_size]])
        batches.append(model(normalize(images.to(device), config)).float().cpu().numpy())
    logits = np.concatenate(batches) if batches else np.empty((0, len(config.classes)), dtype=np.float32)
    if not np.isfinite(logits).all():
        raise PipelineError("the classifier gives logits that are not finite: train it again with a smaller train.lr")
    return logits
