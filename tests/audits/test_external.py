"""The stage `external` on a small real classifier: figures against scikit-learn and by hand, the proof, and what is refused."""

from __future__ import annotations

import copy
import io
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from PIL import Image
from ruamel.yaml import YAML
from sklearn import metrics as sklearn_metrics

from extras import external
from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.raw import RAW, image_path, list_images, read_metadata
from skinlesion.artifacts.splits import SPLIT_NAMES, SplitFacts, fingerprint, read_split, write_splits
from skinlesion.artifacts.tables import LOGIT_COLUMNS, PROBABILITY_COLUMNS, labels_of
from skinlesion.audits.external.comparison import OVER_CLASSES, Draws
from skinlesion.audits.external.dataset import EXTERNAL, read_external
from skinlesion.audits.external.overlap import SAME_PICTURE, nearest_thumbnails, read_contents
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import read_json, write_json
from skinlesion.config.contents import Calibration
from skinlesion.data.preparing import write_prepared
from skinlesion.data.sample.sample import draw_sample
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import predict_ensemble
from skinlesion.evaluation.inference.predictions import prediction_table, vote
from skinlesion.evaluation.metrics.bootstrap import lesion_weights
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.metrics.classification import HEADLINE
from skinlesion.evaluation.results.decisions import read_operating_points, write_calibration, write_operating_points
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from skinlesion.model.classifier import load_ensemble
from tests.model.classifier_cases import last_linear, make_config, make_network, save_ensemble

CPU = torch.device("cpu")
SIZE, DRAWS = 32, 100
CALIBRATION = {
    "method": "temperature",
    "scale": [0.4] * 7,
    "bias": [0.0] * 7,
    "fitted_on": "val",
    "temperature": 2.5,
    "test_time": "flips",
}
POINTS = {
    "target": "malignant",
    "classes": ["mel", "bcc", "akiec"],
    "score": "sum of calibrated probabilities",
    "rule": "flag when score >= threshold",
    "chosen_on": "val",
}


Run = tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]


