"""The synthetic sample: what is promised of the files, the table and the pixels."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation
from sklearn.model_selection import StratifiedGroupKFold

from skinlesion.artifacts.raw import image_path, mask_path, read_metadata
from skinlesion.artifacts.tables import METADATA_COLUMNS
from skinlesion.data.sample.lesion import BOUNDS, COMMON, CONFUSED_WITH, NAMES, TRAITS, draw_traits
from skinlesion.data.sample.sample import _apportion, _class_counts, _draw_patients, draw_sample
from skinlesion.data.sample.view import draw_views
from skinlesion.diagnoses import CLASSES
from tests.conftest import refuses
from tests.stage_cases import files_of

WIDTH, HEIGHT = 100, 72
DEFAULT_LESIONS = 360


def draw(folder: Path, *, seed: int = 7, lesions: int = 35, width: int = WIDTH, height: int = HEIGHT) -> pd.DataFrame:
    folder.mkdir()
    return draw_sample(folder, seed=seed, lesions=lesions, width=width, height=height)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("drawn") / "raw"
    return folder, draw(folder)


@pytest.fixture(scope="module")
def default_patients() -> pd.DataFrame:
    """The table of the default size, without pictures."""
    return _draw_patients(DEFAULT_LESIONS, np.random.default_rng(0))


def mask_of(image_id: str, folder: Path) -> np.ndarray:
    return np.asarray(Image.open(mask_path(image_id, folder))) > 127


def test_equal_arguments_draw_equal_bytes(sample: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    np.random.seed(99)  # the global generator must not matter
    again = draw(tmp_path / "again")
    pd.testing.assert_frame_equal(again, sample[1])
    assert files_of(tmp_path / "again") == files_of(sample[0])


def test_another_seed_draws_other_pixels(sample: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
    draw(tmp_path / "other", seed=8)
    ours, theirs = files_of(sample[0]), files_of(tmp_path / "other")
    assert not [name for name in ours if name.endswith(".jpg") and ours[name] == theirs.get(name)]
    assert ours["metadata.csv"] != theirs["metadata.csv"]


def test_files_are_those_of_the_table_rgb_jpegs_and_binary_masks(sample: tuple[Path, pd.DataFrame]) -> None:
    folder, metadata = sample
    image_ids = [f"SYNTH_{number:07d}" for number in range(1, len(metadata) + 1)]
    assert metadata["image_id"].tolist() == image_ids
    files = [f"images/{image_id}.jpg" for image_id in image_ids]
    files += [f"segmentations/{image_id}_segmentation.png" for image_id in image_ids]
    assert files_of(folder).keys() == {*files, "metadata.csv"}
    for image_id in image_ids:
        with Image.open(image_path(image_id, folder)) as picture, Image.open(mask_path(image_id, folder)) as mask:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (WIDTH, HEIGHT))
            assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (WIDTH, HEIGHT))
            values = np.asarray(mask)
        assert set(np.unique(values)) == {0, 255} and 0.08 < (values > 0).mean() < 0.42


def test_masks_lie_on_what_differs_from_the_skin(sample: tuple[Path, pd.DataFrame]) -> None:
    folder, metadata = sample
    contrasts = []
    for image_id in metadata["image_id"]:
        picture = np.asarray(Image.open(image_path(image_id, folder)), dtype=float)
        mask = mask_of(image_id, folder)
        ring = binary_dilation(mask, iterations=6) & ~binary_dilation(mask, iterations=2)
        skin, spread = np.median(picture[ring], axis=0), picture[ring].std(axis=0).mean()
        contrasts.append(np.abs(picture[mask] - skin).mean() / max(spread, 4.0))
    assert np.mean(np.array(contrasts) > 1.5) > 0.9  # hair beside a pale lesion may hide one in ten
    assert np.median(contrasts) > 3


def test_the_table_reads_back_as_it_was_returned_and_rows_of_a_lesion_agree(sample: tuple[Path, pd.DataFrame]) -> None:
    folder, metadata = sample
    assert tuple(metadata.columns) == METADATA_COLUMNS
    pd.testing.assert_frame_equal(read_metadata(folder), metadata)
    assert (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(METADATA_COLUMNS)
    assert (metadata.drop(columns="image_id").groupby("lesion_id").nunique(dropna=False) == 1).all(axis=None)
    assert metadata["lesion_id"].nunique() == 35 and metadata["lesion_id"].str.fullmatch(r"SYNTH_L\d{6}").all()


def test_values_are_those_of_ham10000(default_patients: pd.DataFrame) -> None:
    ages = default_patients["age"].dropna()
    assert ((ages % 5 == 0) & ages.between(0, 85)).all()
    means = default_patients.groupby("dx")["age"].mean()
    assert means["nv"] + 8 < min(means["mel"], means["bkl"], means["bcc"])
    assert set(default_patients["sex"]) == {"male", "female", "unknown"}
    assert set(default_patients["dx_type"]) == {"histo", "follow_up", "consensus", "confocal"}
    assert set(default_patients.loc[default_patients["dx"].isin(["mel", "bcc", "akiec"]), "dx_type"]) == {"histo"}
    assert set(default_patients.loc[default_patients["dx_type"] == "follow_up", "dx"]) == {"nv"}
    assert set(default_patients["localization"]) <= {
        *("abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand", "lower extremity"),
        *("neck", "scalp", "trunk", "unknown", "upper extremity"),
    }


@pytest.mark.parametrize("lesions", [21, DEFAULT_LESIONS])
def test_some_values_are_missing_and_most_are_not(lesions: int) -> None:
    patients = _draw_patients(lesions, np.random.default_rng(3))
    for missing in (patients["age"].isna(), patients["sex"] == "unknown", patients["localization"] == "unknown"):
        assert 0 < missing.mean() < 0.06


def test_most_lesions_have_one_view_and_none_more_than_four(default_patients: pd.DataFrame) -> None:
    shares = default_patients["views"].value_counts(normalize=True)
    assert set(shares.index) == {1, 2, 3, 4}
    assert shares[1] == pytest.approx(5514 / 7470, abs=0.01)
    assert shares[2] == pytest.approx(1423 / 7470, abs=0.01)


def test_class_counts_by_hand() -> None:
    # 360 lesions, floor 12: akiec (11.8), vasc and df rise to 12; 324 are left for nv, mel, bkl, bcc = 6705, 1113, 1099,
    # 514 of 9431: 230.35, 38.24, 37.76, 17.66; the two largest remainders go up.
    assert _class_counts(360) == {"akiec": 12, "bcc": 18, "bkl": 38, "df": 12, "mel": 38, "nv": 230, "vasc": 12}
    assert _class_counts(21) == dict.fromkeys(CLASSES, 3)
    assert _class_counts(10_015) == {"akiec": 327, "bcc": 514, "bkl": 1099, "df": 115, "mel": 1113, "nv": 6705, "vasc": 142}


@pytest.mark.parametrize("lesions", [22, 50, 89, 90, 359, 1000, 7470, 100_000])
def test_every_class_has_its_floor_and_nv_the_most(lesions: int) -> None:
    counts = _class_counts(lesions)
    assert tuple(counts) == CLASSES
    assert sum(counts.values()) == lesions
    assert min(counts.values()) >= (12 if lesions >= 360 else 3)
    assert max(counts, key=counts.__getitem__) == "nv"


def test_apportion_gives_largest_remainders_the_rest() -> None:
    assert _apportion(10, {"a": 1, "b": 1, "c": 2}) == {"a": 3, "b": 2, "c": 5}  # 2.5, 2.5, 5.0: the first of the equals
    assert _apportion(0, {"a": 1, "b": 3}) == {"a": 0, "b": 0}


@pytest.mark.parametrize("fold", range(5))
def test_the_default_sample_can_be_split_within_two_points(default_patients: pd.DataFrame, fold: int) -> None:
    images = default_patients.loc[default_patients.index.repeat(default_patients["views"])].reset_index(drop=True)
    whole = images["dx"].value_counts(normalize=True)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    rest, test = list(folds.split(images, images["dx"], images["lesion_id"]))[fold]
    remaining = images.loc[rest]
    train, val = next(folds.split(remaining, remaining["dx"], remaining["lesion_id"]))
    for part in (images.loc[test], remaining.iloc[train], remaining.iloc[val]):
        shares = part["dx"].value_counts(normalize=True).reindex(whole.index)
        assert shares.notna().all()
        assert (shares - whole).abs().max() < 0.02


def seeds(number: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(number)  # spawning changes a sequence's state: every drawing takes a fresh one


@pytest.mark.parametrize("number", range(6))
def test_nothing_outside_the_lesion_depends_on_the_diagnosis(number: int) -> None:
    drawn = [draw_views(dx, seeds(number), views=1, width=WIDTH, height=HEIGHT)[0] for dx in CLASSES]
    inside = np.any([np.asarray(mask) > 0 for _, mask in drawn], axis=0)
    outside = ~binary_dilation(inside, iterations=4)  # the blur carries colour over the outline by a few pixels
    assert outside.mean() > 0.3
    backgrounds = [np.asarray(picture)[outside] for picture, _ in drawn]
    assert all(np.array_equal(one, other) for one, other in pairwise(backgrounds))
    insides = [np.asarray(picture)[inside].astype(float) for picture, _ in drawn]
    assert all(np.abs(one - other).mean() > 3 for one, other in pairwise(insides))


def test_a_lesion_does_not_depend_on_its_later_views() -> None:
    few = draw_views("mel", seeds(5), views=2, width=WIDTH, height=HEIGHT)
    many = draw_views("mel", seeds(5), views=4, width=WIDTH, height=HEIGHT)
    for (picture, mask), (same_picture, same_mask) in zip(few, many, strict=False):
        assert picture.tobytes() == same_picture.tobytes()
        assert mask.tobytes() == same_mask.tobytes()


def mean_colour(pair: tuple[Image.Image, Image.Image]) -> np.ndarray:
    return np.asarray(pair[0], dtype=float)[np.asarray(pair[1]) > 0].mean(axis=0)


def test_views_differ_and_show_the_same_lesion() -> None:
    within, between = [], []
    for number in range(12):
        first, second = draw_views("bkl", seeds(number), views=2, width=WIDTH, height=HEIGHT)
        stranger = draw_views("bkl", seeds(number + 100), views=1, width=WIDTH, height=HEIGHT)[0]
        assert not np.array_equal(np.asarray(first[1]), np.asarray(second[1]))  # turned, shifted, zoomed
        within.append(np.abs(mean_colour(first) - mean_colour(second)).mean())
        between.append(np.abs(mean_colour(first) - mean_colour(stranger)).mean())
    assert np.mean(within) < 0.75 * np.mean(between)


def test_traits_overlap_and_still_tell_the_classes_apart() -> None:
    rng = np.random.default_rng(1)
    blue_veil = {dx: [draw_traits(dx, rng)["veil"] for _ in range(300)] for dx in ("mel", "nv")}
    assert np.mean(blue_veil["mel"]) > np.mean(blue_veil["nv"]) + 0.2
    assert np.quantile(blue_veil["nv"], 0.95) > np.quantile(blue_veil["mel"], 0.2)


def test_every_class_has_traits_that_exist_and_rivals() -> None:
    assert set(TRAITS) == set(CONFUSED_WITH) == set(CLASSES)
    for dx, traits in TRAITS.items():
        assert set(traits) <= set(NAMES)
        assert set(COMMON | traits) == set(NAMES)
        assert dx not in CONFUSED_WITH[dx]
    assert set(BOUNDS) <= set(NAMES)


@pytest.mark.parametrize(("width", "height"), [(64, 256), (600, 450)])
def test_other_shapes(width: int, height: int) -> None:
    picture, mask = draw_views("vasc", seeds(0), views=1, width=width, height=height)[0]
    assert picture.size == mask.size == (width, height)
    assert 0.05 < (np.asarray(mask) > 0).mean() < 0.42


@pytest.mark.parametrize(("key", "value"), [("lesions", 20), ("width", 63), ("height", 10)])
def test_arguments_that_are_too_small_are_refused(tmp_path: Path, key: str, value: int) -> None:
    arguments = {"lesions": 21, "width": 64, "height": 64} | {key: value}
    refuses(rf"download\.sample\.{key} is {value}, and must be at least", lambda: draw_sample(tmp_path, seed=0, **arguments))
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refuses("nowhere is not a folder: create it", draw_sample, tmp_path / "nowhere", seed=0, lesions=21, width=64, height=64)
