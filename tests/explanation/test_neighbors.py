"""The stage `neighbors`: the search against scikit-learn and by hand, its figures by hand, its pages, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.raw import image_path
from skinlesion.artifacts.splits import SplitFacts, write_splits
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import read_json
from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from skinlesion.explanation.neighbors import search
from skinlesion.explanation.neighbors.embedding import embed
from skinlesion.explanation.neighbors.metrics import measure_neighbors
from skinlesion.explanation.neighbors.pages import NARROWEST, ROWS_A_PAGE, Case, Neighbor, draw_pages
from skinlesion.explanation.neighbors.search import COLUMNS, check_apart, choose_cases, find_neighbors, neighbor_table, vote
from skinlesion.model.classifier import load_ensemble, normalize
from stages import neighbors as stage
from tests.conftest import WriteParams
from tests.model.classifier_cases import make_config, make_network, save_ensemble

SIZE, WIDTH, HEIGHT = 32, 44, 33
CPU = torch.device("cpu")


def directions(count: int, features: int, seed: int) -> np.ndarray:
    """Random rows of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, features)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def listing(lesions: list[str], image_ids: list[str] | None = None, dx: list[str] | None = None) -> pd.DataFrame:
    """A training list."""
    ids = image_ids or [f"T{row:03d}" for row in range(len(lesions))]
    return pd.DataFrame({"image_id": ids, "lesion_id": lesions, "dx": dx or ["nv"] * len(lesions)})


def predictions(rows: list[tuple[str, str, str, str, float]]) -> pd.DataFrame:
    """A prediction table of image, lesion, truth, prediction and its probability; the rest is shared by the others."""
    frame = pd.DataFrame([row[:3] for row in rows], columns=["image_id", "lesion_id", "dx"])
    frame = frame.assign(age=50.0, sex="male", localization="back", dx_type="histo")
    each = [[p if dx == predicted else (1 - p) / 6 for dx in CLASSES] for *_, predicted, p in rows]
    frame[list(LOGIT_COLUMNS)] = np.log(each)
    frame[list(PROBABILITY_COLUMNS)] = each
    return frame


# The search


@pytest.mark.parametrize("cells", [1, 300, search.BLOCK_CELLS])
def test_the_search_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(search, "BLOCK_CELLS", cells)
    wanted, searched = directions(23, 9, 0), directions(60, 9, 1)
    lesions = [f"L{number}" for number in np.random.default_rng(2).permutation(60)]
    found = find_neighbors(wanted, searched, listing(lesions), k=7)
    distances, positions = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(searched).kneighbors(wanted)
    assert found.positions.tolist() == positions.tolist()
    np.testing.assert_allclose(found.similarities, 1 - distances, atol=2e-6)


def test_a_lesion_stands_by_its_nearest_image() -> None:
    wanted, searched = directions(40, 4, 3), directions(90, 4, 4)
    lesions = np.array([f"L{number:02d}" for number in np.random.default_rng(5).integers(0, 25, 90)])
    found = find_neighbors(wanted, searched, listing(lesions.tolist()), k=6)
    order = NearestNeighbors(n_neighbors=90, metric="cosine", algorithm="brute").fit(searched).kneighbors(wanted)[1]
    for row, ranked in enumerate(order):
        first_of_each = [position for place, position in enumerate(ranked) if lesions[position] not in lesions[ranked[:place]]]
        assert found.positions[row].tolist() == first_of_each[:6]


def test_equally_near_images_come_by_their_id() -> None:
    same = np.array([[1.0, 0.0]], dtype=np.float32)
    searched = np.repeat(same, 5, axis=0)
    searched[4] = [0, 1]
    listed = listing(["Z", "A", "Z", "M", "B"], image_ids=["I4", "I9", "I2", "I3", "I1"])
    found = find_neighbors(same, searched, listed, k=4)
    assert listed["image_id"].iloc[found.positions[0]].tolist() == ["I2", "I3", "I9", "I1"]
    assert found.similarities[0].tolist() == [1, 1, 1, 0]
    # Below what float32 knows, nothing is nearer than another: here by 1e-7.
    searched[3] = [0.9999999, 0.0004]
    assert find_neighbors(same, searched, listed, k=3).positions[0].tolist() == [2, 3, 1]


