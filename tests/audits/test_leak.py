"""The leak demonstration: who learns from what, what is measured where there is a leak and where there is none, and a restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score

import extras.leak
from skinlesion.artifacts.splits import SPLIT_NAMES, SPLITS
from skinlesion.artifacts.tables import labels_of
from skinlesion.audits import leak
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.results.predictions import read_predictions
from skinlesion.training import fit
from tests.conftest import WriteParams, refuses, resamples
from tests.stage_cases import PATIENT, bytes_below, probabilities_of, read_metrics, write_lists, write_prepared

SIDE = 32
FOLDS = {"folds": 3, "validation_folds": 6}
RECIPE = {"backbone": "resnet18", "epochs": 5, "batch_size": 16, "lr": 0.002, "class_weights": "none", "select_by": "loss"}
RECIPE |= {"patience": 99, "augmentation.preset": "none"}
TINY = {f"split.{name}": value for name, value in FOLDS.items()} | {f"train.{name}": value for name, value in RECIPE.items()}
TINY["bootstrap.draws"] = 100
SMALL = {"train.backbone": "squeezenet1_1", "train.epochs": 2, "split.validation_folds": 3}


def make_images(*, pairs: int, singles: int) -> pd.DataFrame:
    """Of each diagnosis so many lesions of two photographs, and of one; in no particular order."""
    photographs = [2] * pairs + [1] * singles
    rows = [(f"L_{dx}_{number:03d}", dx) for dx in CLASSES for number, many in enumerate(photographs) for _ in range(many)]
    frame = pd.DataFrame(rows, columns=["lesion_id", "dx"]).assign(**PATIENT)
    frame["image_id"] = [f"ISIC_{number:07d}" for number in range(len(frame))]
    return frame.sample(frac=1, random_state=3).reset_index(drop=True)


@pytest.fixture(scope="module")
def images() -> pd.DataFrame:
    return make_images(pairs=13, singles=6)


@pytest.fixture(scope="module")
def lists(images: pd.DataFrame) -> leak.Lists:
    return leak.make_lists(images, **FOLDS, seed=0)


def lesions(frame: pd.DataFrame) -> set[str]:
    return set(frame["lesion_id"])


def test_lesion_level_training_and_validation_share_no_lesion_with_test(lists: leak.Lists) -> None:
    assert not lesions(lists.train["lesion_level"]) & lesions(lists.test)
    assert not lesions(lists.val) & (lesions(lists.test) | lesions(lists.dealt))
    assert len(lesions(lists.train["image_level"]) & lesions(lists.test)) > 15
    clean = lists.dealt[~lists.dealt["lesion_id"].isin(lists.test["lesion_id"])]
    assert set(lists.train["lesion_level"]["image_id"]) == set(clean["image_id"])
    for arm in leak.ARMS:
        assert lists.of(arm)["test"] is lists.test and lists.of(arm)["val"] is lists.val
        assert set(lists.train[arm]["image_id"]) <= set(lists.dealt["image_id"])
        assert not set(lists.train[arm]["image_id"]) & set(lists.test["image_id"])


def test_the_deal_is_by_image_in_the_shares_of_the_split(images: pd.DataFrame, lists: leak.Lists) -> None:
    train, val, test = leak.deal_by_image(images, **FOLDS, seed=0)
    assert sorted([*train["image_id"], *val["image_id"], *test["image_id"]]) == sorted(images["image_id"])
    assert len(test) == pytest.approx(len(images) / 3, abs=1) and len(val) == pytest.approx(len(images) / 9, abs=1)
    assert test["dx"].value_counts().between(10, 11).all()
    assert lists.dealt.equals(train) and lists.test.equals(test)


def test_both_learn_from_as_many_images_of_each_diagnosis_and_photograph_count(images: pd.DataFrame, lists: leak.Lists) -> None:
    many = images.groupby("lesion_id").size()
    trained = [lists.train[arm] for arm in leak.ARMS]
    counted = [frame.assign(many=frame["lesion_id"].map(many)).groupby(["dx", "many"]).size() for frame in trained]
    assert counted[0].equals(counted[1]) and len(lists.train["image_level"]) < len(lists.dealt)
    assert set(counted[0].index.get_level_values("many")) == {1, 2}


def test_lists_depend_on_the_seed_and_not_on_the_order_of_the_rows(images: pd.DataFrame, lists: leak.Lists) -> None:
    def ids(made: leak.Lists) -> list[list[str]]:
        frames = [made.dealt, *made.train.values(), made.val, made.test]
        return [frame["image_id"].tolist() for frame in frames]

    assert ids(leak.make_lists(images[::-1], **FOLDS, seed=0)) == ids(lists)
    assert ids(leak.make_lists(images, **FOLDS, seed=1)) != ids(lists)


def test_siblings_are_counted_by_diagnosis() -> None:
    test = pd.DataFrame({"lesion_id": ["a", "a", "b", "c"], "dx": ["mel", "mel", "mel", "nv"]})
    counted = leak.count_siblings(test, pd.DataFrame({"lesion_id": ["a", "d", "c", "c"]}))
    assert (counted["images"], counted["share"]) == (3, 0.75)
    assert counted["per_class"] == {"mel": {"images": 2, "share": 2 / 3}, "nv": {"images": 1, "share": 1.0}}


def test_merged_lesions_are_siblings(images: pd.DataFrame, lists: leak.Lists) -> None:
    """`split.links` gives two lesions one id, which the lists of the split then hold."""
    alone = images["lesion_id"].duplicated(keep=False)
    test_only = lists.test.loc[lists.test["lesion_id"].isin(images.loc[~alone, "lesion_id"]), ["lesion_id", "dx"]].iloc[0]
    twin = lists.dealt.loc[(lists.dealt["dx"] == test_only["dx"]) & ~lists.dealt["lesion_id"].isin(lists.test["lesion_id"])]
    merged = images.replace({"lesion_id": {twin["lesion_id"].iloc[0]: test_only["lesion_id"]}})
    again = leak.make_lists(merged, **FOLDS, seed=0)
    assert twin["image_id"].iloc[0] in set(lists.train["lesion_level"]["image_id"])
    assert twin["image_id"].iloc[0] in set(again.dealt["image_id"]) - set(again.train["lesion_level"]["image_id"])


def test_lists_that_show_nothing_are_refused() -> None:
    alone = make_images(pairs=0, singles=12)
    message = r"no test image has a sibling.*\(84 lesions have 84 images\).*nothing to show"
    refuses(message, leak.make_lists, alone, **FOLDS, seed=0)
    torn = make_images(pairs=8, singles=8)
    torn["lesion_id"] = torn["lesion_id"].where(torn["dx"] != "df", "L_df_all")
    refuses(r"no training image of df is left.*leak\.seed", leak.make_lists, torn, **FOLDS, seed=0)
    few = make_images(pairs=3, singles=3)
    few = few[(few["dx"] != "vasc") | ~few["dx"].duplicated()]
    refuses(r"cannot be dealt.*add images", leak.make_lists, few, **FOLDS, seed=0)
    twins = make_images(pairs=10, singles=0)
    refuses(r"no validation image is left", leak.make_lists, twins, folds=2, validation_folds=10, seed=0)


def test_inflation_is_the_difference_in_each_group() -> None:
    generator = np.random.default_rng(0)
    listed = make_images(pairs=10, singles=10)
    labels, siblings = labels_of(listed), listed["lesion_id"].duplicated(keep=False).to_numpy()
    lesion_level = generator.normal(size=(len(listed), 7))
    image_level = lesion_level + np.where(siblings, 3.0, 0.0)[:, None] * np.eye(7)[labels]
    logits = {"image_level": image_level, "lesion_level": lesion_level}
    tables = {name: leak.prediction_table(listed, each) for name, each in logits.items()}
    rows = leak.measure_inflation(tables, siblings, resamples(100, confidence=0.9))
    assert tuple(rows.columns) == leak.COLUMNS
    expected = [(group, name) for group in leak.GROUPS for name in HEADLINE]
    assert rows[["group", "metric"]].apply(tuple, axis=1).tolist() == expected
    found = rows.set_index(["group", "metric"])
    right = {name: accuracy_score(labels[siblings], each[siblings].argmax(axis=1)) for name, each in logits.items()}
    gained = right["image_level"] - right["lesion_level"]
    assert found.at[("with_siblings", "accuracy"), "inflation"] == pytest.approx(gained) and gained > 0.2
    assert found.at[("all", "accuracy"), "inflation"] == pytest.approx(gained * siblings.mean())
    assert found.loc["without_siblings"][["inflation", "low", "high"]].eq(0).all(axis=None)
    assert found.at[("with_siblings", "accuracy"), "low"] > 0
    described = leak.describe_inflation(rows)
    assert described["with_siblings"]["images"] == siblings.sum() and described["with_siblings"]["melanoma_lesions"] == 10
    assert described["all"]["metrics"]["accuracy"]["inflation"] == found.at[("all", "accuracy"), "inflation"]
    whole = leak.measure_inflation(tables, np.ones(len(siblings), dtype=bool), resamples(100, confidence=0.9))
    assert leak.describe_inflation(whole)["without_siblings"] is None


def write_inputs(images: pd.DataFrame) -> None:
    """Split lists and prepared images that tell nothing of the diagnosis, and each lesion from every other."""
    generator = np.random.default_rng(1)
    lesion = pd.factorize(images["lesion_id"])[0]
    patterns = generator.integers(0, 256, size=(lesion.max() + 1, 4, 4, 3))
    drawn = patterns[lesion].repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)
    write_prepared(images["image_id"], drawn + generator.normal(0, 8, size=drawn.shape))
    write_lists({name: images[number::3] for number, name in enumerate(SPLIT_NAMES)})


@pytest.fixture
def small_workspace(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace with everything that the script reads, and little to train."""
    write_inputs(make_images(pairs=6, singles=6))
    write_params(TINY | SMALL)
    return workspace


