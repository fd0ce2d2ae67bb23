"""The measures of faithfulness together, of networks whose evidence is known: planted in the lesion, or in the middle."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.raw import mask_path
from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam import faithfulness, summary, tables
from skinlesion.explanation.cam.faithfulness import FIGURES, Faithfulness, measure_methods
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.explanation.cam.randomization import DEPTHS
from skinlesion.explanation.cam.subject import Subject
from skinlesion.model.classifier import Classifier, normalize
from skinlesion.model.network import SkinNetwork
from tests.conftest import resamples
from tests.model.classifier_cases import make_config, make_network

HOW = resamples(1000)
SIZE, IMAGES = 32, 24
OPTIONS = MapOptions("GradCAM", torch.device("cpu"), "features", batch_size=8)


class RedNet(nn.Module):
    """Scores of seven classes: the first two rise and fall with what is more than half red, the others are nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.head = nn.Linear(4, len(CLASSES), bias=False)
        with torch.no_grad():
            self.features[0].weight.zero_()
            self.features[0].weight[0, 0], self.features[0].weight[1, 2] = 1, 1
            self.features[0].bias.fill_(-0.5)
            self.head.weight.zero_()
            self.head.weight[0, 0], self.head.weight[1, 0] = 100, -100

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, size, size) to (N, 7)."""
        return self.head(self.features(images).mean(dim=(2, 3)))


def lesion_of(number: int) -> np.ndarray:
    """A disc in another corner for each image, never in the middle; bool (SIZE, SIZE)."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    corner = [(7, 7), (7, 24), (24, 7), (24, 24)][number % 4]
    return (rows - corner[0]) ** 2 + (columns - corner[1]) ** 2 < 20


