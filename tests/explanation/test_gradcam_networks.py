"""The stage `gradcam` with ensembles, metadata and several methods, and the networks that it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.raw import image_path
from skinlesion.data.geometry import fit_image
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import write_predictions
from skinlesion.explanation.cam import energy, members
from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.explanation.cam.placing import map_to_original
from skinlesion.model.classifier import load_ensemble, normalize
from stages import gradcam
from tests.conftest import WriteParams, refuses
from tests.explanation import workspace as given
from tests.stage_cases import read_metrics


def test_an_ensemble_shows_the_mean_of_its_members_maps_each_placed_by_its_own_cells(ready: Path) -> None:
    given.make_classifier("resnet18", "squeezenet1_1")
    gradcam.main()
    metrics = read_metrics("gradcam")
    assert metrics["layers"] == {"m0-0": {"layer": "layer2", "cells": [4, 4]}, "m1-0": {"layer": "features.4", "cells": [7, 7]}}
    measured = given.read_plot("energy.csv").set_index("image_id")["energy_ratio"]
    options = MapOptions("GradCAM", torch.device("cpu"), batch_size=1)
    ensemble = load_ensemble()
    places = {"m0-0": given.CENTERS, "m1-0": members.find_layers(ensemble, ["GradCAM"], "auto")["GradCAM"]["m1-0"].centers}
    assert places["m1-0"] != given.CENTERS
    alone = []
    for image_id, _, _, predicted, _ in given.PREDICTED:
        with Image.open(image_path(image_id)) as image:
            square = np.asarray(fit_image(image, size=given.SIZE, fit="squash"))[None]
        maps = {}
        for name, classifier in ensemble.items():
            (values,) = compute_maps(*classifier, square, [CLASSES.index(predicted)], options)
            maps[name] = map_to_original(values, given.WIDTH, given.HEIGHT, size=given.SIZE, fit="squash", centers=places[name])
        mean = (maps["m0-0"] + maps["m1-0"]) / 2
        lesion = given.disc(given.IMAGE_IDS.index(image_id))
        if mean.any():
            assert measured[image_id] == pytest.approx(energy.energy_ratio(mean, lesion), abs=1e-4)
            alone.append([energy.energy_ratio(each, lesion) for each in maps.values()])
    assert len(measured) == len(alone)
    for each in np.transpose(alone):  # nor is it one member's alone
        assert np.nanmax(np.abs(each - measured.to_numpy())) > 0.05


def test_the_mean_of_members_is_strongest_at_one_and_zero_where_all_are_zero() -> None:
    layer = TargetLayer("any", "channels_first", 2, (8.0, 16.0))
    left, right = np.array([[1.0, 0], [1, 0]]), np.array([[0.0, 1], [0, 1]])
    nothing = np.zeros((2, 2))
    pair = [members.MemberMaps(layer, np.stack(maps)) for maps in ([left, left, nothing], [right, nothing, nothing])]
    placed = [members.place_mean(pair, position, 32, 32, size=32, fit="squash") for position in range(3)]
    np.testing.assert_allclose(placed[0], 1)
    expected = members.place_mean(pair[:1], 1, 32, 32, size=32, fit="squash")
    np.testing.assert_allclose(placed[1], expected)
    assert not placed[2].any()
    assert members.count_zero_maps(pair) == 1


def test_title_of_an_ensemble_names_each_network_once(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(gradcam, "write_gallery", lambda *_, title, **__: titles.append(title))
    given.make_classifier("resnet18", "resnet18", "squeezenet1_1")
    gradcam.main()
    networks = "layer layer2, resnet18 and layer features.4, squeezenet1_1"
    assert titles == [f"GradCAM of {networks}, mean of 3 members, split 'test', synthetic images"]


def test_a_network_with_metadata_is_explained_with_each_images_metadata(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = given.make_predictions()
    ages = [None if number == 4 else 20.0 + 5 * number for number in range(len(predictions))]
    predictions = predictions.assign(age=ages, sex=["male", "female"] * 6, localization=["back", "face", "unknown"] * 4)
    write_predictions({"test": predictions})
    given.make_classifier(metadata=True)
    seen = {}
    forward = type(load_ensemble()["m0-0"].model).forward

    def spy(self: nn.Module, images: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        for image, row in zip(images, metadata, strict=True):
            seen[image.numpy().tobytes()] = row.numpy()
        return forward(self, images, metadata)

    monkeypatch.setattr("skinlesion.model.network.SkinNetwork.forward", spy)
    titles = []
    monkeypatch.setattr(gradcam, "write_gallery", lambda *_, title, **__: titles.append(title))
    gradcam.main()
    assert titles == ["GradCAM of layer layer2, resnet18 with metadata, split 'test', synthetic images"]
    prepared, config = read_prepared(), load_ensemble()["m0-0"].config
    expected = encode_metadata(predictions)
    for position in range(len(predictions)):
        row = prepared.rows_of([given.IMAGE_IDS[position]])
        key = normalize(torch.from_numpy(prepared.images[row]), config)[0].numpy().tobytes()
        np.testing.assert_array_equal(seen[key], expected[position])


def test_several_methods_are_measured_and_the_first_is_drawn(ready: Path, write_params: WriteParams) -> None:
    methods = {"gradcam.methods": ["LayerCAM", "GradCAM", "Occlusion"], "gradcam.perturbation_images": 4}
    write_params(given.SHOW_ONLY_MISSES | methods | {"gradcam.faithfulness_images": 9, "gradcam.deletion_steps": 3})
    gradcam.main()
    metrics = read_metrics("gradcam")
    assert (metrics["method"], metrics["images"], metrics["maps"]) == ("LayerCAM", 12, 9)
    found = metrics["faithfulness"]
    assert {name: each["images"] for name, each in found["methods"].items()} == {"LayerCAM": 9, "GradCAM": 9, "Occlusion": 4}
    assert found["compared"]["images"] == 4
    assert found["methods"]["Occlusion"]["layers"]["m0-0"]["layer"] == "image"
    assert list(given.read_plot("groups.csv")["method"].unique()) == ["LayerCAM"]
    assert list(given.read_plot("faithfulness.csv")["method"].unique()) == ["LayerCAM", "GradCAM", "Occlusion"]
    assert len(given.read_plot("curves.csv")) == 2 * 4 * 5
    images = given.read_plot("images.csv")
    value = found["methods"]["GradCAM"]["measures"]["deletion"]["value"]
    assert images[images["method"] == "GradCAM"]["deletion"].mean() == pytest.approx(value, abs=1e-5)


def test_what_a_member_lacks_is_refused_first(ready: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    given.make_classifier("resnet18", "squeezenet1_1")
    write_params(given.SHOW_ONLY_MISSES | {"gradcam.layer": "layer2"})
    monkeypatch.setattr(members, "compute_maps", lambda *_, **__: pytest.fail("an image was explained"))
    refuses(r"SqueezeNet has no layer 'layer2'.*\(GradCAM, layer 'layer2', of member 'm1-0'; each of the 2", gradcam.main)


def test_one_split_is_explained(ready: Path, write_params: WriteParams) -> None:
    few = given.make_predictions().iloc[:8]
    write_predictions({"val": few, "test": given.make_predictions()})
    write_params(given.SHOW_ONLY_MISSES | {"gradcam.split": "val"})
    gradcam.main()
    metrics = read_metrics("gradcam")
    assert (metrics["images"], metrics["faithfulness"]["split"]) == (8, "val")
    assert set(given.read_plot("images.csv")["image_id"]) == set(few["image_id"])
