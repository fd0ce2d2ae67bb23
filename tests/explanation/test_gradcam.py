"""The stage `gradcam` on a small workspace: its cases, its figures recomputed, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.patients import encode_metadata
from skinlesion.artifacts.prepared import PREPARED, Fit, read_prepared
from skinlesion.artifacts.raw import RAW, image_path, mask_path
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import read_json, write_json
from skinlesion.data.geometry import fit_image
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import write_predictions
from skinlesion.explanation.cam import energy, gallery, members
from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.explanation.cam.placing import crop_to_square, map_to_original
from skinlesion.model.classifier import load_ensemble, normalize
from stages import gradcam
from tests.conftest import WriteParams, resamples
from tests.model.classifier_cases import make_config, make_network, save_ensemble

HOW = resamples(1000)
SIZE, WIDTH, HEIGHT = 32, 44, 33
CENTERS = (0.5, 8.0)  # of layer2's cells in resnet18: stride 8, from the first pixel's centre

# image_id, lesion_id, truth, prediction, its probability
PREDICTED = [
    ("ISIC_01", "L1", "mel", "mel", 0.90),
    ("ISIC_02", "L1", "mel", "nv", 0.50),
    ("ISIC_03", "L2", "mel", "bkl", 0.70),
    ("ISIC_04", "L3", "nv", "nv", 0.80),
    ("ISIC_05", "L3", "nv", "nv", 0.95),
    ("ISIC_06", "L4", "nv", "mel", 0.99),
    ("ISIC_08", "L5", "bkl", "nv", 0.60),
    ("ISIC_07", "L5", "bkl", "nv", 0.60),
    ("ISIC_09", "L6", "nv", "nv", 0.95),
    ("ISIC_10", "L7", "df", "df", 0.40),
    ("ISIC_11", "L8", "bcc", "bcc", 0.65),
    ("ISIC_12", "L9", "vasc", "akiec", 0.85),
]
IMAGE_IDS = [row[0] for row in PREDICTED]
TABLES = {f"{name}.csv" for name in ("cases", "energy", "faithfulness", "groups", "curves", "sanity", "images")}
OUTPUTS = {"gradcam.json", "index.png", "index.html"} | TABLES
SHOW_ONLY_MISSES = {
    "machine.device": "cpu",
    "gradcam.deletion_steps": 2,
    "gradcam.confident_errors": 0,
    "gradcam.unsure_correct": 0,
    "gradcam.typical_correct": 0,
}


def make_predictions() -> pd.DataFrame:
    """`PREDICTED` as a prediction table; what the predicted class leaves is shared by the others."""
    frame = pd.DataFrame([row[:3] for row in PREDICTED], columns=["image_id", "lesion_id", "dx"])
    frame = frame.assign(age=50.0, sex="male", localization="back", dx_type="histo")
    probabilities = np.array(
        [[p if dx == predicted else (1 - p) / (len(CLASSES) - 1) for dx in CLASSES] for *_, predicted, p in PREDICTED]
    )
    frame[list(LOGIT_COLUMNS)] = np.log(probabilities)
    frame[list(PROBABILITY_COLUMNS)] = probabilities
    return frame


def make_classifier(*backbones: str, fit: Fit = "squash", **overrides: Any) -> None:
    """Save networks with seeded random weights, members m0-0, m1-0, ... of an ensemble; one resnet18 by default."""
    configs = [
        make_config(name, member=f"m{number}", size=SIZE, fit=fit, **overrides)
        for number, name in enumerate(backbones or ("resnet18",))
    ]
    save_ensemble((make_network(config, seed=number), config) for number, config in enumerate(configs))


def disc(number: int) -> np.ndarray:
    """The lesion of an image: a disc that wanders with `number`, bool (HEIGHT, WIDTH)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - 14 - number) ** 2 + (rows - 16) ** 2 < (5 + number / 3) ** 2


