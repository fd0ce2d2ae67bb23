"""The parts of the measures of faithfulness: by hand, and against scipy and the placement on originals."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from skinlesion.config.schema import Fit
from skinlesion.data.geometry import fit_image
from skinlesion.explanation.cam import deletion, patches, randomization
from skinlesion.explanation.cam.deletion import Score
from skinlesion.explanation.cam.faithfulness import choose_some, other_images
from skinlesion.explanation.cam.layers import TargetLayer
from skinlesion.explanation.cam.members import MemberMaps
from skinlesion.explanation.cam.placing import map_to_original
from skinlesion.explanation.cam.pointing import center_hits, points_at
from skinlesion.model.classifier import Classifier
from tests.model.classifier_cases import make_config, make_network

P = patches.PATCHES


def member_maps(values: np.ndarray, centers: tuple[float, float]) -> MemberMaps:
    """Maps with their cells' centres."""
    return MemberMaps(TargetLayer("layer", "channels_first", values.shape[1], centers), values.astype(np.float32))


@pytest.mark.parametrize(("size", "side", "centers"), [(64, 4, (8.0, 16.0)), (100, 7, (0.5, 16.0)), (40, 2, (0.5, 32.0))])
def test_patch_means_are_those_of_the_map_placed_on_the_pixels(size: int, side: int, centers: tuple[float, float]) -> None:
    values = np.random.default_rng(0).random((3, side, side))
    found = patches.patch_means([member_maps(values, centers)], size=size)
    patch = np.arange(size) * P // size
    for one, expected in zip(found, values, strict=True):
        placed = map_to_original(expected, size, size, size=size, fit="squash", centers=centers)
        means = [[placed[np.ix_(patch == row, patch == column)].mean() for column in range(P)] for row in range(P)]
        np.testing.assert_allclose(one, means, atol=1e-6)


def test_a_mirrored_map_comes_back_to_its_place() -> None:
    """Cells that start at the first pixel lie elsewhere in the mirrored image; a peak must not move by their offset."""
    size, centers = 60, (0.5, 16.0)
    column = np.arange(size)
    sampled = np.exp(-(((column[:, None] - 20) / 12) ** 2) - ((column[None, :] - 37) / 12) ** 2)
    cells = (np.arange(4) * 16).astype(int)
    upright, mirrored = sampled[np.ix_(cells, cells)], sampled[:, ::-1][np.ix_(cells, cells)]
    maps = [([member_maps(values[None], centers)], flipped) for values, flipped in ((upright, False), (mirrored, True))]
    both = [patches.patch_means(each, size=size, mirrored=flipped)[0] for each, flipped in maps]
    coarse = [np.average(np.arange(P), weights=heat.sum(axis=0)) for heat in both]
    assert abs(coarse[0] - coarse[1]) < 1  # patches, of 3.75 pixels
    np.testing.assert_allclose(
        patches.patch_means([member_maps(upright[None, :, ::-1], (8.0, 16.0))], size=64, mirrored=True),
        patches.patch_means([member_maps(upright[None], (8.0, 16.0))], size=64),
        atol=1e-9,
    )


def test_members_count_alike() -> None:
    one, other = np.zeros((1, 2, 2)), np.zeros((1, 2, 2))
    one[0, 0, 0], other[0, 1, 1] = 1, 1
    heat = patches.patch_means([member_maps(one, (16.0, 32.0)), member_maps(other, (16.0, 32.0))], size=64)[0]
    assert heat[0, 0] == heat[-1, -1] == pytest.approx(0.5)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("width", "height"), [(200, 150), (100, 300), (90, 90)])