def written() -> dict[str, bytes]:
    """Bytes of everything that the script writes."""
    return bytes_below("metrics/extras", extras.leak.TABLES, extras.leak.LEAK_PLOTS)


def test_a_network_that_can_only_know_lesions_by_sight_is_right_by_the_leak_alone(
    write_params: WriteParams,
    images: pd.DataFrame,
    lists: leak.Lists,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_inputs(images)
    write_params(TINY)
    # Validation has no siblings and so knows nothing of what is learnt here: the last epoch is kept.
    monkeypatch.setattr(fit, "is_better", lambda *_, **__: True)
    splits = bytes_below(SPLITS)
    caplog.set_level("INFO")
    extras.leak.main()
    found: dict[str, Any] = read_metrics("extras/leak")
    accuracy = {group: found[group]["metrics"]["accuracy"] for group in leak.GROUPS}
    assert accuracy["with_siblings"]["image_level"] > 0.6 and accuracy["with_siblings"]["low"] > 0.2
    assert accuracy["with_siblings"]["lesion_level"] < 0.35  # chance is 1/7
    assert abs(accuracy["without_siblings"]["inflation"]) < 0.25
    assert found["siblings"]["image_level"] == leak.count_siblings(lists.test, lists.train["image_level"])
    assert found["siblings"]["dealt"]["share"] > found["siblings"]["image_level"]["share"] > 0
    for arm in leak.ARMS:
        table = read_predictions(arm, extras.leak.TABLES)
        assert table["image_id"].tolist() == lists.test["image_id"].tolist()
        assert accuracy_score(labels_of(table), probabilities_of(table).argmax(axis=1)) == pytest.approx(accuracy["all"][arm])
        assert found["trainings"][f"{arm}-0"]["accuracy"] == pytest.approx(accuracy["all"][arm])
    assert found["lists"]["image_level"]["class_counts"] == found["lists"]["lesion_level"]["class_counts"]
    assert len(pd.read_csv(extras.leak.LEAK_PLOTS / "history.csv")) == 10
    assert f"accuracy {accuracy['all']['inflation']:+.3f} ({accuracy['all']['low']:+.3f} to " in caplog.text
    assert bytes_below(SPLITS) == splits
    assert not list(Path(".resume").rglob("*.pt"))


def test_a_stop_changes_nothing(small_workspace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    extras.leak.main()
    undisturbed = written()
    trained: list[int] = []
    train_one_epoch: Callable[..., dict[str, float]] = fit.train_one_epoch

    def stopping(training: Any, epoch: int) -> dict[str, float]:
        trained.append(epoch)
        if len(trained) == 4:
            raise KeyboardInterrupt
        return train_one_epoch(training, epoch)

    monkeypatch.setattr(fit, "train_one_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        extras.leak.main()
    assert written() == undisturbed and len(list((small_workspace / ".resume" / "train").glob("*.pt"))) == 2
    caplog.set_level("INFO")
    extras.leak.main()
    assert trained == [1, 2, 1, 2, 2] and caplog.text.count("resuming from") == 2
    assert written() == undisturbed
    assert not list((small_workspace / ".resume").rglob("*.pt"))


def test_probabilities_of_several_seeds_are_averaged(small_workspace: Path, write_params: WriteParams) -> None:
    tables, accuracies = [], []
    for seeds in ([0], [5], [0, 5]):
        write_params(TINY | SMALL | {"train.epochs": 1, "train.warmup_epochs": 0.0, "leak.seeds": seeds})
        extras.leak.main()
        tables.append(probabilities_of(read_predictions("image_level", extras.leak.TABLES)))
        found = read_metrics("extras/leak")
        accuracies.append(found["all"]["metrics"]["accuracy"]["inflation"])
    assert np.allclose(tables[2], (tables[0] + tables[1]) / 2, atol=1e-5) and not np.allclose(tables[0], tables[1], atol=1e-3)
    assert set(found["trainings"]) == {f"{arm}-{seed}" for arm in leak.ARMS for seed in (0, 5)}
    assert found["spread_over_seeds"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracies[:2]))


def test_overrides_are_checked_and_hold_no_machine(write_params: WriteParams) -> None:
    write_params(TINY | {"leak.overrides": {"devices": 1, "patience": 0}})
    refuses(r"leak\.overrides.*: train\.patience = 0.*; train\.devices: .* machine\.devices now", extras.leak.main)
    assert not Path("metrics/extras/leak.json").exists()