def write_mask(image_id: str, lesion: np.ndarray) -> None:
    """Save a mask where `download` would."""
    path = mask_path(image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(lesion.astype(np.uint8) * 255).save(path)


def make_workspace(fit: Fit, *, masks: bool = True) -> None:
    """Everything that the stage reads but `params.yaml`, from 12 images of noise with a dark disc."""
    squares = []
    for number, image_id in enumerate(IMAGE_IDS):
        pixels = np.random.default_rng(number).integers(150, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        pixels[disc(number)] //= 3
        path = image_path(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        squares.append(np.asarray(fit_image(Image.open(path), size=SIZE, fit=fit)))
        if masks:
            write_mask(image_id, disc(number))
    provenance = {"source": "sample", "synthetic": True, "licence": "CC0-1.0", "counts": {}}
    write_json(RAW / "provenance.json", provenance)
    order = np.arange(len(IMAGE_IDS))[::-1]  # not that of the predictions
    PREPARED.mkdir(parents=True)
    np.save(PREPARED / "images.npy", np.stack(squares)[order])
    index = pd.DataFrame({"image_id": np.array(IMAGE_IDS)[order], "width": WIDTH, "height": HEIGHT, "fit": fit})
    index["color_constancy"] = "none"
    index.to_csv(PREPARED / "index.csv", index=False)
    write_predictions({"test": make_predictions()})
    make_classifier(fit=fit)


@pytest.fixture
def ready(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace in which the stage can run, on the CPU, drawing no more than it must."""
    write_params(SHOW_ONLY_MISSES)
    make_workspace("squash")
    return workspace


def outputs() -> dict[str, str]:
    """sha256 of every file that the stage wrote."""
    files = [METRICS / "gradcam.json", *(PLOTS / "gradcam").iterdir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_metrics() -> dict[str, Any]:
    return read_json(METRICS / "gradcam.json")


def read_plot(name: str) -> pd.DataFrame:
    return pd.read_csv(PLOTS / "gradcam" / name)


def stub_maps(monkeypatch: pytest.MonkeyPatch, maps: np.ndarray) -> None:
    """Have these maps, in the order of `PREDICTED`, in place of computed ones."""
    rows = np.arange(len(IMAGE_IDS))[::-1]  # of the images in the prepared array
    monkeypatch.setattr(members, "compute_maps", lambda *_, **options: maps[[list(rows).index(row) for row in options["rows"]]])


def test_outputs(ready: Path, write_params: WriteParams) -> None:
    write_params({"machine.device": "cpu"})
    gradcam.main()
    pages = {f"{dx}_1.png" for dx in ("mel", "nv", "bkl", "df", "bcc", "vasc")}
    assert set(outputs()) == OUTPUTS | pages
    metrics = read_metrics()
    assert (metrics["method"], metrics["layers"]) == ("GradCAM", {"m0-0": {"layer": "layer2", "cells": [4, 4]}})
    assert (metrics["images"], metrics["maps"], metrics["images_with_mask"]) == (12, 12, 12)
    assert (metrics["images_with_empty_mask"], metrics["images_without_ratio"]) == (0, metrics["zero_maps"])
    shown = read_plot("cases.csv")
    columns = ["position", "image_id", "lesion_id", "dx", "predicted", "probability", "probability_true", "kind", "page"]
    assert list(shown.columns) == columns
    # Missed melanomas, other errors (a tie at 0.60), then the six correct ones, all of which are among the least confident.
    expected = [3, 2, 6, 12, 7, 8, 10, 11, 4, 1, 5, 9]
    assert list(shown["image_id"]) == [f"ISIC_{number:02d}" for number in expected]
    assert list(shown["kind"]) == ["missed melanoma"] * 2 + ["confident error"] * 4 + ["unsure correct"] * 6
    assert list(shown["position"]) == list(range(1, 13))
    assert shown.loc[0, ["lesion_id", "dx", "predicted", "probability"]].tolist() == ["L2", "mel", "bkl", 0.7]
    assert shown.loc[0, "probability_true"] == pytest.approx(0.05)
    assert list(shown["page"]) == [f"{dx}_1.png" for dx in shown["dx"]]


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_energy_ratio_recomputed(workspace: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch, fit: Fit) -> None:
    write_params(SHOW_ONLY_MISSES)
    make_workspace(fit)
    generator = np.random.default_rng(3)
    maps = generator.random((12, 4, 4)).astype(np.float32)
    stub_maps(monkeypatch, maps)
    gradcam.main()
    expected = []
    for number, values in enumerate(maps):
        placed = map_to_original(values, WIDTH, HEIGHT, size=SIZE, fit=fit, centers=CENTERS)
        seen = np.ones((HEIGHT, WIDTH), dtype=bool)
        if fit == "crop":  # from 5.5 to 38.5 of the width: the pixels whose centres lie there are 5 to 38
            seen[:, :5] = seen[:, 39:] = False
        inside = sum(placed[y, x] for y, x in np.argwhere(disc(number) & seen))
        expected.append(inside / placed[seen].sum() / (disc(number)[seen].sum() / seen.sum()))
    ratios = read_plot("energy.csv")
    assert list(ratios.columns) == ["image_id", "dx", "outcome", "energy_ratio"]
    assert list(ratios["image_id"]) == IMAGE_IDS
    np.testing.assert_allclose(ratios["energy_ratio"], expected, atol=1e-6)
    wrong = [row[2] != row[3] for row in PREDICTED]
    assert list(ratios["outcome"]) == ["wrong" if is_wrong else "correct" for is_wrong in wrong]
    metrics = read_metrics()
    assert metrics["energy_ratio"]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert metrics["energy_ratio"]["median"] == pytest.approx(np.median(expected), abs=1e-6)
    assert metrics["energy_ratio"]["low"] < np.mean(expected) < metrics["energy_ratio"]["high"]
    wrong_median = float(np.median(np.array(expected)[wrong]))
    assert metrics["by_outcome"]["wrong"] == {"images": 6, "median": pytest.approx(wrong_median, abs=1e-6)}
    assert metrics["by_class"]["df"] == {"images": 1, "median": pytest.approx(expected[9], abs=1e-6)}
    assert metrics["by_class"]["akiec"] == {"images": 0, "median": None}


def test_each_image_gets_its_own_map_of_its_predicted_class(ready: Path) -> None:
    """One image at a time, from its file: the ratio that the stage reports for it."""
    gradcam.main()
    measured = read_plot("energy.csv").set_index("image_id")["energy_ratio"]
    assert len(measured) >= 6
    model, config = load_ensemble()["m0-0"]
    options = MapOptions("GradCAM", torch.device("cpu"), "layer2", batch_size=1)
    for number, (image_id, _, _, predicted, _) in enumerate(PREDICTED):
        with Image.open(image_path(image_id)) as image:
            square = np.asarray(fit_image(image, size=SIZE, fit="squash"))
        (values,) = compute_maps(model, config, square[None], [CLASSES.index(predicted)], options)
        if image_id in measured:
            placed = map_to_original(values, WIDTH, HEIGHT, size=SIZE, fit="squash", centers=CENTERS)
            assert measured[image_id] == pytest.approx(energy.energy_ratio(placed, disc(number)), abs=1e-4)
        else:
            assert not values.any()


def test_equal_input_gives_equal_bytes_and_leaves_nothing_behind(ready: Path) -> None:
    gradcam.main()
    first = outputs()
    (PLOTS / "gradcam" / "mel_2.png").write_bytes(b"of an earlier run")
    gradcam.main()
    assert outputs() == first
    assert not list(ready.rglob("*.partial"))
    text = (METRICS / "gradcam.json").read_text(encoding="utf-8")
    assert "NaN" not in text and str(ready) not in text
    assert list(json.loads(text))[:3] == ["method", "layers", "images"]


def test_params_reach_the_maps(ready: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(gallery, "draw_pages", lambda *_, title: titles.append(title))
    gradcam.main()
    before = read_plot("energy.csv")["energy_ratio"]
    write_params(SHOW_ONLY_MISSES | {"machine.batch_size": 20})
    gradcam.main()
    np.testing.assert_allclose(read_plot("energy.csv")["energy_ratio"], before, atol=1e-4)
    write_params(
        {"machine.device": "cpu", "gradcam.methods": ["LayerCAM"], "gradcam.layer": "layer1"}
        | {"gradcam.confident_errors": 1, "gradcam.unsure_correct": 1, "gradcam.typical_correct": 1}
    )
    provenance = {"source": "local", "synthetic": False, "licence": "CC BY-NC 4.0", "counts": {}}
    write_json(RAW / "provenance.json", provenance)
    gradcam.main()
    metrics = read_metrics()
    assert (metrics["method"], metrics["layers"]) == ("LayerCAM", {"m0-0": {"layer": "layer1", "cells": [8, 8]}})
    # Of the nevi 0.95 is the median, which two images have; the only dermatofibroma is shown as unsure.
    assert list(read_plot("cases.csv")["image_id"]) == [f"ISIC_{number:02d}" for number in (3, 2, 6, 10, 1, 11, 5)]
    assert titles[0] == "GradCAM of layer layer2, resnet18, split 'test', synthetic images"
    assert titles[-1] == "LayerCAM of layer layer1, resnet18, split 'test'"


def test_without_masks(workspace: Path, write_params: WriteParams, caplog: pytest.LogCaptureFixture) -> None:
    write_params(SHOW_ONLY_MISSES)
    make_workspace("squash", masks=False)
    nothing_missed = make_predictions().query("image_id not in ['ISIC_02', 'ISIC_03']").reset_index(drop=True)
    write_predictions({"test": nothing_missed})
    with caplog.at_level("INFO"):
        gradcam.main()
    metrics = read_metrics()
    assert (metrics["maps"], metrics["images_with_mask"]) == (10, 0)
    measures = metrics["faithfulness"]["methods"]["GradCAM"]["measures"]
    assert {measures[name]["value"] for name in ("energy", "pointing")} == {None}
    assert measures["deletion"]["images"] == measures["insertion"]["images"] == 10
    assert {metrics[name] for name in ("bootstrap", "energy_ratio", "by_class", "by_outcome")} == {None}
    assert "no lesion masks in data/raw: the energy ratio is not measured" in caplog.text
    assert read_plot("energy.csv").empty
    assert read_plot("cases.csv").empty
    assert set(outputs()) == OUTPUTS
    assert "No case to show: no melanoma of the split was missed" in (PLOTS / "gradcam" / "index.html").read_text("utf-8")


def test_some_masks_are_missing_or_empty(ready: Path, write_params: WriteParams, caplog: pytest.LogCaptureFixture) -> None:
    write_params(SHOW_ONLY_MISSES | {"gradcam.confident_errors": 2})
    mask_path("ISIC_12").unlink()
    mask_path("ISIC_04").unlink()
    write_mask("ISIC_05", np.zeros((HEIGHT, WIDTH), dtype=bool))
    gradcam.main()
    metrics = read_metrics()
    assert (metrics["images_with_mask"], metrics["images_with_empty_mask"]) == (10, 1)
    assert metrics["maps"] == 12  # deletion, insertion and what follows need no mask
    assert metrics["faithfulness"]["methods"]["GradCAM"]["measures"]["pointing"]["images"] == 9 - metrics["zero_maps"]
    assert "1 mask(s) have no lesion pixel where the network looks: left out of the energy ratio" in caplog.text
    assert not {"ISIC_04", "ISIC_05", "ISIC_12"} & set(read_plot("energy.csv")["image_id"])


def test_zero_maps_are_counted(ready: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    maps = np.ones((12, 4, 4), dtype=np.float32)
    maps[[2, 7]] = 0
    stub_maps(monkeypatch, maps)
    gradcam.main()
    metrics = read_metrics()
    assert (metrics["zero_maps"], metrics["images_without_ratio"], len(read_plot("energy.csv"))) == (2, 2, 10)
    assert metrics["energy_ratio"] == pytest.approx({"mean": 1, "median": 1, "low": 1, "high": 1}, abs=1e-6)
    assert "2 of 12 maps are zero" in caplog.text


def test_mask_of_another_size(ready: Path) -> None:
    write_mask("ISIC_06", np.ones((HEIGHT, WIDTH + 1), dtype=bool))
    with pytest.raises(PipelineError, match=r"ISIC_06_segmentation.png is 45 x 33 pixels and its image 44 x 33: masks must"):
        gradcam.main()
    assert not (METRICS / "gradcam.json").exists()
    assert not (PLOTS / "gradcam").exists()


def test_damaged_mask_and_image(ready: Path, write_params: WriteParams) -> None:
    write_params(SHOW_ONLY_MISSES | {"gradcam.confident_errors": 1})  # ISIC_06
    mask = mask_path("ISIC_06")
    whole = mask.read_bytes()
    mask.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match=r"mask .*ISIC_06_segmentation.png is not readable .*run `download` again"):
        gradcam.main()
    mask.write_bytes(whole)
    image = image_path("ISIC_06")
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(PipelineError, match=r"image .*ISIC_06.jpg is not readable .*run `download` again"):
        gradcam.main()
    Image.new("RGB", (WIDTH, HEIGHT + 2)).save(image)
    with pytest.raises(PipelineError, match=r"ISIC_06.jpg has changed its size since `prepare`: run `prepare` again"):
        gradcam.main()


def test_inputs_that_do_not_belong_together(ready: Path) -> None:
    for other in ({"fit": "crop"}, {"color_constancy": "shades_of_gray"}):
        make_classifier(**other)
        ((key, value),) = other.items()
        with pytest.raises(
            PipelineError, match=rf"prepared at 32 px with fit 'squash', color_constancy 'none', .* trained at .*{key} '{value}'"
        ):
            gradcam.main()
    make_classifier()
    stranger = make_predictions()
    stranger.loc[3, "image_id"] = "ISIC_99"
    write_predictions({"test": stranger})
    with pytest.raises(PipelineError, match="image ISIC_99 is listed in a split and was not prepared"):
        gradcam.main()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("data/predictions/test.csv", "data/predictions/test.csv not found: run"),
        ("data/prepared/images.npy", "data/prepared/images.npy not found: run `prepare` first"),
        ("data/raw/provenance.json", "data/raw/provenance.json not found: run"),
        ("models/classifier/m0-0/weights.safetensors", "weights.safetensors not found: run `train` first"),
        ("models/classifier/ensemble.json", "ensemble.json not found: run"),
    ],
)
def test_missing_input_ends_the_stage_with_one_message(
    ready: Path, monkeypatch: pytest.MonkeyPatch, missing: str, message: str
) -> None:
    Path(missing).unlink()
    monkeypatch.setattr(sys, "argv", ["gradcam"])
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        run_stage(gradcam.main)


def test_unknown_layer_of_the_params(ready: Path, write_params: WriteParams) -> None:
    write_params({"machine.device": "cpu", "gradcam.layer": "layer22"})
    with pytest.raises(PipelineError, match=r"gradcam.layer: ResNet has no layer 'layer22'; nearest: layer2"):
        gradcam.main()


def placed_by_hand(values: np.ndarray, centers: tuple[float, float]) -> np.ndarray:
    """A member's map on the original's pixels."""
    return map_to_original(values, WIDTH, HEIGHT, size=SIZE, fit="squash", centers=centers)


def test_an_ensemble_shows_the_mean_of_its_members_maps_each_placed_by_its_own_cells(ready: Path) -> None:
    make_classifier("resnet18", "squeezenet1_1")
    gradcam.main()
    metrics = read_metrics()
    assert metrics["layers"] == {"m0-0": {"layer": "layer2", "cells": [4, 4]}, "m1-0": {"layer": "features.4", "cells": [7, 7]}}
    measured = read_plot("energy.csv").set_index("image_id")["energy_ratio"]
    options = MapOptions("GradCAM", torch.device("cpu"), batch_size=1)
    ensemble = load_ensemble()
    places = {"m0-0": CENTERS, "m1-0": members.find_layers(ensemble, ["GradCAM"], "auto")["GradCAM"]["m1-0"].centers}
    assert places["m1-0"] != CENTERS
    alone = []
    for image_id, _, _, predicted, _ in PREDICTED:
        with Image.open(image_path(image_id)) as image:
            square = np.asarray(fit_image(image, size=SIZE, fit="squash"))[None]
        maps = {
            name: placed_by_hand(compute_maps(*classifier, square, [CLASSES.index(predicted)], options)[0], places[name])
            for name, classifier in ensemble.items()
        }
        mean = (maps["m0-0"] + maps["m1-0"]) / 2
        lesion = disc(IMAGE_IDS.index(image_id))
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
    make_classifier("resnet18", "resnet18", "squeezenet1_1")
    gradcam.main()
    networks = "layer layer2, resnet18 and layer features.4, squeezenet1_1"
    assert titles == [f"GradCAM of {networks}, mean of 3 members, split 'test', synthetic images"]


def test_a_layer_that_one_member_lacks_is_refused_by_name(ready: Path, write_params: WriteParams) -> None:
    make_classifier("resnet18", "squeezenet1_1")
    write_params({"machine.device": "cpu", "gradcam.layer": "layer2"})
    with pytest.raises(
        PipelineError, match=r"SqueezeNet has no layer 'layer2'.*\(GradCAM, layer 'layer2', of member 'm1-0'; each of the 2"
    ):
        gradcam.main()


def test_a_network_with_metadata_is_explained_with_each_images_metadata(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = make_predictions()
    ages = [None if number == 4 else 20.0 + 5 * number for number in range(len(predictions))]
    predictions = predictions.assign(age=ages, sex=["male", "female"] * 6, localization=["back", "face", "unknown"] * 4)
    write_predictions({"test": predictions})
    make_classifier(metadata=True)
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
        row = prepared.rows_of([IMAGE_IDS[position]])
        key = normalize(torch.from_numpy(prepared.images[row]), config)[0].numpy().tobytes()
        np.testing.assert_array_equal(seen[key], expected[position])


def test_energy_ratio_by_hand() -> None:
    placed = np.array([[1.0, 0.0], [1.0, 2.0]])
    top_left, bottom_right = np.array([[True, False], [False, False]]), np.array([[False, False], [False, True]])
    assert energy.energy_ratio(placed, top_left) == 1  # 1/4 of the energy on 1/4 of the area
    assert energy.energy_ratio(placed, bottom_right) == 2
    assert energy.energy_ratio(placed, top_left | bottom_right) == 1.5  # 3/4 on 1/2
    assert energy.energy_ratio(np.full((2, 2), 0.3), bottom_right) == pytest.approx(1)
    assert np.isnan(energy.energy_ratio(np.zeros((2, 2)), top_left))
    assert np.isnan(energy.energy_ratio(placed, np.zeros((2, 2), dtype=bool)))


@pytest.mark.parametrize(
    ("fit", "rows", "columns"),
    [("squash", slice(0, 150), slice(0, 200)), ("crop", slice(0, 150), slice(25, 175)), ("pad", slice(0, 150), slice(0, 200))],
)
def test_crop_to_square(fit: Fit, rows: slice, columns: slice) -> None:
    values = np.random.default_rng(0).random((150, 200))
    np.testing.assert_array_equal(crop_to_square(values, size=64, fit=fit), values[rows, columns])
    np.testing.assert_array_equal(crop_to_square(values.T, size=64, fit=fit), values.T[columns, rows])


def test_interval_is_over_lesions_not_images() -> None:
    """One lesion with ten images has no spread over lesions, however much its images differ."""
    table = pd.DataFrame({"lesion_id": "L1", "dx": "nv", "outcome": "correct", "energy_ratio": np.arange(10.0)})
    assert energy.summarize_energy(table, HOW)["energy_ratio"] == {"mean": 4.5, "median": 4.5, "low": 4.5, "high": 4.5}
    summary = energy.summarize_energy(table.assign(lesion_id=[f"L{number}" for number in range(10)]), HOW)
    assert summary["bootstrap"] == {"draws": 1000, "unit": "lesion", "confidence": 0.95, "seed": 0}
    spread = summary["energy_ratio"]
    # The mean of 10 of 0..9 has a standard error of 0.91: about 4.5 +- 1.78.
    assert (spread["low"], spread["high"]) == (pytest.approx(2.7, abs=0.25), pytest.approx(6.3, abs=0.25))


def test_one_split_is_explained(ready: Path, write_params: WriteParams) -> None:
    few = make_predictions().iloc[:8]
    write_predictions({"val": few, "test": make_predictions()})
    write_params(SHOW_ONLY_MISSES | {"gradcam.split": "val"})
    gradcam.main()
    metrics = read_metrics()
    assert (metrics["images"], metrics["faithfulness"]["split"]) == (8, "val")
    assert set(read_plot("images.csv")["image_id"]) == set(few["image_id"])


def test_several_methods_are_measured_and_the_first_is_drawn(ready: Path, write_params: WriteParams) -> None:
    methods = {"gradcam.methods": ["LayerCAM", "GradCAM", "Occlusion"], "gradcam.perturbation_images": 4}
    write_params(SHOW_ONLY_MISSES | methods | {"gradcam.faithfulness_images": 9, "gradcam.deletion_steps": 3})
    gradcam.main()
    metrics = read_metrics()
    assert (metrics["method"], metrics["images"], metrics["maps"]) == ("LayerCAM", 12, 9)
    found = metrics["faithfulness"]
    assert {name: each["images"] for name, each in found["methods"].items()} == {"LayerCAM": 9, "GradCAM": 9, "Occlusion": 4}
    assert found["compared"]["images"] == 4
    assert found["methods"]["Occlusion"]["layers"]["m0-0"]["layer"] == "image"
    assert list(read_plot("groups.csv")["method"].unique()) == ["LayerCAM"]
    assert list(read_plot("faithfulness.csv")["method"].unique()) == ["LayerCAM", "GradCAM", "Occlusion"]
    assert len(read_plot("curves.csv")) == 2 * 4 * 5
    images = read_plot("images.csv")
    value = found["methods"]["GradCAM"]["measures"]["deletion"]["value"]
    assert images[images["method"] == "GradCAM"]["deletion"].mean() == pytest.approx(value, abs=1e-5)


def test_a_method_that_cannot_be_used_is_refused_before_any_work(
    ready: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(SHOW_ONLY_MISSES | {"gradcam.methods": ["GradCAM", "LeGrad"]})
    monkeypatch.setattr(members, "compute_maps", lambda *_, **__: pytest.fail("an image was explained"))
    with pytest.raises(PipelineError, match="LeGrad"):
        gradcam.main()