def test_shown_patches_are_those_with_a_pixel_of_the_image(fit: Fit, width: int, height: int) -> None:
    from PIL import Image

    size = 64
    square = np.asarray(fit_image(Image.new("RGB", (width, height), "white"), size=size, fit=fit))[..., 0] > 0
    expected = square.reshape(P, size // P, P, size // P).any(axis=(1, 3))
    np.testing.assert_array_equal(patches.shown_patches(width, height, size=size, fit=fit), expected)


def test_rank_correlation_is_scipys() -> None:
    generator = np.random.default_rng(1)
    one, other = generator.random((4, P, P)), generator.integers(0, 4, (4, P, P)).astype(float)
    shown = generator.random((4, P, P)) < 0.7
    other[3] = 2.0
    found = patches.rank_correlation(one, other, shown)
    for row in range(3):
        assert found[row] == pytest.approx(spearmanr(one[row][shown[row]], other[row][shown[row]]).statistic)
    assert np.isnan(found[3])


def test_center_prior_ranks_the_centre_first() -> None:
    heat = patches.center_prior()
    assert set(map(tuple, np.argwhere(heat == heat.max()))) == {(7, 7), (7, 8), (8, 7), (8, 8)}
    assert heat[0, 0] == heat.min() == heat[-1, -1]
    np.testing.assert_array_equal(heat, heat.T)


def test_removal_ranks() -> None:
    heat, shown = np.zeros((2, P, P)), np.ones((2, P, P), dtype=bool)
    heat[:, 3, 4], heat[:, 5, 6], heat[:, 0, 0] = 2, 1, 9
    shown[:, 0] = False
    ranks = deletion.removal_ranks(heat, shown, seeds=[0, 1])
    assert (ranks[:, 3, 4] == 0).all()
    assert (ranks[:, 5, 6] == 1).all()
    assert (ranks[:, 0] >= P * P - P).all()  # what shows no image comes last, whatever its heat
    assert sorted(ranks[0].ravel()) == list(range(P * P))
    assert (ranks[0] != ranks[1]).mean() > 0.9  # zeros come in an order of the image's own
    np.testing.assert_array_equal(ranks, deletion.removal_ranks(heat, shown, seeds=[0, 1]))


def recording(seen: list[np.ndarray]) -> Score:
    """A score of zero that keeps the batches that it is given."""
    return lambda batch, positions: seen.append(batch.numpy()) or np.zeros(len(positions))


def test_deletion_and_insertion_by_hand() -> None:
    """A score that counts the white of one patch: the patch taken away first, and last."""
    size = 32
    images = np.zeros((3, size, size, 3), dtype=np.uint8)
    images[1, 4:6, 8:10] = 255  # patch (2, 4)
    images[2, 4:6, 8:10] = 255
    shown = np.ones((2, P, P), dtype=bool)
    images[:, 31:] = 90
    shown[:, 8:] = False  # half of the patches: a step takes half of those that are shown
    heat = np.zeros((2, P, P))
    heat[0, 2, 4], heat[1, 2, 4] = 1, -1
    seen: list[int] = []

    def score(batch: torch.Tensor, positions: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return batch[:, 4:6, 8:10].float().mean(dim=(1, 2, 3)).numpy() / 255

    ranks = deletion.removal_ranks(heat, shown, seeds=[0, 1])
    rows = np.array([1, 2])
    removal = deletion.Removal(score, images, rows, shown, steps=4, batch_size=2)
    everyone = np.arange(2)
    removed, inserted = removal.curves(ranks, everyone)
    mean = round(255 * 4 / (size * size / 2)) / 255  # of the half that is shown
    np.testing.assert_allclose(removed, [[1, mean, mean, mean, mean], [1, 1, 1, 1, mean]], atol=1e-6)
    blurred = inserted[0, 0]
    assert 0 < blurred < 0.1
    np.testing.assert_allclose(inserted, [[blurred, 1, 1, 1, 1], [blurred] * 4 + [1]], atol=1e-6)
    np.testing.assert_allclose(deletion.area_under(removed)[1], (3 + (1 + mean) / 2) / 4)
    assert seen == [2] * 9  # three ends, and three steps between them of each curve
    seen_pixels: list[np.ndarray] = []
    removal.score = recording(seen_pixels)
    removal.curves(ranks, everyone)
    for altered in seen_pixels:  # what is no image, but padding, is neither taken away nor blurred
        np.testing.assert_array_equal(altered[:, 16:], images[rows][:, 16:])
    one_at_a_time = deletion.Removal(score, images, rows, shown, steps=4, batch_size=1)
    np.testing.assert_array_equal(one_at_a_time.curves(ranks, everyone), [removed, inserted])
    np.testing.assert_array_equal(one_at_a_time.curves(ranks[1:], everyone[1:]), [removed[1:], inserted[1:]])


@pytest.mark.parametrize("side", [32, 50])
def test_insertion_starts_from_a_gaussian_blur(side: int) -> None:
    """Against scipy, whose kernel is cut at the same three standard deviations."""
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    starts: list[np.ndarray] = []
    deletion.Removal(recording(starts), images, np.array([0, 1]), np.ones((2, P, P), dtype=bool), steps=4, batch_size=2)
    sigma = side / 8
    expected = gaussian_filter(images.astype(float), (0, sigma, sigma, 0), radius=int(3 * sigma), mode="mirror")
    np.testing.assert_allclose(starts[2].astype(float), expected, atol=1)
    np.testing.assert_array_equal(starts[0], images)
    np.testing.assert_allclose(starts[1][:, 3, 4], images.mean(axis=(1, 2)), atol=0.51)


def test_pointing_by_hand() -> None:
    placed = np.array([[0.0, 1.0, 1.0], [0.2, 0.0, 0.5]])
    lesion = np.array([[False, False, True], [True, True, False]])
    assert points_at(placed, lesion) == 0.5  # two strongest pixels, one on the lesion
    placed[0, 2] = 2
    assert points_at(placed, lesion) == 1
    assert np.isnan(points_at(np.zeros((2, 3)), lesion))
    assert np.isnan(points_at(placed, np.zeros((2, 3), dtype=bool)))
    assert center_hits(lesion) == 0.5  # the column in the middle, two rows share the centre
    assert center_hits(np.eye(4, dtype=bool)) == 0.5
    assert center_hits(np.eye(3, dtype=bool)) == 1
    assert np.isnan(center_hits(np.zeros((3, 3), dtype=bool)))


def test_every_image_is_measured_with_one_of_another_lesion() -> None:
    lesions = pd.Series([f"L{number // 3}" if number < 9 else f"M{number}" for number in range(40)])
    partners = other_images(lesions)
    assert partners is not None
    assert sorted(partners) == list(range(40))
    assert (lesions.to_numpy() != lesions.to_numpy()[partners]).all()
    assert other_images(pd.Series(["L1", "L1", "L2"])) is None
    pair = other_images(pd.Series(["L1", "L2"]))
    assert pair is not None
    assert list(pair) == [1, 0]


def test_chosen_images_do_not_depend_on_the_order_of_the_table() -> None:
    table = pd.DataFrame({"image_id": [f"I{number:02d}" for number in range(30)]})
    chosen = choose_some(table, 10)
    assert len(chosen) == 10
    assert list(chosen) == sorted(chosen)
    backwards = table[::-1].reset_index(drop=True)
    assert set(backwards["image_id"][choose_some(backwards, 10)]) == set(table["image_id"][chosen])
    for everything in (None, 30, 99):
        assert list(choose_some(table, everything)) == list(range(30))


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "squeezenet1_1"])
def test_weights_are_shuffled_from_the_top_down(backbone: str) -> None:
    config = make_config(backbone)
    trained = Classifier(make_network(config), config)
    before = {name: parameter.clone() for name, parameter in trained.model.named_parameters()}
    matrices = [name for name, parameter in before.items() if parameter.ndim > 1 and parameter.unique().numel() > 1]
    changed = {}
    for depth, ensemble in randomization.shuffle_cascade({"base-0": trained}, seed=3).items():
        after = dict(ensemble["base-0"].model.named_parameters())
        changed[depth] = [name for name in matrices if not torch.equal(before[name], after[name])]
    for name in matrices:
        torch.testing.assert_close(after[name].flatten().sort().values, before[name].flatten().sort().values)
    assert changed["head"] == [name for name in matrices if not name.startswith("backbone.")]
    assert changed["all layers"] == matrices
    sizes = [len(names) for names in changed.values()]
    assert sizes == sorted(set(sizes))
    assert all(changed["last half"][-1 - back] == matrices[-1 - back] for back in range(len(changed["last half"])))
    for name, parameter in trained.model.named_parameters():
        assert torch.equal(before[name], parameter)


