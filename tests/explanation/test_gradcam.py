"""The stage `gradcam` on a small workspace: its cases, its figures recomputed, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.raw import RAW, image_path, mask_path
from skinlesion.base.files import write_json
from skinlesion.config.schema import Fit
from skinlesion.evaluation.results.predictions import write_predictions
from skinlesion.explanation.cam import gallery
from skinlesion.explanation.cam.placing import map_to_original
from stages import gradcam
from tests.conftest import WriteParams, refuses
from tests.explanation import workspace as given
from tests.stage_cases import read_metrics

TABLES = {f"{name}.csv" for name in ("cases", "energy", "faithfulness", "groups", "curves", "sanity", "images")}

OUTPUTS = {"gradcam.json", "index.png", "index.html"} | TABLES


def test_outputs(ready: Path, write_params: WriteParams) -> None:
    write_params({"machine.device": "cpu"})
    gradcam.main()
    pages = {f"{dx}_1.png" for dx in ("mel", "nv", "bkl", "df", "bcc", "vasc")}
    assert set(given.outputs("gradcam")) == OUTPUTS | pages
    metrics = read_metrics("gradcam")
    assert (metrics["method"], metrics["layers"]) == ("GradCAM", {"m0-0": {"layer": "layer2", "cells": [4, 4]}})
    assert (metrics["images"], metrics["maps"], metrics["images_with_mask"]) == (12, 12, 12)
    assert (metrics["images_with_empty_mask"], metrics["images_without_ratio"]) == (0, metrics["zero_maps"])
    shown = given.read_plot("cases.csv")
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
    write_params(given.SHOW_ONLY_MISSES)
    given.make_workspace(fit)
    generator = np.random.default_rng(3)
    maps = generator.random((12, 4, 4)).astype(np.float32)
    given.stub_maps(monkeypatch, maps)
    gradcam.main()
    expected = []
    for number, values in enumerate(maps):
        placed = map_to_original(values, given.WIDTH, given.HEIGHT, size=given.SIZE, fit=fit, centers=given.CENTERS)
        seen = np.ones((given.HEIGHT, given.WIDTH), dtype=bool)
        if fit == "crop":  # from 5.5 to 38.5 of the width: the pixels whose centres lie there are 5 to 38
            seen[:, :5] = seen[:, 39:] = False
        inside = sum(placed[y, x] for y, x in np.argwhere(given.disc(number) & seen))
        expected.append(inside / placed[seen].sum() / (given.disc(number)[seen].sum() / seen.sum()))
    ratios = given.read_plot("energy.csv")
    assert list(ratios.columns) == ["image_id", "dx", "outcome", "energy_ratio"]
    assert list(ratios["image_id"]) == given.IMAGE_IDS
    np.testing.assert_allclose(ratios["energy_ratio"], expected, atol=1e-6)
    wrong = [row[2] != row[3] for row in given.PREDICTED]
    assert list(ratios["outcome"]) == ["wrong" if is_wrong else "correct" for is_wrong in wrong]
    metrics = read_metrics("gradcam")
    assert metrics["energy_ratio"]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert metrics["energy_ratio"]["median"] == pytest.approx(np.median(expected), abs=1e-6)
    assert metrics["energy_ratio"]["low"] < np.mean(expected) < metrics["energy_ratio"]["high"]
    wrong_median = float(np.median(np.array(expected)[wrong]))
    assert metrics["by_outcome"]["wrong"] == {"images": 6, "median": pytest.approx(wrong_median, abs=1e-6)}
    assert metrics["by_class"]["df"] == {"images": 1, "median": pytest.approx(expected[9], abs=1e-6)}
    assert metrics["by_class"]["akiec"] == {"images": 0, "median": None}


def test_equal_input_gives_equal_bytes_and_leaves_nothing_behind(ready: Path) -> None:
    gradcam.main()
    first = given.outputs("gradcam")
    (PLOTS / "gradcam" / "mel_2.png").write_bytes(b"of an earlier run")
    gradcam.main()
    assert given.outputs("gradcam") == first
    assert not list(ready.rglob("*.partial"))
    text = (METRICS / "gradcam.json").read_text(encoding="utf-8")
    assert "NaN" not in text and str(ready) not in text
    assert list(json.loads(text))[:3] == ["method", "layers", "images"]


def test_params_reach_the_maps(ready: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(gallery, "draw_pages", lambda *_, title: titles.append(title))
    gradcam.main()
    before = given.read_plot("energy.csv")["energy_ratio"]
    write_params(given.SHOW_ONLY_MISSES | {"machine.batch_size": 20})
    gradcam.main()
    np.testing.assert_allclose(given.read_plot("energy.csv")["energy_ratio"], before, atol=1e-4)
    write_params(
        {"machine.device": "cpu", "gradcam.methods": ["LayerCAM"], "gradcam.layer": "layer1"}
        | {"gradcam.confident_errors": 1, "gradcam.unsure_correct": 1, "gradcam.typical_correct": 1}
    )
    provenance = {"source": "local", "synthetic": False, "licence": "CC BY-NC 4.0", "counts": {}}
    write_json(RAW / "provenance.json", provenance)
    gradcam.main()
    metrics = read_metrics("gradcam")
    assert (metrics["method"], metrics["layers"]) == ("LayerCAM", {"m0-0": {"layer": "layer1", "cells": [8, 8]}})
    # Of the nevi 0.95 is the median, which two images have; the only dermatofibroma is shown as unsure.
    assert list(given.read_plot("cases.csv")["image_id"]) == [f"ISIC_{number:02d}" for number in (3, 2, 6, 10, 1, 11, 5)]
    assert titles[0] == "GradCAM of layer layer2, resnet18, split 'test', synthetic images"
    assert titles[-1] == "LayerCAM of layer layer1, resnet18, split 'test'"


def test_without_masks(workspace: Path, write_params: WriteParams, caplog: pytest.LogCaptureFixture) -> None:
    write_params(given.SHOW_ONLY_MISSES)
    given.make_workspace("squash", masks=False)
    nothing_missed = given.make_predictions().query("image_id not in ['ISIC_02', 'ISIC_03']").reset_index(drop=True)
    write_predictions({"test": nothing_missed})
    with caplog.at_level("INFO"):
        gradcam.main()
    metrics = read_metrics("gradcam")
    assert (metrics["maps"], metrics["images_with_mask"]) == (10, 0)
    measures = metrics["faithfulness"]["methods"]["GradCAM"]["measures"]
    assert {measures[name]["value"] for name in ("energy", "pointing")} == {None}
    assert measures["deletion"]["images"] == measures["insertion"]["images"] == 10
    assert {metrics[name] for name in ("bootstrap", "energy_ratio", "by_class", "by_outcome")} == {None}
    assert "no lesion masks in data/raw: the energy ratio is not measured" in caplog.text
    assert given.read_plot("energy.csv").empty
    assert given.read_plot("cases.csv").empty
    assert set(given.outputs("gradcam")) == OUTPUTS
    assert "No case to show: no melanoma of the split was missed" in (PLOTS / "gradcam" / "index.html").read_text("utf-8")


def test_some_masks_are_missing_or_empty(ready: Path, write_params: WriteParams, caplog: pytest.LogCaptureFixture) -> None:
    write_params(given.SHOW_ONLY_MISSES | {"gradcam.confident_errors": 2})
    mask_path("ISIC_12").unlink()
    mask_path("ISIC_04").unlink()
    given.write_mask("ISIC_05", np.zeros((given.HEIGHT, given.WIDTH), dtype=bool))
    gradcam.main()
    metrics = read_metrics("gradcam")
    assert (metrics["images_with_mask"], metrics["images_with_empty_mask"]) == (10, 1)
    assert metrics["maps"] == 12  # deletion, insertion and what follows need no mask
    assert metrics["faithfulness"]["methods"]["GradCAM"]["measures"]["pointing"]["images"] == 9 - metrics["zero_maps"]
    assert "1 mask(s) have no lesion pixel where the network looks: left out of the energy ratio" in caplog.text
    assert not {"ISIC_04", "ISIC_05", "ISIC_12"} & set(given.read_plot("energy.csv")["image_id"])


def test_zero_maps_are_counted(ready: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    maps = np.ones((12, 4, 4), dtype=np.float32)
    maps[[2, 7]] = 0
    given.stub_maps(monkeypatch, maps)
    gradcam.main()
    metrics = read_metrics("gradcam")
    assert (metrics["zero_maps"], metrics["images_without_ratio"], len(given.read_plot("energy.csv"))) == (2, 2, 10)
    assert metrics["energy_ratio"] == pytest.approx({"mean": 1, "median": 1, "low": 1, "high": 1}, abs=1e-6)
    assert "2 of 12 maps are zero" in caplog.text


def test_damaged_mask_and_image(ready: Path, write_params: WriteParams) -> None:
    write_params(given.SHOW_ONLY_MISSES | {"gradcam.confident_errors": 1})  # ISIC_06
    mask, image = mask_path("ISIC_06"), image_path("ISIC_06")
    whole = mask.read_bytes()
    mask.write_bytes(whole[: len(whole) // 2])
    refuses(r"mask .*ISIC_06_segmentation.png is not readable .*run `download` again", gradcam.main)
    given.write_mask("ISIC_06", np.ones((given.HEIGHT, given.WIDTH + 1), dtype=bool))
    refuses(r"ISIC_06_segmentation.png is 45 x 33 pixels and its image 44 x 33: masks must", gradcam.main)
    mask.write_bytes(whole)
    image.write_bytes(image.read_bytes()[:300])
    refuses(r"image .*ISIC_06.jpg is not readable .*run `download` again", gradcam.main)
    Image.new("RGB", (given.WIDTH, given.HEIGHT + 2)).save(image)
    refuses(r"ISIC_06.jpg has changed its size since `prepare`: run `prepare` again", gradcam.main)
    assert not METRICS.exists() and not (PLOTS / "gradcam").exists()


def test_inputs_that_do_not_belong_together(ready: Path) -> None:
    for other in ({"fit": "crop"}, {"color_constancy": "shades_of_gray"}):
        given.make_classifier(**other)
        ((key, value),) = other.items()
        message = rf"prepared at 32 px with fit 'squash', color_constancy 'none', .* trained at .*{key} '{value}'"
        refuses(message, gradcam.main)
    given.make_classifier()
    stranger = given.make_predictions()
    stranger.loc[3, "image_id"] = "ISIC_99"
    write_predictions({"test": stranger})
    refuses("image ISIC_99 is listed in a split and was not prepared", gradcam.main)


@pytest.mark.parametrize(
    "missing",
    [
        *("data/predictions/test.csv", "data/prepared/images.npy", "data/raw/provenance.json"),
        *("models/classifier/m0-0/weights.safetensors", "models/classifier/ensemble.json"),
    ],
)
def test_a_missing_input_is_named(ready: Path, missing: str) -> None:
    Path(missing).unlink()
    refuses(f"{missing} not found: run", gradcam.main)