def make_subject(workspace: Path, *, red: str = "lesion", **overrides: Any) -> Subject:
    """Grey images with masks, red where the lesion or the middle is, and a network that sees red alone."""
    images = np.full((IMAGES, SIZE, SIZE, 3), 40, dtype=np.uint8)
    middle = np.hypot(*(np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2)) < 5
    mask_path("x").parent.mkdir(parents=True, exist_ok=True)
    for number in range(IMAGES):
        images[number, lesion_of(number) if red == "lesion" else middle, 0] = 250 - 4 * number
        Image.fromarray(lesion_of(number).astype(np.uint8) * 255).save(mask_path(f"I{number:02d}"))
    table = pd.DataFrame({"image_id": [f"I{number:02d}" for number in range(IMAGES)], "row": np.arange(IMAGES)[::-1]})
    table["lesion_id"] = [f"L{number // 2}" for number in range(IMAGES)]
    table = table.assign(dx="akiec", predicted=CLASSES[0], outcome="correct", width=SIZE, height=SIZE)
    table = table.assign(age=50.0, sex="male", localization="back")
    config = make_config("resnet18", size=SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    members = {"base-0": Classifier(SkinNetwork(RedNet(), nn.Identity()), config)}
    return Subject(**{"members": members, "images": images[::-1], "table": table, "options": OPTIONS} | overrides)


def measure_one(subject: Subject, method: str = "GradCAM", **overrides: Any) -> Faithfulness:
    """Of one method, every image."""
    options = {"images": None, "perturbation_images": IMAGES, "steps": 8} | overrides
    return measure_methods(subject, (method,), **options)[method]


def test_a_map_of_what_the_network_sees_beats_every_control(workspace: Path) -> None:
    subject = make_subject(workspace)
    measured = measure_one(subject)
    figures = measured.figures
    assert list(figures.columns) == list(FIGURES)
    assert len(figures) == IMAGES
    np.testing.assert_allclose(figures["energy"], 1 / lesion_of(0).mean())  # all of the map's energy is on the lesion
    assert (figures["pointing"] == 1).all()
    assert (figures["pointing_center"] == 0).all()
    np.testing.assert_allclose(figures["flip"], 1, atol=1e-6)
    found = summary.summarize({"GradCAM": measured}, subject.table, HOW)
    for measure, control in (("energy", "other"), ("pointing", "center")):
        assert found["methods"]["GradCAM"]["measures"][measure][control]["verdict"] == "better"
    for measure in ("deletion", "insertion"):
        for control in ("random", "center"):
            against = found["methods"]["GradCAM"]["measures"][measure][control]
            assert against["verdict"] == "better"
            assert abs(against["difference"]) > 0.1
    assert found["methods"]["GradCAM"]["by_class"]["akiec"]["images"] == IMAGES
    assert found["methods"]["GradCAM"]["by_class"]["mel"]["measures"]["energy"]["value"] is None
    assert found["methods"]["GradCAM"]["by_outcome"]["wrong"]["images"] == 0
    assert found["compared"] is None


def test_a_network_that_looks_at_the_middle_does_not_beat_the_centre(workspace: Path) -> None:
    subject = make_subject(workspace, red="middle")
    measured = measure_one(subject)
    found = summary.summarize({"GradCAM": measured}, subject.table, HOW)["methods"]["GradCAM"]["measures"]
    assert found["pointing"]["center"]["verdict"] == "undecided"  # neither ever hits
    assert found["energy"]["value"] < 1
    for measure in ("deletion", "insertion"):
        gain = {control: abs(found[measure][control]["difference"]) for control in ("center", "random")}
        assert gain["center"] < 0.02
        assert gain["random"] > 0.1


def test_deletion_recomputed_image_by_image(workspace: Path) -> None:
    """The area of one image, from its pixels: the reddest patches become the mean colour."""
    subject = make_subject(workspace)
    measured = measure_one(subject, steps=4)
    model, _ = subject.members["base-0"]
    image = subject.images[subject.table["row"][3]].astype(np.float64)
    redness = image[..., 0].reshape(16, 2, 16, 2).mean(axis=(1, 3))
    order = np.argsort(-redness.ravel(), kind="stable")
    probabilities = []
    for step in range(5):
        altered = image.copy()
        for patch in order[: 64 * step]:
            row, column = divmod(patch, 16)
            altered[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = np.round(image.mean(axis=(0, 1)))
        logits = model(torch.from_numpy(altered.transpose(2, 0, 1)[None]).float() / 255)
        probabilities.append(logits.softmax(dim=1)[0, 0].item())
    np.testing.assert_allclose(measured.curves["map"][0][3], probabilities, atol=1e-5)
    expected = np.trapezoid(probabilities, dx=0.25)
    assert measured.figures["deletion"][3] == pytest.approx(expected, abs=1e-5)


def test_shuffled_networks_are_forgotten_and_the_trained_one_is_left_alone(workspace: Path) -> None:
    config = make_config("resnet18", size=SIZE)
    model = make_network(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    subject = make_subject(workspace, members={"base-0": Classifier(model, config)}, options=replace(OPTIONS, layer="layer2"))
    subject = subject.some(np.arange(8))
    measured = measure_one(subject)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert abs(measured.figures["shuffled"].mean()) < 0.5
    assert measured.figures["shuffled head"].notna().any()
    again = measure_one(subject)
    pd.testing.assert_frame_equal(measured.figures, again.figures)


def test_methods_are_compared_on_the_same_images(workspace: Path) -> None:
    subject = make_subject(workspace)
    measured = measure_methods(subject, ("GradCAM", "ScoreCAM", "Occlusion"), images=16, perturbation_images=6, steps=4)
    assert {name: len(one.positions) for name, one in measured.items()} == {"GradCAM": 16, "ScoreCAM": 6, "Occlusion": 6}
    few = measured["ScoreCAM"].positions
    assert set(few) < set(measured["GradCAM"].positions)
    found = summary.summarize(measured, subject.table, HOW)
    assert found["compared"]["images"] == 6
    assert found["methods"]["GradCAM"]["images"] == 16
    chosen = np.searchsorted(measured["GradCAM"].positions, few)
    expected = measured["GradCAM"].figures["deletion"].to_numpy()[chosen].mean()
    assert found["compared"]["methods"]["GradCAM"]["deletion"]["value"] == pytest.approx(expected)
    # What maps are held against is computed once, and is the same for every method on the same images.
    one, other = (measured[method].figures["deletion_center"].to_numpy() for method in ("GradCAM", "ScoreCAM"))
    np.testing.assert_array_equal(one[chosen], other)
    assert measured["ScoreCAM"].figures["shuffled head"].isna().all()  # of perturbation, the whole network alone
    curves = tables.curves_table(measured)
    assert set(curves["order"]) == {"GradCAM", "ScoreCAM", "Occlusion", "random", "center"}
    first = curves[(curves["order"] == "GradCAM") & (curves["curve"] == "insertion")]
    np.testing.assert_allclose(first["probability"], measured["GradCAM"].curves["map"][1][chosen].mean(axis=0))
    assert list(first["share"]) == [0, 0.25, 0.5, 0.75, 1]
    drawn = tables.measures_table(found)
    every = drawn[(drawn["grouping"] == "all") & (drawn["of"] == "map") & (drawn["measure"] == "energy")]
    assert list(every["images"]) == [16, 6, 6]
    sanity = tables.sanity_table(found)
    assert list(sanity[sanity["method"] == "ScoreCAM"]["compared_with"]) == ["mirrored image", "all layers"]
    images = tables.images_table(measured, subject.table)
    assert list(images.columns) == list(tables.IMAGE_COLUMNS)
    assert len(images) == 28
    for method, one in measured.items():
        rows = images[images["method"] == method]
        assert list(rows["image_id"]) == list(subject.table["image_id"].iloc[one.positions])
        np.testing.assert_allclose(rows["energy"], one.figures["energy"])


def test_ensembles_and_metadata(workspace: Path) -> None:
    """The probability that falls is the members' mean, of each image's own diagnosis and with its own metadata."""
    configs = [make_config("resnet18", size=SIZE, member=f"m{n}", metadata=n == 1) for n in range(2)]
    members = {config.name: Classifier(make_network(config, seed=n), config) for n, config in enumerate(configs)}
    subject = make_subject(workspace, members=members, options=replace(OPTIONS, layer="layer2")).some(np.arange(8))
    subject.table["predicted"] = [*CLASSES, "nv"]
    subject.table["age"] = 10.0 + 10 * np.arange(8)
    metadata = torch.from_numpy(encode_metadata(subject.table))
    batch = torch.from_numpy(np.array(subject.images[subject.table["row"]]))
    alone = []
    for model, config in members.values():
        with torch.no_grad():
            alone.append(model(normalize(batch, config), metadata).softmax(dim=1).numpy())
    expected = np.mean(alone, axis=0)[np.arange(8), [CLASSES.index(dx) for dx in subject.table["predicted"]]]
    np.testing.assert_allclose(measure_one(subject).curves["map"][0][:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(subject.score()(batch[5:7], np.array([5, 6])), expected[5:7], atol=1e-5)


def test_batch_norms_of_every_shuffled_network_are_renewed(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed: list[int] = []
    monkeypatch.setattr(faithfulness, "renew_batch_norm", lambda _, batches, **__: renewed.append(len(list(batches))))
    measure_one(make_subject(workspace).some(np.arange(6)), steps=2)
    assert renewed == [1] * len(DEPTHS)