def split_lesions(metadata: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A third of each diagnosis' lesions to each list."""
    lesions = metadata.drop_duplicates("lesion_id")
    rank = lesions.groupby("dx").cumcount().set_axis(lesions["lesion_id"]) % 3
    return {name: metadata[metadata["lesion_id"].map(rank) == row] for row, name in enumerate(SPLIT_NAMES)}


def write_set(folder: Path, *, seed: int, lesions: int, prefix: str) -> pd.DataFrame:
    """Drawn images laid out as `data/raw`, under ids that begin with `prefix`."""
    folder.mkdir(parents=True)
    metadata = draw_sample(folder, seed=seed, lesions=lesions, width=64, height=64)
    shutil.rmtree(folder / "segmentations")
    for path in list((folder / "images").iterdir()):
        path.rename(path.with_name(path.name.replace("SYNTH_", prefix)))
    ids = {name: metadata[name].str.replace("SYNTH_", prefix) for name in ("image_id", "lesion_id")}
    return rewrite(metadata.assign(**ids), folder)


def rewrite(metadata: pd.DataFrame, folder: Path = EXTERNAL, **stated: Any) -> pd.DataFrame:
    """Write a set's metadata and provenance, and remove the images that are not in it."""
    metadata.to_csv(folder / "metadata.csv", index=False)
    for path in (folder / "images").iterdir():
        if path.stem not in set(metadata["image_id"]):
            path.unlink()
    said = {"source": "local", "synthetic": True, "origin": "here", "licence": "CC0", "counts": {}}
    write_json(folder / "provenance.json", said | {"lesions_known": True, "left_out": []} | stated)
    return read_metadata(folder)


def save_classifier(splits: dict[str, pd.DataFrame], **overrides: Any) -> None:
    """Two members with random weights, whose logits are spread enough to give every class now and then."""
    members = []
    for seed in (0, 1):
        config = make_config("shufflenet_v2_x0_5", seed=seed, size=SIZE, fingerprint=fingerprint(splits), **overrides)
        model = make_network(config, seed=seed)
        torch.nn.init.normal_(last_linear(model).weight, std=3.0)
        members.append((model, config))
    save_ensemble(members)


def predicted(metadata: pd.DataFrame, raw: Path) -> pd.DataFrame:
    """The prediction table of a set, put together here."""
    write_prepared(list(metadata["image_id"]), size=SIZE, fit="squash", color_constancy="none", workers=1, raw=raw)
    each = predict_ensemble(load_ensemble(), read_prepared(), metadata, device=CPU, batch_size=7, test_time="flips")
    shutil.rmtree(PREPARED)
    return prediction_table(metadata, vote(each, "flips"), Calibrator.of(Calibration(**CALIBRATION)))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, repository_params: dict[str, Any]) -> Path:
    """A folder with all that the stage reads."""
    folder = tmp_path_factory.mktemp("external")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        metadata = write_set(RAW, seed=1, lesions=45, prefix="OURS_")
        write_set(EXTERNAL, seed=2, lesions=42, prefix="THEIRS_")
        splits = split_lesions(metadata)
        write_splits(splits, SplitFacts(fingerprint(splits), "sample", True))
        save_classifier(splits)
        write_calibration(CALIBRATION)
        table = predicted(splits["test"], RAW)
        write_predictions({"val": table, "test": table})
        median = float(table[["probability_mel", "probability_bcc", "probability_akiec"]].sum(axis=1).median())
        write_operating_points(POINTS | {"points": {"recall_0.90": {"constraint": 0.9, "threshold": median, "val": {}}}})
        document = copy.deepcopy(repository_params)
        document["external"] |= {"device": "cpu", "bootstrap_draws": DRAWS, "batch_size": 16}
        document["evaluate"]["test_time"] = "flips"
        with Path("params.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(document, file)
    return folder


@pytest.fixture(scope="module")
def measured(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The stage's metrics and predictions there, and the test predictions."""
    folder = tmp_path_factory.mktemp("measured")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return *run_stage(), read_predictions("test")


@pytest.fixture
def project(template: Path, workspace: Path) -> Path:
    """A copy of that folder, the working directory."""
    shutil.copytree(template, workspace, dirs_exist_ok=True)
    return workspace


def run_stage() -> tuple[dict[str, Any], pd.DataFrame]:
    """Run the stage; its metrics and predictions."""
    external.main()
    metrics = json.loads(Path("metrics/extras/external.json").read_text(encoding="utf-8"))
    return metrics, read_predictions("predictions", external.PREDICTIONS)


def classes_of(table: pd.DataFrame) -> np.ndarray:
    return np.array(CLASSES)[table[list(PROBABILITY_COLUMNS)].to_numpy().argmax(axis=1)]


def test_predictions_are_the_ensembles_with_the_frozen_temperature(project: Path) -> None:
    metadata = read_metadata(EXTERNAL)
    expected = predicted(metadata, EXTERNAL)
    _, table = run_stage()
    assert sorted(path.name for path in external.PREDICTIONS.iterdir()) == ["predictions.csv"]
    assert list(table["image_id"]) == list(metadata["image_id"])
    logits = table[list(LOGIT_COLUMNS)].to_numpy()
    assert logits == pytest.approx(expected[list(LOGIT_COLUMNS)].to_numpy(), abs=2e-5)
    assert scipy.special.softmax(logits / 2.5, axis=1) == pytest.approx(table[list(PROBABILITY_COLUMNS)].to_numpy())
    assert table["dx"].equals(metadata["dx"]) and table["age"].equals(metadata["age"])


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_both_sets_are_measured_alike_and_their_difference_from_independent_draws(measured: Run) -> None:
    metrics, *both = measured
    tables = dict(zip(("external", "test"), both, strict=True))
    assert metrics["absent_classes"] == {"external": [], "test": []}
    drawn = {}
    for name, each in tables.items():
        truth, guessed, compared = each["dx"], classes_of(each), metrics["compared"][name]
        balanced = sklearn_metrics.balanced_accuracy_score(truth, guessed)
        assert compared["balanced_accuracy"]["value"] == pytest.approx(balanced, abs=1e-12)
        assert metrics["challenge"][name] == compared["balanced_accuracy"] and metrics["challenge"]["classes"][name] == 7
        assert compared["recall_mel"]["value"] == pytest.approx((guessed[truth == "mel"] == "mel").mean(), abs=1e-12)
        assert {metric: metrics[name][metric] for metric in HEADLINE} == {
            metric: compared[metric]["value"] for metric in HEADLINE
        }
        assert metrics[name]["images"] == len(each) and metrics[name]["per_class"]["nv"]["support"] == (truth == "nv").sum()
        probabilities = each[list(PROBABILITY_COLUMNS)].to_numpy()
        assert metrics[name]["nll_after"] == pytest.approx(sklearn_metrics.log_loss(truth, probabilities), abs=1e-9)
        right = (guessed == truth).to_numpy()
        seed = Draws(DRAWS, 0.95, 0).seed_of(name)
        drawn[name] = np.array(
            [
                np.average(right, weights=row)
                for row in np.concatenate([*lesion_weights(each["lesion_id"], draws=DRAWS, seed=seed)])
            ]
        )
    difference = metrics["compared"]["difference"]["accuracy"]
    values = [metrics["compared"][name]["accuracy"]["value"] for name in ("external", "test")]
    assert difference["value"] == pytest.approx(values[0] - values[1], abs=1e-12)
    ends = np.quantile(drawn["external"] - drawn["test"], [0.025, 0.975])
    assert [difference["low"], difference["high"]] == pytest.approx(list(ends), abs=1e-12)
    assert Draws(DRAWS, 0.95, 0).seed_of("test") == 0 != Draws(DRAWS, 0.95, 0).seed_of("external")


def test_frozen_thresholds_are_applied_to_both(measured: Run, project: Path) -> None:
    metrics, *both = measured
    stated = metrics["operating_points"]
    chosen = read_operating_points().points["recall_0.90"].threshold
    assert stated["target"] == "malignant" and stated["points"]["recall_0.90"]["threshold"] == chosen
    for name, each in zip(("external", "test"), both, strict=True):
        positive = each["dx"].isin(POINTS["classes"])
        scores = each[["probability_mel", "probability_bcc", "probability_akiec"]].sum(axis=1)
        rates = stated["points"]["recall_0.90"][name]
        assert rates["sensitivity"]["value"] == pytest.approx((scores[positive] >= chosen).mean(), abs=1e-9)
        assert rates["specificity"]["value"] == pytest.approx((scores[~positive] < chosen).mean(), abs=1e-9)
        assert rates["precision"]["value"] == pytest.approx(positive[scores >= chosen].mean(), abs=1e-9)
        assert rates["sensitivity"]["low"] < rates["sensitivity"]["value"] < rates["sensitivity"]["high"]
        assert stated["auc"][name]["value"] == pytest.approx(sklearn_metrics.roc_auc_score(positive, scores), abs=1e-9)
        assert stated["positives"][name] == positive.sum()


def test_what_is_written_beside(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        metrics, table = run_stage()
    proof = metrics["proof"]
    assert proof["shared"] == dict.fromkeys(("image_id", "lesion_id", "file", "pixels", "thumbnail"), 0)
    assert (
        proof["near_copies"] == []
        and proof["external"]["images"] == len(table)
        and proof["internal"]["images"] == len(read_metadata())
    )
    assert proof["nearest_thumbnails"]["distance"] > SAME_PICTURE
    assert metrics["of"].keys() == {"predictions"} and metrics["test_time"] == "flips"
    assert metrics["bootstrap"] == {"draws": DRAWS, "unit": "lesion", "confidence": 0.95, "seed": 0, "unit_external": "lesion"}
    assert f"none of {len(table)} external images is among" in caplog.text
    plotted = pd.read_csv("plots/extras/external/metrics.csv")
    assert list(plotted["metric"].unique()) == list(HEADLINE) and set(plotted["set"]) == {"external", "internal test"}
    row = plotted[(plotted["set"] == "external") & (plotted["metric"] == "macro_auc")].iloc[0]
    assert dict(row[["value", "low", "high"]]) == pytest.approx(metrics["compared"]["external"]["macro_auc"])
    assert len(pd.read_csv("plots/extras/external/recall.csv")) == 14
    assert len(pd.read_csv("plots/extras/external/operating_points.csv")) == 6


def test_a_class_that_is_absent_is_left_out_of_means_and_they_have_no_difference(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metadata = read_metadata(EXTERNAL)
    rewrite(metadata[~metadata["dx"].isin(POINTS["classes"])])
    metrics, table = run_stage()
    assert metrics["absent_classes"] == {"external": ["akiec", "bcc", "mel"], "test": []}
    assert metrics["challenge"]["classes"] == {"external": 4, "test": 7}
    recalls = [(classes_of(table)[table["dx"] == dx] == dx).mean() for dx in ("bkl", "df", "nv", "vasc")]
    assert metrics["compared"]["external"]["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls), abs=1e-12)
    undefined = {"value": None, "low": None, "high": None}
    for metric in OVER_CLASSES:
        assert metrics["compared"]["difference"][metric] == undefined
        assert metrics["compared"]["test"][metric]["value"] is not None
    assert metrics["compared"]["difference"]["accuracy"]["value"] is not None
    assert metrics["compared"]["external"]["mel_sensitivity"] == undefined
    point = metrics["operating_points"]["points"]["recall_0.90"]
    assert point["external"]["sensitivity"] == point["difference"]["sensitivity"] == undefined
    assert point["external"]["specificity"]["value"] is not None
    assert "external has no image of akiec, bcc, mel" in caplog.text


def test_where_lesions_are_not_known_the_interval_is_over_images(project: Path) -> None:
    metadata = read_metadata(EXTERNAL)
    rewrite(metadata.assign(lesion_id=metadata["image_id"]), lesions_known=False, left_out=["THEIRS_1"])
    metrics, _ = run_stage()
    assert metrics["bootstrap"]["unit_external"] == "image"
    assert metrics["external"]["lesions"] == metrics["external"]["images"]
    assert metrics["data"]["lesions_known"] is False and metrics["data"]["left_out"] == ["THEIRS_1"]


def test_a_classifier_with_metadata_gets_that_of_the_external_table(project: Path) -> None:
    splits = {name: read_split(name) for name in SPLIT_NAMES}
    save_classifier(splits, metadata=True)
    _, first = run_stage()
    rewrite(read_metadata(EXTERNAL).assign(age=np.nan, sex="unknown"))
    _, second = run_stage()
    assert np.abs(first["logit_mel"] - second["logit_mel"]).max() > 0.01


def reencoded(path: Path, **options: Any) -> bytes:
    """The picture as another file of the same format."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.resize((96, 96)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_comment(path: Path) -> bytes:
    """Other bytes of the same pixels: a comment segment behind the start of the image."""
    content = path.read_bytes()
    return content[:2] + b"\xff\xfe\x00\x06same" + content[2:]


@pytest.mark.parametrize("name", SPLIT_NAMES)
def test_an_image_under_its_own_id_is_no_external_one(project: Path, name: str) -> None:
    ours, theirs = read_split(name)["image_id"].iloc[0], read_metadata(EXTERNAL)
    first = theirs["image_id"].iloc[0]
    image_path(first, EXTERNAL).rename(image_path(ours, EXTERNAL))
    rewrite(theirs.replace({"image_id": {first: ours}}))
    with pytest.raises(PipelineError, match=rf"not external.*\(1 by image_id: {ours} \({name}\)\): take them out"):
        external.main()
    assert not external.PREDICTIONS.exists() and not Path("metrics/extras").exists()


def test_a_lesion_of_ours_is_no_external_one(project: Path) -> None:
    ours, theirs = read_split("val")["lesion_id"].iloc[0], read_metadata(EXTERNAL)
    rewrite(theirs.replace({"lesion_id": {theirs["lesion_id"].iloc[0]: ours}}))
    with pytest.raises(PipelineError, match=rf"\(1 by lesion_id: {ours} \(val\)\)"):
        external.main()


@pytest.mark.parametrize(
    ("copied", "by"),
    [
        (lambda path: path.read_bytes(), ("file", "pixels", "thumbnail")),
        (with_comment, ("pixels", "thumbnail")),
        (lambda path: reencoded(path, quality=70), ("thumbnail",)),
    ],
)
def test_a_copy_under_another_id_is_no_external_image(
    project: Path, copied: Callable[[Path], bytes], by: tuple[str, ...]
) -> None:
    ours, theirs = read_split("train")["image_id"].iloc[0], read_metadata(EXTERNAL)["image_id"].iloc[3]
    image_path(theirs, EXTERNAL).write_bytes(copied(image_path(ours)))
    said = "; ".join(f"1 by {name}: {theirs} is {ours} (train)" for name in by)
    with pytest.raises(PipelineError) as refused:
        external.main()
    assert f"({said}): take them out" in str(refused.value)


def test_what_only_looks_alike_can_be_kept_and_is_named(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = YAML(typ="safe", pure=True).load(Path("params.yaml"))
    document["external"]["near_copies"] = "report"
    YAML(typ="safe", pure=True).dump(document, Path("params.yaml"))
    ours, theirs = read_split("train")["image_id"].iloc[0], read_metadata(EXTERNAL)["image_id"].iloc[3]
    place = image_path(theirs, EXTERNAL)
    place.write_bytes(reencoded(image_path(ours), quality=70))
    metrics, _ = run_stage()
    assert metrics["proof"]["near_copies"] == [f"{theirs} is {ours} (train)"]
    assert 0 < metrics["proof"]["nearest_thumbnails"]["distance"] <= SAME_PICTURE
    assert "1 external image(s) look like one of ours" in caplog.text
    place.write_bytes(image_path(ours).read_bytes())
    with pytest.raises(PipelineError, match=r"\(1 by file: .*; 1 by pixels: "):
        external.main()


def test_nearest_thumbnails_are_those_of_a_plain_search() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 256, (count, 60)).astype(np.float32) for count in (23, 31))
    second[7] = first[4] + 1
    nearest, distances = nearest_thumbnails(first, second)
    plain = np.sqrt(((first[:, None].astype(np.float64) - second[None]) ** 2).mean(axis=2))
    assert np.array_equal(nearest, plain.argmin(axis=1)) and distances == pytest.approx(plain.min(axis=1))
    assert (nearest[4], distances[4]) == (7, pytest.approx(1.0))


def test_contents_do_not_depend_on_the_number_of_threads(project: Path) -> None:
    ids = list_images()
    one, four = (read_contents(ids, RAW, workers=workers) for workers in (1, 4))
    assert (one.files, one.pixels) == (four.files, four.pixels) and np.array_equal(one.thumbnails, four.thumbnails)
    assert len(set(one.files)) == len(set(one.pixels)) == len(ids)


def test_a_classifier_of_other_lists_is_refused(project: Path) -> None:
    path = CLASSIFIER / "base-1" / "config.json"
    write_json(path, read_json(path) | {"fingerprint": "other"})
    with pytest.raises(PipelineError, match="trained on other lists"):
        external.main()


def test_without_external_images_there_is_a_way_out(project: Path) -> None:
    write_json(EXTERNAL / "provenance.json", read_json(EXTERNAL / "provenance.json") | {"lesions_known": None})
    with pytest.raises(PipelineError, match="lacks lesions_known"):
        read_external()
    shutil.rmtree(EXTERNAL)
    with pytest.raises(PipelineError, match="run `external-download` first"):
        external.main()


def test_labels_follow_the_order_of_the_classes() -> None:
    assert list(labels_of(pd.DataFrame({"dx": list(CLASSES)}))) == list(range(7))