def test_more_neighbours_than_lesions_are_refused() -> None:
    rows = directions(4, 3, 0)
    with pytest.raises(PipelineError, match=r"neighbors\.k is 4, and there are 3 training lesions: set it to 3 at most"):
        find_neighbors(rows, rows, listing(["A", "A", "B", "C"]), k=4)
    assert find_neighbors(rows, rows, listing(["A", "A", "B", "C"]), k=3).positions.shape == (4, 3)


def test_a_test_lesion_among_the_training_lesions_is_refused() -> None:
    test = predictions([("I1", "L1", "mel", "mel", 0.5), ("I2", "T2", "nv", "nv", 0.5)])
    with pytest.raises(PipelineError, match=r"1 lesion\(s\) are in training and in test \(T2\): run `split` again"):
        check_apart(listing(["T1", "T2"]), test)
    check_apart(listing(["T1", "T3"]), test)


@pytest.mark.parametrize(
    ("labels", "voted"),
    [([4, 5, 5], 5), ([4, 5, 5, 4], 4), ([5, 4, 4, 5, 1], 5), ([1, 2, 3], 1), ([0, 6, 6, 2, 2], 6), ([3], 3)],
)
def test_a_tied_vote_goes_to_the_nearest(labels: list[int], voted: int) -> None:
    assert vote(np.array([labels, labels[::-1]])).tolist()[0] == voted


def test_the_table_names_every_neighbour_once() -> None:
    test = predictions([("I1", "L1", "mel", "nv", 0.5), ("I2", "L2", "nv", "nv", 0.5)]).set_index(pd.Index([7, 3]))
    listed = listing(["A", "B", "C"], dx=["mel", "nv", "df"]).set_index(pd.Index([9, 8, 7]))
    found = search.Neighbors(np.array([[2, 0], [1, 2]]), np.array([[0.9, 0.25], [0.5, -0.125]]))
    table = neighbor_table(test, listed, found)
    assert set(table.columns) == set(COLUMNS)
    assert table[list(COLUMNS)].to_numpy().tolist() == [
        ["I1", "L1", "mel", "nv", 1, "T002", "C", "df", 0.9],
        ["I1", "L1", "mel", "nv", 2, "T000", "A", "mel", 0.25],
        ["I2", "L2", "nv", "nv", 1, "T001", "B", "nv", 0.5],
        ["I2", "L2", "nv", "nv", 2, "T002", "C", "df", -0.125],
    ]


def test_missed_melanomas_come_first_then_the_most_confident_errors() -> None:
    test = predictions(
        [
            ("I1", "L1", "nv", "mel", 0.99),
            ("I2", "L2", "mel", "nv", 0.5),
            ("I3", "L3", "nv", "nv", 0.9),
            ("I5", "L4", "bcc", "df", 0.6),
            ("I4", "L4", "bcc", "df", 0.6),
            ("I6", "L5", "mel", "bkl", 0.7),
            ("I7", "L6", "mel", "mel", 0.8),
        ]
    )
    shown = choose_cases(test, cases=9)
    assert shown["image_id"].tolist() == ["I6", "I2", "I1", "I4", "I5"]
    assert shown.iloc[0].tolist() == ["I6", "mel", "bkl", 0.7]
    assert choose_cases(test, cases=3)["image_id"].tolist() == ["I6", "I2", "I1"]
    assert choose_cases(test, cases=0).empty


# The figures

