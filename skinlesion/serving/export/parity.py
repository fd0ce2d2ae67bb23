"""What exported networks say of prepared images, and how far that is from what torch said of them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.artifacts.tables import predicted_of, probabilities_of
from skinlesion.base.errors import PipelineError
from skinlesion.config.contents import OperatingPoints
from skinlesion.config.schema import TestTime
from skinlesion.evaluation.analysis.thresholds import truth_and_scores
from skinlesion.evaluation.inference.inference import Member, batches_of, predict_batch, predict_ensemble
from skinlesion.evaluation.inference.predictions import prediction_table, vote
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.predictions import PREDICTIONS
from skinlesion.model.classifier import Classifier, ClassifierConfig, normalize
from skinlesion.serving.export.onnx_network import IMAGES, METADATA

TOLERANCE = 1e-4  # between probabilities of torch and of the float32 graph, which round differently

Members = Mapping[str, Classifier] | Mapping[str, Member]  # by name


def graph_inputs(
    config: ClassifierConfig, prepared: PreparedImages, listed: pd.DataFrame, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """The inputs of an exported graph for the images of a list, batch by batch, each as it is, without test-time views."""
    for images, metadata in batches_of(config, prepared, listed, batch_size):
        inputs = {IMAGES: normalize(images, config).contiguous().numpy()}
        yield inputs if metadata is None else inputs | {METADATA: metadata.numpy()}


def predict_table(
    members: Members,
    prepared: PreparedImages,
    listed: pd.DataFrame,
    calibrator: Calibrator,
    *,
    batch_size: int,
    test_time: TestTime,
) -> pd.DataFrame:
    """The prediction table of a list, made as `evaluate` makes it but for the engine, on the CPU.

    listed : rows of a split list or of a prediction table, whose columns are given back with other numbers.

    Raises
    ------
    PipelineError
        An image was not prepared, was prepared in another way than the classifier expects, or a logit is not finite.
    """
    cpu = torch.device("cpu")
    predicted = predict_ensemble(members, prepared, listed, device=cpu, batch_size=batch_size, test_time=test_time)
    return prediction_table(listed, vote(predicted, test_time), calibrator)


def largest_difference(table: pd.DataFrame, reference: pd.DataFrame) -> tuple[float, str]:
    """The largest difference of a calibrated probability of two tables of the same images, and the `image_id` that it is of."""
    apart = np.abs(probabilities_of(table) - probabilities_of(reference)).max(axis=1)
    return float(apart.max()), str(reference["image_id"].iloc[int(apart.argmax())])


def describe_parity(table: pd.DataFrame, reference: pd.DataFrame, points: OperatingPoints) -> dict[str, Any]:
    """How far two prediction tables of the same images in the same order lie apart.

    Returns
    -------
    largest_difference : of a calibrated probability, with the `image_id` where it is.
    mean_difference : of all probabilities, their absolute differences.
    same_diagnosis : share of the images whose most probable class is the same.
    same_flag : by operating point, the share of the images that both flag or both do not.
    """
    first, second = (probabilities_of(each) for each in (table, reference))
    largest, image_id = largest_difference(table, reference)
    scores = [truth_and_scores(each, points.classes)[1] for each in (table, reference)]
    flags = {
        name: float(np.equal(*(score >= point.threshold for score in scores)).mean()) for name, point in points.points.items()
    }
    return {
        "largest_difference": largest,
        "image_id": image_id,
        "mean_difference": float(np.abs(first - second).mean()),
        "same_diagnosis": float((predicted_of(table) == predicted_of(reference)).mean()),
        "same_flag": flags,
    }


def check_parity(parity: dict[str, Any], members: dict[str, Classifier], test: pd.DataFrame, **options: Any) -> None:
    """Refuse a float32 graph that does not give torch's probabilities; one image, asked of torch, says whose fault it is."""
    if parity["largest_difference"] <= TOLERANCE:
        return
    worst = test[test["image_id"] == parity["image_id"]].reset_index(drop=True)
    alone = predict_table(members, listed=worst, **options)
    apart, _ = largest_difference(alone, worst)
    image = f"{parity['image_id']} a probability that differs by {parity['largest_difference']:.4f} from that in"
    if apart > TOLERANCE:
        raise PipelineError(
            f"classifier and predictions are not of one run: {CLASSIFIER} gives image {image} "
            f"{PREDICTIONS / 'test.csv'}: run `dvc repro`, then this stage again"
        )
    raise PipelineError(
        f"the exported float32 network gives image {image} {PREDICTIONS / 'test.csv'}, and torch does not: this network "
        f"cannot be exported faithfully by torch {torch.__version__}; stay with the engine torch, or take another train.backbone"
    )


def engine_of(members: Members, metadata: pd.DataFrame, *, test_time: TestTime) -> Callable[[torch.Tensor], None]:
    """A function that has all members predict one batch of uint8 images, for measuring its time.

    metadata : rows of a list, one an image of the largest batch.
    """
    encoded = torch.from_numpy(encode_metadata(metadata))

    def predict(images: torch.Tensor) -> None:
        for network, config in members.values():
            known = encoded[: len(images)] if config.needs_metadata else None
            predict_batch(network, config, images, known, test_time=test_time)

    return predict