def test_a_tensor_is_shuffled_alike_in_every_depth_and_otherwise_in_another_member() -> None:
    config = make_config("squeezenet1_1")
    trained = Classifier(make_network(config), config)
    cascade = randomization.shuffle_cascade({"base-0": trained, "base-1": trained}, seed=3)
    shallow, deep = (dict(cascade[depth]["base-0"].model.named_parameters()) for depth in ("last quarter", "all layers"))
    heads = [name for name in shallow if not name.startswith("backbone.") and shallow[name].ndim > 1]
    assert heads
    for name in heads:
        assert torch.equal(shallow[name], deep[name])
        assert not torch.equal(deep[name], cascade["all layers"]["base-1"].model.get_parameter(name))


def test_batch_norm_of_a_shuffled_network_fits_its_features() -> None:
    config = make_config("resnet18")
    trained = Classifier(make_network(config), config)
    model = randomization.shuffle_cascade({"base-0": trained}, seed=0)[randomization.FULL]["base-0"].model
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 3
    batches = [(images[:4], None), (images[4:], None)]
    randomization.renew_batch_norm(model, batches, device=torch.device("cpu"))
    features = model.backbone.conv1(images)
    np.testing.assert_allclose(model.backbone.bn1.running_mean, features.mean(dim=(0, 2, 3)).detach(), atol=1e-4)
    assert not any(module.training for module in model.modules())