MEL, NV, BCC, DF = (CLASSES.index(dx) for dx in ("mel", "nv", "bcc", "df"))
# truth, prediction, its probability, neighbours' classes; vote and agreement in the comment
CASES = [
    ("mel", "mel", 0.9, [MEL, MEL, NV]),  # mel, agrees, right
    ("mel", "nv", 0.6, [NV, NV, MEL]),  # nv, agrees, wrong
    ("mel", "nv", 0.7, [MEL, NV, BCC]),  # mel, disagrees, wrong
    ("nv", "nv", 0.8, [NV, NV, NV]),  # nv, agrees, right
    ("nv", "nv", 0.5, [DF, MEL, MEL]),  # mel, disagrees, right
    ("bcc", "bcc", 0.95, [BCC, NV, MEL]),  # bcc, agrees, right
    ("df", "nv", 0.55, [DF, NV, DF]),  # df, disagrees, wrong
]


def measured_cases(**options: Any) -> dict[str, Any]:
    rows = [(f"I{row}", f"L{row // 2}", *case[:3]) for row, case in enumerate(CASES)]
    training = listing(["A", "A", "B", "C", "D"], dx=["mel", "mel", "nv", "nv", "nv"])
    labels = np.array([case[3] for case in CASES])
    how = BootstrapParams(**{"draws": 400, "confidence": 0.9, "seed": 0} | options)
    return measure_neighbors(predictions(rows), labels, training, how)


def test_shares_and_agreement_by_hand() -> None:
    found = measured_cases()
    shares = found["share_of_truth"]
    assert shares["all"]["value"] == pytest.approx((2 + 1 + 1 + 3 + 0 + 1 + 2) / 21) and shares["all"]["images"] == 7
    assert shares["by_class"]["mel"]["value"] == pytest.approx(4 / 9)
    assert (shares["by_class"]["mel"]["images"], shares["by_class"]["mel"]["lesions"]) == (3, 2)
    assert shares["by_class"]["mel"]["training_lesions"] == 0.25 and shares["by_class"]["nv"]["training_lesions"] == 0.75
    assert shares["by_class"]["df"]["value"] == pytest.approx(2 / 3) and shares["by_class"]["df"]["training_lesions"] == 0
    assert np.isnan(shares["by_class"]["vasc"]["value"]) and shares["by_class"]["vasc"]["images"] == 0
    agreement = found["agreement"]
    assert {name: agreement["agree"][name] for name in ("images", "lesions", "value")} == {
        "images": 4, "lesions": 3, "value": 0.75,
    }  # fmt: skip
    assert (agreement["disagree"]["images"], agreement["disagree"]["value"]) == (3, pytest.approx(1 / 3))
    assert agreement["difference"]["value"] == pytest.approx(0.75 - 1 / 3)
    assert agreement["agree"]["low"] <= 0.75 <= agreement["agree"]["high"]


def test_vote_and_network_are_those_of_scikit_learn_and_their_difference_is_paired() -> None:
    found = measured_cases()
    truth, predicted = ([case[column] for case in CASES] for column in (0, 1))
    voted = ["mel", "nv", "mel", "nv", "mel", "bcc", "df"]
    for name, said in (("vote", voted), ("network", predicted)):
        melanoma, flagged = np.array(truth) == "mel", np.array(said) == "mel"
        values = {metric: each[name]["value"] for metric, each in found["metrics"].items()}
        assert values == {
            "accuracy": pytest.approx(accuracy_score(truth, said)),
            "balanced_accuracy": pytest.approx(balanced_accuracy_score(truth, said)),
            "mel_sensitivity": pytest.approx(recall_score(melanoma, flagged)),
            "mel_specificity": pytest.approx(recall_score(~melanoma, ~flagged)),
        }
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["difference"]["value"] == pytest.approx(1 / 7)
    # By lesion, one image is gained in the second and the fourth, one lost in the third: what four drawn lesions can give.
    drawn = np.random.default_rng(0).integers(4, size=(400, 4))
    differences = np.array([0, 1, -1, 1])[drawn].sum(axis=1) / np.array([2, 2, 2, 1])[drawn].sum(axis=1)
    assert [accuracy["difference"][end] for end in ("low", "high")] == pytest.approx(np.quantile(differences, [0.05, 0.95]))


