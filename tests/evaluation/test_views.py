"""The views of test-time augmentation: which they are, and what averaging over them gives."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.evaluation.inference.inference import predict
from skinlesion.evaluation.inference.views import CROP_SHARE, VIEWS, TestTime, views_of
from skinlesion.model.classifier import Classifier
from skinlesion.model.network import SkinNetwork
from tests.model.classifier_cases import make_config

AUGMENTED = ("flips", "square", "multi_crop")


class Corners(nn.Module):
    """The classes' scores are the red of the corners: top left, top right, bottom left, bottom right, and three times 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        red = images[:, 0]
        scores = [red[:, 0, 0], red[:, 0, -1], red[:, -1, 0], red[:, -1, -1]]
        return torch.stack(scores + [torch.zeros_like(scores[0])] * 3, dim=1)


def predicted(backbone: nn.Module, images: np.ndarray, test_time: TestTime) -> np.ndarray:
    """Probabilities, (N, 7), of a network that sees RGB in [0, 10]."""
    count, size = images.shape[:2]
    config = make_config(size=size, mean=(0.0, 0.0, 0.0), std=(0.1, 0.1, 0.1))
    ids = [f"I{number}" for number in range(count)]
    index = pd.DataFrame({"image_id": ids, "width": size, "height": size, "fit": "squash", "color_constancy": "none"})
    classifier = Classifier(SkinNetwork(backbone, nn.Identity()), config)
    options = {"device": torch.device("cpu"), "batch_size": 2, "test_time": test_time}
    found = predict(classifier, PreparedImages(images, index), index[["image_id"]], **options)
    assert found.logits.dtype == np.float32
    return np.exp(found.log_probabilities)


def numbered(size: int = 10) -> torch.Tensor:
    """One image without any symmetry, (1, 3, size, size)."""
    return torch.arange(3.0 * size * size).view(1, 3, size, size)


def test_every_scheme_begins_with_the_image_itself() -> None:
    assert {name: len(views_of(numbered(), name)) for name in VIEWS} == {"none": 1, "flips": 4, "square": 8, "multi_crop": 6}
    for name in VIEWS:
        assert torch.equal(views_of(numbered(), name)[0], numbered())


def test_the_eight_symmetries_are_different_and_closed() -> None:
    """A group of order 8: any two of them, one after the other, are one of them; and the flips are among them."""
    image = numbered()
    views = {tuple(view.flatten().tolist()) for view in views_of(image, "square")}
    assert len(views) == 8
    for first in views_of(image, "square"):
        assert {tuple(view.flatten().tolist()) for view in views_of(first, "square")} == views
    flips = {tuple(view.flatten().tolist()) for view in views_of(image, "flips")}
    assert len(flips) == 4
    assert flips < views


def test_flips_by_hand() -> None:
    image = torch.tensor([[1.0, 2], [3, 4]]).expand(1, 3, 2, 2)
    views = [view[0, 0].tolist() for view in views_of(image, "flips")]
    assert views == [[[1, 2], [3, 4]], [[2, 1], [4, 3]], [[3, 4], [1, 2]], [[4, 3], [2, 1]]]


def test_crops_are_the_centre_and_the_corners_resized_back() -> None:
    size = 20
    ramp = torch.arange(float(size)).view(1, 1, 1, size).expand(1, 3, size, size)
    side = round(CROP_SHARE * size)
    assert side == 16
    means = [[view[0, 0].mean().item() for view in views_of(image, "multi_crop")] for image in (ramp, ramp.transpose(2, 3))]
    # A crop from column c on has the mean c + 7.5: centre 2, left 0, right 4; of the rows likewise.
    assert means[0] == pytest.approx([9.5, 9.5, 7.5, 11.5, 7.5, 11.5])
    assert means[1] == pytest.approx([9.5, 9.5, 7.5, 7.5, 11.5, 11.5])
    assert all(view.shape == (1, 3, size, size) for view in views_of(ramp, "multi_crop"))
    corner = views_of(ramp, "multi_crop")[2][0, 0, 0]
    expected = np.interp((np.arange(size) + 0.5) * side / size - 0.5, np.arange(side), np.arange(side))  # bilinear
    np.testing.assert_allclose(corner, expected, atol=1e-5)


def test_views_of_a_batch_are_those_of_its_images() -> None:
    batch = torch.rand(3, 3, 16, 16)
    for name in VIEWS:
        for position, view in enumerate(views_of(batch, name)):
            one = torch.cat([views_of(batch[row : row + 1], name)[position] for row in range(3)])
            torch.testing.assert_close(view, one)


@pytest.mark.parametrize("test_time", AUGMENTED[:2])
def test_the_mean_over_views_by_hand(test_time: TestTime) -> None:
    """Red in the top left corner: in an equal share of the views it is in each of the four, so all four are as probable."""
    images = np.zeros((3, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = 51  # 2 of 10
    strong, weak = np.exp(2) / (np.exp(2) + 6), 1 / (np.exp(2) + 6)
    plain = predicted(Corners(), images, "none")
    np.testing.assert_allclose(plain, [[strong] + [weak] * 6] * 3, rtol=1e-5)
    # The probabilities are averaged, not the scores: those would give exp(0.5) / (4 exp(0.5) + 3).
    expected = [[(strong + 3 * weak) / 4] * 4 + [weak] * 3] * 3
    np.testing.assert_allclose(predicted(Corners(), images, test_time), expected, rtol=1e-5)


def test_the_mean_over_crops_by_hand() -> None:
    """A red rim one pixel wide at the left: the whole image and the two left crops see it in their left corners."""
    images = np.zeros((1, 20, 20, 3), dtype=np.uint8)
    images[:, :, 0, 0] = 51
    seen, unseen = 1 / (2 * np.exp(2) + 5), 1 / 7
    left, right = (3 * np.exp(2) * seen + 3 * unseen) / 6, (3 * seen + 3 * unseen) / 6
    np.testing.assert_allclose(predicted(Corners(), images, "multi_crop")[0], [left, right, left] + [right] * 4, rtol=1e-5)
