"""Class activation maps: evidence where it was planted, numbers by hand, and what metadata and attention do to them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from skinlesion.artifacts.patients import MISSING, WIDTH
from skinlesion.config.training import list_backbones
from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.model.classifier import normalize
from skinlesion.model.layers import FAMILY_LAYERS
from skinlesion.model.metadata import MetadataEncoder
from skinlesion.model.network import SkinNetwork
from tests.explanation.networks import CPU, SIZE, build, color_network, config_of, maps_of, noise_images, small_network, tiny_vit
from tests.model.classifier_cases import last_linear

# Networks that pool their last feature map and end in one linear layer: how to get at the map.
POOLED: dict[str, tuple[str, Callable[[nn.Module, torch.Tensor], torch.Tensor]]] = {
    "resnet18": ("layer4", lambda backbone, x: nn.Sequential(*list(backbone.children())[:-2])(x)),
    "densenet121": ("features", lambda backbone, x: torch.relu(backbone.features(x))),
    "mobilenet_v2": ("features", lambda backbone, x: backbone.features(x)),
    "swin_t": ("norm", lambda backbone, x: backbone.norm(backbone.features(x)).permute(0, 3, 1, 2)),
}


@pytest.fixture
def spots() -> np.ndarray:
    """One image, 20 x 20: a red spot at row 4, column 15, a blue one at row 12, column 3."""
    images = np.zeros((1, 20, 20, 3), dtype=np.uint8)
    images[0, 4, 15, 0] = 255
    images[0, 12, 3, 2] = 255
    return images


def test_grad_cam_by_hand(spots: np.ndarray) -> None:
    # The gradient of the mean is constant, so the map is the red channel itself, scaled to a maximum of 1.
    spots[0, 9, 9, 0] = 51
    (values,) = maps_of(color_network(), spots, [0], layer="red_and_blue")
    expected = np.zeros((20, 20))
    expected[4, 15], expected[9, 9] = 1, 0.2
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_a_map_without_evidence_stays_zero(spots: np.ndarray) -> None:
    images = np.concatenate([spots, spots])
    against, for_red = maps_of(color_network(), images, [2, 0], layer="red_and_blue")
    assert not against.any()
    assert for_red.max() == 1


def test_a_uniform_map_is_one_everywhere() -> None:
    images = np.full((1, 8, 8, 3), 100, dtype=np.uint8)
    np.testing.assert_allclose(maps_of(color_network(), images, [0], layer="red_and_blue"), 1)


def test_every_backbone_of_torchvision_belongs_to_a_family() -> None:
    for name in list_backbones():
        returned = torchvision.models.get_model_builder(name).__annotations__["return"]
        assert (returned if isinstance(returned, str) else returned.__name__) in {family.__name__ for family in FAMILY_LAYERS}


@pytest.mark.parametrize("backbone", POOLED)
def test_grad_cam_is_cam_where_a_linear_layer_follows_the_pool(backbone: str) -> None:
    """Grad-CAM, section 3.1: there the weights are the linear layer's, and the map is CAM's (Zhou et al., 2016)."""
    model, images = build(backbone, 64), noise_images(3, 64)
    layer, features_of = POOLED[backbone]
    with torch.no_grad():
        features = features_of(model.backbone, normalize(torch.from_numpy(images), config_of(backbone, 64)))
        expected = torch.relu(torch.einsum("nchw,nc->nhw", features, last_linear(model).weight[[0, 3, 6]]))
        expected = (expected / expected.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)).numpy()
    np.testing.assert_allclose(maps_of(model, images, [0, 3, 6], layer=layer), expected, atol=2e-5)


def test_vision_transformer_by_hand() -> None:
    model, images = build("vit_b_16", 64), noise_images(1, 64)
    kept: list[torch.Tensor] = []
    handle = model.backbone.encoder.layers[-1].ln_1.register_forward_hook(lambda _, __, output: kept.append(output))
    score = model(normalize(torch.from_numpy(images), config_of("vit_b_16", 64)))[0, 2]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    tokens, gradients = kept[0][0, 1:].detach(), gradient[0, 1:]
    expected = np.zeros((4, 4))
    for patch in range(16):
        expected[patch // 4, patch % 4] = max(0.0, float((tokens[patch] * gradients.mean(dim=0)).sum()))
    np.testing.assert_allclose(maps_of(model, images, [2])[0], expected / expected.max(), atol=1e-5)


def test_noise_of_smooth_grad_cam_follows_the_seed() -> None:
    model, config, images = build("resnet18", 32), config_of("resnet18", 32), noise_images(2, 32)
    options = [MapOptions("SmoothGradCAMpp", CPU, "layer2", seed=seed) for seed in (0, 0, 1)]
    first, again, other = (compute_maps(model, config, images, [0, 1], each) for each in options)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


def test_rows_choose_images() -> None:
    model, config, images = build("resnet18", 64), config_of("resnet18", 64), noise_images(4, 64)
    options = MapOptions("GradCAM", CPU, batch_size=2)
    chosen = compute_maps(model, config, images, [1, 1], options, rows=np.array([3, 0]))
    np.testing.assert_array_equal(chosen, compute_maps(model, config, images[[3, 0]], [1, 1], options))
    assert compute_maps(model, config, images, [], options, rows=np.array([], dtype=np.int64)).shape == (0, 4, 4)


def test_a_frozen_network_in_training_has_the_same_maps_and_keeps_its_buffers() -> None:
    model, images = build("resnet18", 64), noise_images(2, 64)
    expected, buffers = maps_of(model, images, [0, 1]), {name: value.clone() for name, value in model.named_buffers()}
    np.testing.assert_array_equal(maps_of(model.train().requires_grad_(False), images, [0, 1]), expected)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())


def test_a_layer_that_is_changed_in_place_is_taken_as_changed() -> None:
    model, images, classes = build("squeezenet1_1", 64), noise_images(7, 64), list(range(7))
    assert isinstance(model.backbone.features[0], nn.Conv2d)
    assert model.backbone.features[1].inplace
    first, changed = (maps_of(model, images, classes, layer=layer) for layer in ("features.0", "features.1"))
    assert (first.max(axis=(1, 2)) == 1).sum() >= 3
    np.testing.assert_allclose(first, changed, atol=1e-6)


@pytest.mark.parametrize("method", ["GradCAM", "SmoothGradCAMpp"])
def test_metadata_moves_the_map_and_every_image_has_its_own(method: str) -> None:
    """A head of two layers mixes image and patient, so the evidence in the image depends on the patient."""
    spec = {"metadata": True, "head": "mlp", "hidden": 32}
    model, config, images = build("resnet18", 32, **spec), config_of("resnet18", 32), noise_images(1, 32).repeat(4, axis=0)
    last_linear(model).weight.data.abs_()
    model.metadata_encoder[1].weight.data.mul_(300)
    metadata = np.stack([MISSING, np.roll(MISSING, 5), np.ones(WIDTH, np.float32), MISSING])

    def explain(rows: np.ndarray, batch_size: int) -> np.ndarray:
        options = MapOptions(method, CPU, "layer2", batch_size)
        return compute_maps(model, config, images, [3] * len(rows), options, rows=rows, metadata=metadata[rows])

    together = explain(np.arange(4), 4)
    for row in range(3):
        others = together[[other for other in range(3) if other != row]]
        assert np.abs(others - together[row]).max(axis=(1, 2)).min() > 0.01
    for size in (1, 3):
        np.testing.assert_allclose(explain(np.arange(4), size), together, atol=1e-3)
    with pytest.raises(ValueError, match="needs metadata: pass a row of it for each of 4 images"):
        compute_maps(model, config, images, [3] * 4, MapOptions(method, CPU, "layer2"))


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_the_map_of_the_last_feature_map_is_of_what_attention_passes_on(attention: str) -> None:
    """Grad-CAM is then CAM of the gated map, so a gate that shuts half of the channels shows."""
    model, images, classes = build("resnet18", 128, attention=attention), noise_images(7, 128), list(range(7))
    plain = maps_of(model, images, classes)
    gate = model.attention.attention.fc2 if attention == "se" else model.attention.attention.channels[2]
    nn.init.constant_(gate.bias[:256], -9)
    gated = maps_of(model, images, classes)
    assert np.abs(gated - plain).max() > 0.05
    kept: list[torch.Tensor] = []
    model.backbone.avgpool.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].detach()))
    with torch.no_grad():
        model(normalize(torch.from_numpy(images), config_of("resnet18", 128)))
    expected = torch.relu(torch.einsum("nchw,nc->nhw", kept[0], last_linear(model).weight)).detach()
    expected /= expected.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    assert (expected.amax(dim=(1, 2)) == 1).sum() >= 3
    np.testing.assert_allclose(gated, expected, atol=2e-5)
    np.testing.assert_allclose(maps_of(model, images, classes, method="CAM"), expected, atol=2e-5)


def test_each_masked_copy_sees_its_images_metadata() -> None:
    model, images = small_network(metadata=True), noise_images(3, SIZE)
    metadata = np.random.default_rng(0).random((3, WIDTH)).astype(np.float32)
    seen: list[torch.Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].clone()))
    for method, passes in [("ScoreCAM", 1 + 1 + 2), ("Occlusion", 81 // 4 + 1 + 1)]:
        seen.clear()
        options = {"method": method, "layer": "second", "batch_size": 4}
        together = maps_of(model, images, [0, 1, 2], metadata=metadata, **options)
        assert len(seen) == 3 * passes
        for number, rows in enumerate(seen):
            np.testing.assert_array_equal(rows, np.tile(metadata[number // passes], (len(rows), 1)))
        alone = maps_of(model, images[2:], [2], metadata=metadata[2:], **options)
        np.testing.assert_allclose(alone[0], together[2], atol=1e-5)
    handle.remove()


def test_cam_with_metadata_takes_the_weights_of_the_image() -> None:
    model, images = small_network(metadata=True), noise_images(3, SIZE)
    metadata = np.random.default_rng(0).random((3, WIDTH)).astype(np.float32)
    options = {"layer": "second", "metadata": metadata}
    by_gradients = maps_of(model, images, [0, 1, 2], method="GradCAM", **options)
    assert by_gradients.any()
    np.testing.assert_allclose(maps_of(model, images, [0, 1, 2], method="CAM", **options), by_gradients, atol=1e-5)


def test_le_grad_sees_the_metadata() -> None:
    """A class is scored from tokens and metadata by a perceptron, so what tokens matter depends on the patient."""
    backbone = tiny_vit()[0].backbone
    encoder = MetadataEncoder(dropout=0.0)
    encoder[1].weight.data.mul_(50)
    head = nn.Sequential(nn.Linear(8 + encoder.FEATURES, 16), nn.ReLU(), nn.Linear(16, len(CLASSES)))
    model, images = SkinNetwork(backbone, head, metadata_encoder=encoder).eval(), noise_images(1, SIZE).repeat(2, axis=0)
    metadata = np.random.default_rng(0).random((2, WIDTH)).astype(np.float32) * np.array([[1], [-1]], dtype=np.float32)
    together = maps_of(model, images, [0, 0], method="LeGrad", layer="auto", metadata=metadata)
    assert np.abs(together[0] - together[1]).max() > 1e-3
    for row in range(2):
        alone = maps_of(model, images[:1], [0], method="LeGrad", layer="auto", metadata=metadata[row : row + 1])
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)