def test_errors_are_ranked_as_by_scikit_learn() -> None:
    found = measured_cases()["error_detection"]
    right = [case[0] == case[1] for case in CASES]
    supporting = [np.mean(np.array(labels) == CLASSES.index(predicted)) for _, predicted, _, labels in CASES]
    assert found["neighbors"]["value"] == pytest.approx(roc_auc_score(right, supporting))
    assert found["confidence"]["value"] == pytest.approx(roc_auc_score(right, [case[2] for case in CASES]))
    assert found["difference"]["value"] == pytest.approx(found["neighbors"]["value"] - found["confidence"]["value"])


def test_options_reach_the_bootstrap() -> None:
    def ends(**options: Any) -> tuple[float, float]:
        difference = measured_cases(**options)["error_detection"]["difference"]
        return difference["low"], difference["high"]

    assert len({ends(), ends(seed=1, draws=101), ends(confidence=0.6)}) > 1
    assert ends() == ends() and np.subtract(*ends(confidence=0.6)) > np.subtract(*ends())


# The stage

TRAIN = [(f"ISIC_1{row:02d}", f"T{row // 2}", CLASSES[row // 2 % 3 + 3]) for row in range(20)]  # df, mel, nv
TEST = [
    ("ISIC_01", "L1", "mel", "mel", 0.90),
    ("ISIC_02", "L1", "mel", "nv", 0.50),
    ("ISIC_03", "L2", "mel", "bkl", 0.70),
    ("ISIC_04", "L3", "nv", "nv", 0.80),
    ("ISIC_05", "L4", "nv", "mel", 0.99),
    ("ISIC_06", "L5", "df", "df", 0.60),
]


def make_images(ids: list[str]) -> None:
    """Originals, and the array of them, of random colours; rows in no order of the lists."""
    squares = []
    for number, image_id in enumerate(ids):
        pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((WIDTH, HEIGHT))
        path = image_path(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        squares.append(np.asarray(image.resize((SIZE, SIZE))))
    order = np.random.default_rng(0).permutation(len(ids))
    PREPARED.mkdir(parents=True)
    np.save(PREPARED / "images.npy", np.stack(squares)[order])
    index = pd.DataFrame({"image_id": np.array(ids)[order], "width": WIDTH, "height": HEIGHT, "fit": "squash"})
    index.assign(color_constancy="none").to_csv(PREPARED / "index.csv", index=False)


def make_classifier(*backbones: str, **overrides: Any) -> None:
    """Members m0-0, m1-0, ... of seeded random weights."""
    configs = [make_config(name, member=f"m{number}", **overrides) for number, name in enumerate(backbones)]
    save_ensemble((make_network(config, seed=number), config) for number, config in enumerate(configs))


@pytest.fixture
def ready(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace in which the stage can run."""
    write_params({"machine.device": "cpu", "bootstrap.draws": 100})
    make_images([row[0] for row in (*TRAIN, *TEST)])
    columns = {"dx_type": "histo", "age": 40.0, "sex": "male", "localization": "back"}
    frames = {
        name: pd.DataFrame([row[:3] for row in rows], columns=["image_id", "lesion_id", "dx"]).assign(**columns)
        for name, rows in (("train", TRAIN), ("val", TEST[:1]), ("test", TEST))
    }
    write_splits(frames, SplitFacts("f00d", "sample", True))
    write_predictions({"test": predictions(TEST)})
    make_classifier("squeezenet1_1")
    return workspace


def outputs() -> dict[str, str]:
    """sha256 of every file that the stage wrote."""
    files = [METRICS / "neighbors.json", *(PLOTS / "neighbors").iterdir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_table() -> pd.DataFrame:
    return pd.read_csv(PLOTS / "neighbors" / "neighbors.csv")


def embed_alone(name: str, image_ids: list[str]) -> np.ndarray:
    """A member's features one image at a time, of its head's input, by a hook."""
    model, config = load_ensemble()[name]
    prepared, taken = read_prepared(), []
    model.head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0][0].numpy()))
    with torch.no_grad():
        for row in prepared.rows_of(image_ids):
            model(normalize(torch.from_numpy(prepared.images[[row]]), config))
    rows = np.stack(taken)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_stage_finds_what_scikit_learn_finds_in_the_features_of_the_head(ready: Path) -> None:
    stage.main()
    assert set(outputs()) == {"neighbors.json", "neighbors.csv", "by_class.csv", "neighbors_1.png"}
    table = read_table()
    assert tuple(table.columns) == COLUMNS and len(table) == 5 * len(TEST)
    train_ids, test_ids = ([row[0] for row in rows] for rows in (TRAIN, TEST))
    searched, wanted = embed_alone("m0-0", train_ids), embed_alone("m0-0", test_ids)
    nearest = NearestNeighbors(n_neighbors=20, metric="cosine", algorithm="brute").fit(searched).kneighbors(wanted)
    lesion_of = {image_id: lesion for image_id, lesion, _ in TRAIN}
    for image_id, distances, positions in zip(test_ids, *nearest, strict=True):
        expected: dict[str, tuple[str, float]] = {}
        for distance, position in zip(distances, positions, strict=True):
            expected.setdefault(lesion_of[train_ids[position]], (train_ids[position], 1 - distance))
        rows = table[table["image_id"] == image_id]
        assert rows["rank"].tolist() == [1, 2, 3, 4, 5]
        assert rows["neighbor_image_id"].tolist() == [name for name, _ in list(expected.values())[:5]]
        np.testing.assert_allclose(rows["similarity"], [value for _, value in list(expected.values())[:5]], atol=1e-5)
    assert not set(table["neighbor_lesion_id"]) & set(table["lesion_id"])
    assert table.groupby("image_id")["neighbor_lesion_id"].nunique().eq(5).all()


def test_the_metrics_are_those_of_the_table(ready: Path) -> None:
    stage.main()
    found, table = read_json(METRICS / "neighbors.json"), read_table()
    assert (found["split"], found["k"], found["images"], found["lesions"], found["pictured"]) == ("test", 5, 6, 5, 3)
    assert found["searched"] == {"images": 20, "lesions": 10}
    assert found["images_without_feature"] == {"train": 0, "test": 0}
    assert found["bootstrap"] == {"draws": 100, "unit": "lesion", "confidence": 0.95, "seed": 0}
    shared = (table["neighbor_dx"] == table["dx"]).groupby(table["image_id"]).mean()
    assert found["share_of_truth"]["all"]["value"] == pytest.approx(shared.mean())
    by_class = pd.read_csv(PLOTS / "neighbors" / "by_class.csv").set_index("dx")
    assert list(by_class.index) == list(CLASSES)
    melanomas = [row[0] for row in TEST if row[2] == "mel"]
    assert by_class.at["mel", "share"] == pytest.approx(shared[melanomas].mean())
    assert by_class.at["mel", "support"] == 3 and by_class.at["mel", "training_lesions"] == pytest.approx(0.3)
    assert found["metrics"]["accuracy"]["network"]["value"] == 0.5
    text = (METRICS / "neighbors.json").read_text(encoding="utf-8")
    assert "NaN" not in text and str(ready) not in text and json.loads(text)["split"] == "test"


def test_members_count_alike_and_batches_change_nothing(ready: Path) -> None:
    make_classifier("squeezenet1_1", "resnet18")
    ids = [row[0] for row in TRAIN]
    options = {"device": CPU, "batch_size": 3}
    rows = embed(load_ensemble(), read_prepared(), ids, **options)
    each = [embed_alone(name, ids) for name in ("m0-0", "m1-0")]
    np.testing.assert_allclose(rows @ rows.T, np.mean([one @ one.T for one in each], axis=0), atol=1e-5)
    assert rows.dtype == np.float32 and rows.shape == (20, 512 + 512)
    np.testing.assert_allclose(embed(load_ensemble(), read_prepared(), ids, device=CPU, batch_size=20), rows, atol=1e-5)


def test_metadata_has_no_part_in_it(ready: Path) -> None:
    make_classifier("resnet18", metadata=True)
    rows = embed(load_ensemble(), read_prepared(), ["ISIC_01", "ISIC_02"], device=CPU, batch_size=2)
    assert rows.shape == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_features_that_are_not_finite_or_all_zero(ready: Path, caplog: pytest.LogCaptureFixture) -> None:
    ((model, config),) = load_ensemble().values()
    convolutions = [module for module in model.backbone.modules() if isinstance(module, torch.nn.Conv2d)]
    for layer in convolutions:  # of which the ReLU behind each leaves nothing
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, -1)
    save_ensemble([(model, config)])
    stage.main()
    assert "20 training and 6 test images have no feature at all" in caplog.text
    assert read_json(METRICS / "neighbors.json")["images_without_feature"] == {"train": 20, "test": 6}
    assert read_table()["similarity"].eq(0).all()
    for layer in convolutions:
        torch.nn.init.ones_(layer.bias)
    torch.nn.init.constant_(convolutions[-1].weight, 3e38)  # finite, and no sum of them is
    save_ensemble([(model, config)])
    with pytest.raises(PipelineError, match=r"classifier 'm0-0' gives features that are not finite"):
        stage.main()


def test_equal_input_gives_equal_bytes_and_params_are_read(
    ready: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        stage, "draw_pages", lambda *args, title, **rest: titles.append(title) or draw_pages(*args, title=title, **rest)
    )
    stage.main()
    first = outputs()
    (PLOTS / "neighbors" / "neighbors_2.png").write_bytes(b"of an earlier run")
    stage.main()
    assert outputs() == first and not list(ready.rglob("*.partial"))
    write_params({"machine.device": "cpu", "bootstrap.draws": 100, "neighbors.k": 2, "neighbors.cases": 1})
    stage.main()
    found = read_json(METRICS / "neighbors.json")
    assert (found["k"], found["pictured"], len(read_table())) == (2, 1, 2 * len(TEST))
    assert titles[0].startswith("Errors on split 'test' and the 5 training lesions nearest") and "synthetic images" in titles[0]
    write_params({"neighbors.k": 11, "machine.device": "cpu"})
    with pytest.raises(PipelineError, match=r"neighbors\.k is 11, and there are 10 training lesions"):
        stage.main()
    write_params({"neighbors.k": 0})
    with pytest.raises(PipelineError, match=r"neighbors\.k = 0: input should be greater than or equal to 1"):
        stage.main()


def test_the_pages_show_the_originals_and_what_is_shared(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Case] = []
    monkeypatch.setattr(stage, "draw_pages", lambda cases, *_, **__: drawn.extend(cases))
    stage.main()
    assert [case.title.partition("\n")[0] for case in drawn] == ["ISIC_03", "ISIC_02", "ISIC_05"]
    assert drawn[0].title == "ISIC_03\ntruth mel, predicted bkl 0.70"
    table = read_table()
    for case in drawn:
        rows = table[table["image_id"] == case.title.partition("\n")[0]]
        with Image.open(image_path(rows["image_id"].iloc[0])) as image:
            assert np.array_equal(case.image, np.asarray(image))
        for row, neighbor in zip(rows.itertuples(), case.neighbors, strict=True):
            with Image.open(image_path(row.neighbor_image_id)) as image:
                assert np.array_equal(neighbor.image, np.asarray(image))
            shares = {row.predicted: "prediction", row.dx: "truth"}.get(row.neighbor_dx, "neither")
            words = {"truth": " = truth", "prediction": " = predicted", "neither": ""}[shares]
            said = f"{row.rank}: {row.neighbor_image_id}\n{row.neighbor_dx}{words}, {row.similarity:.3f}"
            assert (neighbor.shares, neighbor.title) == (shares, said)


def test_inputs_that_do_not_belong_together(ready: Path) -> None:
    make_classifier("squeezenet1_1", fingerprint="beef")
    with pytest.raises(
        PipelineError, match=r"models/classifier was trained on other lists than those in data/splits.*run `train`"
    ):
        stage.main()
    make_classifier("squeezenet1_1", fit="pad")
    with pytest.raises(PipelineError, match=r"prepared at 32 px with fit 'squash'.*trained at .*fit 'pad'"):
        stage.main()
    make_classifier("squeezenet1_1")
    table = read_predictions("test")
    write_predictions({"test": table.assign(lesion_id="T3")})
    with pytest.raises(PipelineError, match=r"in training and in test \(T3\)"):
        stage.main()
    write_predictions({"test": table.replace({"image_id": {"ISIC_04": "ISIC_99"}})})
    with pytest.raises(PipelineError, match=r"ISIC_99 is listed in a split and was not prepared"):
        stage.main()
    assert not PLOTS.exists() and not METRICS.exists()


def test_a_damaged_original_leaves_nothing_half_written(ready: Path) -> None:
    path = image_path("ISIC_03")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PipelineError, match=r"ISIC_03\.jpg is not readable .*run `download` again"):
        stage.main()
    assert not METRICS.exists() and not (PLOTS / "neighbors").exists()


# The pages


def make_case(neighbors: int = 2) -> Case:
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    shares = ("truth", "prediction", "neither")
    return Case(pixels, "I\nt", [Neighbor(pixels, "N\nd", shares[number % 3]) for number in range(neighbors)])  # type: ignore[arg-type]


def test_pages_are_full_before_the_next_one_begins(tmp_path: Path) -> None:
    cases = (make_case() for _ in range(ROWS_A_PAGE + 1))
    written = draw_pages(cases, tmp_path, title="two pages", neighbors=2)
    assert [page.name for page in written] == ["neighbors_1.png", "neighbors_2.png"]
    with Image.open(written[0]) as first, Image.open(written[1]) as second:
        assert first.width == second.width == round(NARROWEST * 90)
        assert first.height > 5 * second.height
        assert not {"Software", "Creation Time"} & set(first.info)
    (tmp_path / "empty").mkdir()
    (empty,) = draw_pages([], tmp_path / "empty", title="nothing", neighbors=5)
    assert empty.name == "neighbors_1.png"


@pytest.mark.parametrize("neighbors", [1, 5, 20])
def test_nothing_is_cut_off(tmp_path: Path, neighbors: int) -> None:
    (page,) = draw_pages([make_case(neighbors)], tmp_path, title="a title of a hundred characters " * 3, neighbors=neighbors)
    with Image.open(page) as image:
        pixels = np.asarray(image.convert("L"))
    assert all((edge == 255).all() for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]))


def test_frames_differ_without_colour(tmp_path: Path) -> None:
    """How much of a frame's upper edge is drawn, and in how many pieces."""
    pixels = np.full((30, 40, 3), 255, dtype=np.uint8)
    neighbors = [Neighbor(pixels, "", shares) for shares in ("truth", "prediction", "neither")]
    (page,) = draw_pages([Case(pixels, "", neighbors)], tmp_path, title="", neighbors=3)
    with Image.open(page) as image:
        inked = np.asarray(image.convert("L")) < 200
    edges = []
    for start in (281, 484, 686):  # of the neighbours' cells, pixels, a little inside their frames
        cell = inked[60:, start : start + 160]
        edges.append(cell[cell.sum(axis=1).argmax()])
    drawn = [edge.mean() for edge in edges]
    pieces = [(np.diff(edge.astype(int)) == 1).sum() for edge in edges]
    assert drawn[0] == 1 and 0.6 < drawn[1] < 0.9 and 0.3 < drawn[2] < 0.9
    assert pieces[0] == 0 and 2 * pieces[1] < pieces[2]
