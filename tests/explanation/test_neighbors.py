"""The stage `neighbors`: what it finds, writes and pictures, against scikit-learn, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.raw import image_path
from skinlesion.base.files import read_json
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from skinlesion.explanation.neighbors.embedding import embed
from skinlesion.explanation.neighbors.pages import CaseWithNeighbors, draw_pages
from skinlesion.explanation.neighbors.search import COLUMNS
from skinlesion.model.classifier import load_ensemble, normalize
from stages import neighbors as stage
from tests.conftest import WriteParams, refuses
from tests.explanation.workspace import HEIGHT, WIDTH, make_classifier, outputs, write_images
from tests.model.classifier_cases import save_ensemble
from tests.stage_cases import predictions_of, write_lists

CPU = torch.device("cpu")


TRAIN = [(f"ISIC_1{row:02d}", f"T{row // 2}", CLASSES[row // 2 % 3 + 3]) for row in range(20)]  # df, mel, nv
TEST = [
    ("ISIC_01", "L1", "mel", "mel", 0.90),
    ("ISIC_02", "L1", "mel", "nv", 0.50),
    ("ISIC_03", "L2", "mel", "bkl", 0.70),
    ("ISIC_04", "L3", "nv", "nv", 0.80),
    ("ISIC_05", "L4", "nv", "mel", 0.99),
    ("ISIC_06", "L5", "df", "df", 0.60),
]


def colours(number: int) -> np.ndarray:
    """An image of random colours."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((WIDTH, HEIGHT)))


@pytest.fixture
def ready(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace in which the stage can run."""
    write_params({"machine.device": "cpu", "bootstrap.draws": 100})
    write_images({row[0]: colours(number) for number, row in enumerate((*TRAIN, *TEST))})
    table = predictions_of(TEST)
    write_lists({"train": predictions_of((*row, "nv", 0.5) for row in TRAIN), "val": table.head(1), "test": table})
    write_predictions({"test": table})
    make_classifier("squeezenet1_1")
    return workspace


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
    assert set(outputs("neighbors")) == {"neighbors.json", "neighbors.csv", "by_class.csv", "neighbors_1.png"}
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
    rows = embed(load_ensemble(), read_prepared(), ids, device=CPU, batch_size=3)
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
    refuses(r"classifier 'm0-0' gives features that are not finite", stage.main)


def test_bytes_depend_on_input_and_params(ready: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        stage, "draw_pages", lambda *args, title, **k: titles.append(title) or draw_pages(*args, title=title, **k)
    )
    stage.main()
    first = outputs("neighbors")
    (PLOTS / "neighbors" / "neighbors_2.png").write_bytes(b"of an earlier run")
    stage.main()
    assert outputs("neighbors") == first and not list(ready.rglob("*.partial"))
    write_params({"machine.device": "cpu", "bootstrap.draws": 100, "neighbors.k": 2, "neighbors.cases": 1})
    stage.main()
    found = read_json(METRICS / "neighbors.json")
    assert (found["k"], found["pictured"], len(read_table())) == (2, 1, 2 * len(TEST))
    assert titles[0].startswith("Errors on split 'test' and the 5 training lesions nearest") and "synthetic images" in titles[0]
    write_params({"neighbors.k": 11, "machine.device": "cpu"})
    refuses(r"neighbors\.k is 11, and there are 10 training lesions: set it to 10 at most", stage.main)
    write_params({"neighbors.k": 0})
    refuses(r"neighbors\.k = 0: input should be greater than or equal to 1", stage.main)


def test_the_pages_show_the_originals_and_what_is_shared(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[CaseWithNeighbors] = []
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
            message = f"{row.rank}: {row.neighbor_image_id}\n{row.neighbor_dx}{words}, {row.similarity:.3f}"
            assert (neighbor.shares, neighbor.title) == (shares, message)


def test_inputs_that_do_not_belong_together(ready: Path) -> None:
    make_classifier("squeezenet1_1", fingerprint="beef")
    refuses(r"models/classifier was trained on other lists than those in data/splits.*run `train`", stage.main)
    make_classifier("squeezenet1_1", fit="pad")
    refuses(r"prepared at 32 px with fit 'squash'.*trained at .*fit 'pad'", stage.main)
    make_classifier("squeezenet1_1")
    table = read_predictions("test")
    write_predictions({"test": table.assign(lesion_id="T3")})
    refuses(r"1 lesion\(s\) are in training and in test \(T3\): run `split` again", stage.main)
    write_predictions({"test": table.replace({"image_id": {"ISIC_04": "ISIC_99"}})})
    refuses(r"ISIC_99 is listed in a split and was not prepared", stage.main)
    assert not PLOTS.exists() and not METRICS.exists()


def test_a_damaged_original_leaves_nothing_half_written(ready: Path) -> None:
    path = image_path("ISIC_03")
    path.write_bytes(path.read_bytes()[:200])
    refuses(r"ISIC_03\.jpg is not readable .*run `download` again", stage.main)
    assert not METRICS.exists() and not (PLOTS / "neighbors").exists()
