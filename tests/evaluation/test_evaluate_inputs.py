"""The stage `evaluate` on lists, images and classifiers that are odd or do not fit each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from skinlesion.artifacts.prepared import INDEX_COLUMNS, PREPARED, read_prepared
from skinlesion.artifacts.splits import SplitFacts, fingerprint, read_split, write_splits
from skinlesion.artifacts.tables import write_table
from skinlesion.base.errors import PipelineError
from skinlesion.evaluation.inference.inference import Predicted
from stages import evaluate
from tests.evaluation.evaluate_cases import (
    SIZE,
    read_metrics,
    read_splits,
    rewrite_splits,
    write_images,
    written,
)
from tests.model.classifier_cases import last_linear, make_config, make_network, save_ensemble

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_class_that_is_absent_from_test_has_null_where_nothing_can_be_said(evaluated_copy: Path) -> None:
    splits = read_splits()
    splits["test"] = splits["test"][splits["test"]["dx"] != "df"]
    rewrite_splits(splits)
    evaluate.main()
    metrics = read_metrics()
    df = metrics["test"]["per_class"]["df"]
    assert df["support"] == 0
    assert [df[name] for name in ("recall", "f1", "auc", "average_precision")] == [None] * 4
    assert metrics["test"]["intervals"]["f1_df"] == {"low": None, "high": None}
    assert metrics["test"]["macro_auc"] == pytest.approx(
        np.mean([values["auc"] for dx, values in metrics["test"]["per_class"].items() if dx != "df"])
    )


def test_a_temperature_at_the_end_of_its_range_is_said(
    evaluated_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    truth = pd.concat([read_split(name) for name in ("val", "test")]).set_index("image_id")["dx"]

    def always_right(members: object, prepared: object, listed: pd.DataFrame, **_: object) -> dict[str, Predicted]:
        logits = 5 * np.eye(7, dtype=np.float32)[evaluate.labels_of(truth.loc[listed["image_id"]].to_frame())]
        return {"base-0": Predicted(logits, logits.astype(np.float64))}

    monkeypatch.setattr(evaluate, "predict_ensemble", always_right)
    evaluate.main()
    assert "temperature 0.05 is an end of the searched range" in caplog.text
    assert read_metrics()["test"]["accuracy"] == 1


def test_a_classifier_of_other_lists_is_refused(evaluated_copy: Path) -> None:
    splits = read_splits()
    splits["val"], splits["test"] = splits["test"], splits["val"]
    write_splits(splits, SplitFacts(fingerprint(splits), "sample", True))
    before = written(evaluated_copy)
    with pytest.raises(PipelineError, match=r"models/classifier was trained on other lists.*run `train` again"):
        evaluate.main()
    assert written(evaluated_copy) == before


def test_images_that_were_not_prepared_are_named(evaluated_copy: Path) -> None:
    prepared = read_prepared()
    missing = read_split("test")["image_id"].iloc[3]
    keep = (prepared.index["image_id"] != missing).to_numpy()
    np.save(PREPARED / "images.npy", np.array(prepared.images)[keep])
    write_table(prepared.index[keep], PREPARED / "index.csv", INDEX_COLUMNS)
    with pytest.raises(PipelineError, match=rf"{missing} is listed in a split and was not prepared"):
        evaluate.main()


def test_images_of_another_size_are_refused(evaluated_copy: Path) -> None:
    write_images(pd.concat(read_splits().values(), ignore_index=True), seed=1, size=48)
    with pytest.raises(PipelineError, match=r"prepared at 48 px.*trained at 32 px"):
        evaluate.main()


@pytest.mark.parametrize("path", ["data/splits/train.csv", "models/classifier/ensemble.json", "data/splits/facts.json"])
def test_a_missing_input_is_named(evaluated_copy: Path, path: str) -> None:
    (evaluated_copy / path).unlink()
    with pytest.raises(PipelineError, match=f"{path} not found"):
        evaluate.main()


def test_images_without_a_lesion_are_refused(evaluated_copy: Path) -> None:
    splits = read_splits()
    splits["test"].loc[0, "lesion_id"] = ""
    rewrite_splits(splits)
    with pytest.raises(PipelineError, match=r"test\.csv: no lesion_id for ISIC_"):
        evaluate.main()


def test_logits_that_are_not_finite_are_refused_and_the_member_named(evaluated_copy: Path) -> None:
    splits = read_splits()
    configs = [make_config("shufflenet_v2_x0_5", seed=seed, size=SIZE, fingerprint=fingerprint(splits)) for seed in (0, 1)]
    members = [(make_network(config), config) for config in configs]
    for parameter in last_linear(members[1][0]).parameters():
        torch.nn.init.constant_(parameter, torch.finfo(torch.float32).max)  # numbers still, but not when they are summed up
    save_ensemble(members)
    with pytest.raises(PipelineError, match=r"classifier 'base-1' gives logits that are not finite"):
        evaluate.main()
