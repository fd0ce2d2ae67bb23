"""Every method by its name: planted evidence, torchcam's own numbers, who is refused and why, and what is left behind."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchcam.methods
from torch import nn
from torch.nn import functional

from skinlesion.explanation.cam import members
from skinlesion.explanation.cam.maps import describe_duration
from skinlesion.explanation.cam.methods import DEFAULT_SAMPLES, METHODS, PERTURBATION_METHODS, MapOptions
from skinlesion.explanation.cam.occlusion import CELLS
from skinlesion.model.classifier import Classifier, normalize
from tests.conftest import refuses
from tests.explanation import networks as cases
from tests.model.classifier_cases import tensors_left_by


def test_every_method_of_torchcam_is_there() -> None:
    offered = {name for name, thing in vars(torchcam.methods).items() if isinstance(thing, type) and name[0] != "_"}
    assert set(METHODS) == offered | {"Occlusion"}
    assert len(set(METHODS)) == len(METHODS)
    assert set(METHODS) >= PERTURBATION_METHODS | set(DEFAULT_SAMPLES)
    for method, samples in DEFAULT_SAMPLES.items():
        with getattr(torchcam.methods, method)(cases.SmallNet(), "second") as extractor:
            assert extractor.num_samples == samples


def test_unknown_method_layer_class_and_diagnosis_are_named() -> None:
    model, images = cases.small_network(), cases.noise_images(2, cases.SIZE)
    message = r"^gradcam.methods: no method 'GradCam'; did you mean 'GradCAM'\?; known: CAM, "
    refuses(message, cases.maps_of, model, images, [0, 1], method="GradCam")
    refuses(
        "SmallNet has no layer 'secnd'; nearest: second", cases.maps_of, model, images, [0, 1], method="ScoreCAM", layer="secnd"
    )
    for message, classes, options in [
        ("no class -1; they are numbers from 0 to 6: akiec, bcc, ", [0, -1], {}),
        ("no class 7; they are numbers from 0 to 6", [1, 7], {}),
        ("1 numbers for 2 images", [0], {}),
        ("samples is 0", [0, 1], {"samples": 0}),
    ]:
        with pytest.raises(ValueError, match=message):
            cases.maps_of(model, images, classes, method="CAM", layer="second", **options)
    config = cases.config_of("resnet18", cases.SIZE)
    pair = {f"{member}-0": Classifier(model, replace(config, member=member)) for member in ("m0", "m1")}
    message = r"LeGrad reads the attention .* \(LeGrad, layer 'second', of member 'm0-0'; each of the 2"
    refuses(message, members.find_layers, pair, ["GradCAM", "LeGrad"], "second")
    found = members.find_layers(pair, ["GradCAM", "RefineCAM", "Occlusion"], "second")
    assert [layers["m1-0"].name for layers in found.values()] == ["second", "first x second", "image"]
    assert [layers["m1-0"].side for layers in found.values()] == [4, 8, CELLS]
    table = pd.DataFrame({"row": [0, 1], "predicted": ["nv", "mel"], "dx": ["nv", "mell"]})
    options = MapOptions("GradCAM", cases.CPU, "second")
    message = r"dx: the network has no class mell; did you mean 'mel'\?; its classes are akiec"
    refuses(message, members.explain, pair, images, table, options, column="dx")
    explained = members.explain(pair, images, table.assign(dx=["bcc", "df"]), options, column="dx")
    np.testing.assert_array_equal(explained["m1-0"].maps, cases.maps_of(model, images, [1, 3], method="GradCAM", layer="second"))


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("RefineCAM", "LeGrad")])
def test_map_peaks_on_the_planted_evidence(method: str) -> None:
    images = np.zeros((1, 20, 20, 3), dtype=np.uint8)
    images[0, 4, 15, 0] = images[0, 12, 3, 2] = 255
    for class_index, (row, column) in [(0, (4, 15)), (1, (12, 3))]:
        (values,) = cases.maps_of(cases.color_network(), images, [class_index], method=method, layer="red_and_blue")
        side = len(values)
        assert side == (CELLS if method == "Occlusion" else 20)
        place = (int((row + 0.5) * side / 20), int((column + 0.5) * side / 20))
        assert np.unravel_index(values.argmax(), values.shape) == place
        assert (values.dtype, values.min(), values.max()) == (np.float32, 0, 1)
    if method not in PERTURBATION_METHODS or method == "Occlusion":
        (against,) = cases.maps_of(cases.color_network(), images, [2], method=method, layer="red_and_blue")
        assert not against[place]  # blue speaks for no other class


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("RefineCAM", "LeGrad", "Occlusion")])
@pytest.mark.parametrize("network", ["small", "swin", "vit"])
def test_torchcam_gives_the_same_one_image_at_a_time(method: str, network: str) -> None:
    if network == "vit" and method == "CAM":
        pytest.skip("refused, see below")
    model = {"small": cases.small_network, "swin": cases.tiny_swin, "vit": lambda: cases.tiny_vit()[0]}[network]()
    layer = {"small": "second", "swin": "norm", "vit": "encoder.layers.encoder_layer_1.ln_1"}[network]
    reshape: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "swin": lambda output: output.permute(0, 3, 1, 2),
        "vit": lambda output: output[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2),
    }
    options: dict[str, Any] = {"fc_layer": "head"} if method == "CAM" else {}
    images, classes = cases.noise_images(5, cases.SIZE), [0, 1, 2, 3, 6]
    expected = []
    options["reshape_transform"] = reshape.get(network)
    with getattr(torchcam.methods, method)(model, f"backbone.{layer}", **options) as extractor:
        for position, (image, class_index) in enumerate(zip(images, classes, strict=True)):
            torch.manual_seed(cases.SEED + position)
            inputs = normalize(torch.from_numpy(image[None]), cases.config_of("resnet18", cases.SIZE))
            # A list where FinerCAM and the rest take one, a number where both do.
            expected.append(cases.scaled(extractor([class_index], model(inputs), normalized=False)[0][0].detach().numpy()))
    assert sum(values.max() == 1 for values in expected) >= 2
    for batch_size in (1, 3, 64):
        values = cases.maps_of(model, images, classes, method=method, layer=layer, batch_size=batch_size)
        tolerance = 2e-3 if method == "SmoothGradCAMpp" else 2e-5
        np.testing.assert_allclose(values, expected, atol=tolerance, err_msg=f"batch size {batch_size}")


@pytest.mark.parametrize("layer", ["auto", "encoder.layers.encoder_layer_1"])
def test_torchcam_gives_the_same_le_grad(layer: str) -> None:
    model, whole = cases.tiny_vit()
    images, classes = cases.noise_images(3, cases.SIZE), [0, 3, 6]
    blocks = list(whole.encoder.layers)[0 if layer == "auto" else 1 :]
    with torchcam.methods.LeGrad(whole, blocks) as extractor:
        inputs = normalize(torch.from_numpy(images), cases.config_of("resnet18", cases.SIZE))
        pairs = zip(inputs, classes, strict=True)
        expected = [cases.scaled(extractor(index, whole(one[None]), normalized=False)[0][0].numpy()) for one, index in pairs]
    for batch_size in (1, 2):
        values = cases.maps_of(model, images, classes, method="LeGrad", layer=layer, batch_size=batch_size)
        np.testing.assert_allclose(values, expected, atol=1e-5)
    assert values.shape == (3, 4, 4)


def test_refine_cam_multiplies_maps_where_their_cells_lie() -> None:
    """Cells of `first` are centred on pixels 0, 2, 4, ..., of `second` on 0, 4, 8, 12."""
    model, images, classes = cases.small_network(), cases.noise_images(4, cases.SIZE), [0, 1, 2, 3]
    expected = []
    with torchcam.methods.GradCAMpp(model, ["backbone.first", "backbone.second"]) as extractor:
        for image, class_index in zip(images, classes, strict=True):
            scores = model(normalize(torch.from_numpy(image[None]), cases.config_of("resnet18", cases.SIZE)))
            fine, coarse = (each[0].numpy() for each in extractor(class_index, scores))
            places = np.arange(8) / 2
            along = np.stack([np.interp(places, range(4), row) for row in coarse])
            expected.append(cases.scaled(fine * np.stack([np.interp(places, range(4), column) for column in along.T], axis=1)))
    assert sum(values.max() == 1 for values in expected) >= 2
    for batch_size in (1, 4):
        values = cases.maps_of(model, images, classes, method="RefineCAM", layer="second", batch_size=batch_size)
        np.testing.assert_allclose(values, expected, atol=1e-4)
    with torchcam.methods.RefineCAM(model, ["backbone.first", "backbone.second"]) as stretched:
        inputs = normalize(torch.from_numpy(images), cases.config_of("resnet18", cases.SIZE))
        usual = stretched(classes, model(inputs), normalized=False)[0].numpy()
    assert max(np.abs(cases.scaled(one) - other).max() for one, other in zip(usual, expected, strict=True)) > 0.1


def test_occlusion_by_hand() -> None:
    """Each window laid by hand, cell by cell, on 16 pixels: a cell is two pixels, a window four."""
    model, images = cases.small_network(), cases.noise_images(1, cases.SIZE)
    inputs = normalize(torch.from_numpy(images), cases.config_of("resnet18", cases.SIZE))

    def log_probability(image: torch.Tensor) -> float:
        with torch.no_grad():
            return float(functional.log_softmax(model(image), dim=1)[0, 2])

    sums = np.zeros((CELLS, CELLS))
    for top in range(-2, cases.SIZE, 2):
        for left in range(-2, cases.SIZE, 2):
            covered, window = inputs.clone(), (slice(max(0, top), top + 4), slice(max(0, left), left + 4))
            covered[(..., *window)] = inputs.mean(dim=(2, 3))[..., None, None]
            cells = tuple(slice(each.start // 2, each.stop // 2) for each in window)
            sums[cells] += log_probability(inputs) - log_probability(covered)
    for batch_size in (1, 7, 100):
        (values,) = cases.maps_of(model, images, [2], method="Occlusion", layer="auto", batch_size=batch_size)
        np.testing.assert_allclose(values, cases.scaled(sums / 4), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_flipped_is_of_the_mirrored_images(method: str) -> None:
    model, layer = cases.network_for(method)
    images, options = cases.noise_images(2, cases.SIZE), {"method": method, "layer": layer, "samples": 2}
    mirrored = cases.maps_of(model, images[:, :, ::-1], [0, 1], **options)
    np.testing.assert_allclose(cases.maps_of(model, images, [0, 1], flipped=True, **options), mirrored, atol=1e-6)
    assert np.abs(cases.maps_of(model, images, [0, 1], **options) - mirrored).max() > 1e-3


@pytest.mark.parametrize("method", DEFAULT_SAMPLES)
def test_samples_change_what_is_averaged(method: str) -> None:
    model, images = cases.small_network(), cases.noise_images(1, cases.SIZE)
    few, default = (cases.maps_of(model, images, [0], method=method, layer="second", samples=number) for number in (1, None))
    named = cases.maps_of(model, images, [0], method=method, layer="second", samples=DEFAULT_SAMPLES[method])
    np.testing.assert_array_equal(default, named)
    assert np.abs(few - default).max() > 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_failing_network_is_left_as_it_was(method: str) -> None:
    model, layer = cases.network_for(method)
    model.train()
    model.backbone.eval()
    model.head.weight.requires_grad_(False)

    def state() -> tuple[Any, ...]:
        flags = [parameter.requires_grad for parameter in model.parameters()]
        return [module.training for module in model.modules()], flags, cases.hooks_of(model), torch.is_grad_enabled()

    before, failures = state(), 0
    assert before[2] == 0
    for calls in (1, 2, 3):
        model.head.calls_left = calls
        try:
            cases.maps_of(model, cases.noise_images(3, cases.SIZE), [0, 1, 2], method=method, layer=layer, batch_size=1)
        except RuntimeError as error:
            assert "broken on purpose" in str(error)
            failures += 1
        assert state() == before
    assert failures == 3
    model.head.calls_left = -1
    assert cases.maps_of(model, cases.noise_images(1, cases.SIZE), [0], method=method, layer=layer).shape[0] == 1
    assert state() == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_no_tensor_outlives_a_call(method: str) -> None:
    model, layer = cases.network_for(method)
    options: dict[str, Any] = {"method": method, "layer": layer, "samples": 1}
    cases.maps_of(model, cases.noise_images(2, cases.SIZE), [0, 1], **options)
    assert tensors_left_by(lambda: cases.maps_of(model, cases.noise_images(6, cases.SIZE), [0] * 6, **options)) == 0


def test_a_method_of_many_passes_says_how_long_it_will_take(caplog: pytest.LogCaptureFixture) -> None:
    model, images = cases.small_network(), cases.noise_images(3, cases.SIZE)
    with caplog.at_level("INFO"):
        cases.maps_of(model, images, [0, 1, 2], method="GradCAM", layer="second", progress=True)
        assert not caplog.text
        cases.maps_of(model, images, [0, 1, 2], method="ScoreCAM", layer="second", progress=True)
    assert [record.message for record in caplog.records] == ["ScoreCAM base-0: about 0 s for 3 images"]
    said = [describe_duration(seconds) for seconds in (0.4, 119, 120, 745, 7199, 12600)]
    assert said == ["0 s", "119 s", "2 min", "12 min", "120 min", "3.5 h"]


def test_damaged_weights_are_named() -> None:
    model = cases.small_network()
    nn.init.constant_(model.head.weight, torch.inf)
    for method in ("GradCAM", "ScoreCAM", "Occlusion", "RefineCAM"):
        message = "scores are not finite: its weights are damaged"
        refuses(message, cases.maps_of, model, cases.noise_images(1, cases.SIZE), [0], method=method, layer="second")
