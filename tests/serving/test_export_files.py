"""Exported files that are damaged, missing or of another classifier, and predictions of another run: each is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extras import export
from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest
from skinlesion.evaluation.results.predictions import read_predictions, write_predictions
from skinlesion.model.classifier import Classifier, load_ensemble, save_classifier
from skinlesion.serving.export.onnx_network import EXPORT, load_onnx_ensemble
from tests.conftest import refuses
from tests.model.classifier_cases import last_linear
from tests.serving.export_cases import COLUMNS, MEMBERS


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_export(change: Any) -> None:
    path = EXPORT / "export.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def adopt(source: Path, target: Path) -> None:
    """Put another graph in a place, and its digest into export.json as if it belonged there."""
    shutil.copyfile(source, target)
    digest = file_digest(target, "sha256")
    precision = "int8" if "int8" in target.name else "float32"
    edit_export(lambda content: content["members"][target.parent.name]["files"][precision].update(sha256=digest))


def train_again() -> None:
    (model, config), name = load_ensemble()["base-1"], "base-1"
    with torch.no_grad():
        last_linear(model).bias += 1e-3
    save_classifier(model.state_dict(), config, CLASSIFIER / name)


AGAIN = re.escape("run `dvc exp run -S 'extras.export=[run]' extras/dvc.yaml:export`")
FLOAT32, INT8 = EXPORT / "base-0" / "model.onnx", EXPORT / "base-0" / "model-int8.onnx"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (train_again, rf"models/export is not of the classifier in models/classifier \(.*base-1/weights\.s.*\): {AGAIN}"),
        (lambda: edit_export(lambda content: content["members"].pop("base-1")), rf"not of the classifier .*'base-1'.*: {AGAIN}"),
        (lambda: flip_a_byte(INT8), rf"base-0/model-int8\.onnx is damaged \(its sha256 .*\): {AGAIN} again"),
        (lambda: INT8.unlink(), rf"base-0/model-int8\.onnx not found: {AGAIN} again"),
        (lambda: shutil.rmtree(EXPORT), rf"models/export/export\.json not found, the classifier was not exported: {AGAIN} first"),
        (lambda: adopt(FLOAT32, INT8), rf"model-int8\.onnx is of another network \(precision is 'float32'\): {AGAIN}"),
        (lambda: adopt(EXPORT / "base-1" / INT8.name, INT8), r"network \(member is 'base-1'; weights_sha256 .*inputs are"),
        (lambda: adopt(Path("params.yaml"), INT8), rf"model-int8\.onnx is damaged \(.*\): {AGAIN}"),
        (lambda: edit_export(lambda content: content.update(members=[1])), rf"export\.json: members = \[1\]: .*: {AGAIN} again"),
        (lambda: edit_export(lambda content: content["members"]["base-0"]["files"].pop("int8")), r"members\.base-0\.files"),
        (lambda: (EXPORT / "export.json").write_text("{", encoding="utf-8"), r"export\.json is not valid JSON"),
        (lambda: (CLASSIFIER / "base-0/weights.safetensors").unlink(), r"weights\.safetensors not found: run `train`"),
    ],
)  # fmt: skip
def test_what_is_not_of_this_classifier_is_refused(exported_copy: Path, spoil: Any, message: str) -> None:
    assert list(load_onnx_ensemble(EXPORT, "int8")) == list(MEMBERS)
    spoil()
    refuses(message, load_onnx_ensemble, EXPORT, "int8")


def test_an_unknown_precision_is_refused_with_the_nearest(exported_here: None) -> None:
    refuses(r"no precision 'float23'; did you mean 'float32'\?; known: float32, int8", load_onnx_ensemble, EXPORT, "float23")


def run_again(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """The stage with the graphs that are there instead of new ones."""

    def reuse(classifier: Classifier, folder: Path, *_: Any) -> dict[str, Any]:
        shutil.copytree(source / EXPORT / classifier.config.name, folder / classifier.config.name)
        message = json.loads((source / EXPORT / "export.json").read_text(encoding="utf-8"))["members"][classifier.config.name]
        return message | {"weights_sha256": file_digest(CLASSIFIER / classifier.config.name / "weights.safetensors", "sha256")}

    monkeypatch.setattr(export, "export_member", reuse)
    export.main()


def test_predictions_of_another_run_leave_nothing(exported_copy: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_predictions("test")
    first = table.loc[3, COLUMNS].to_numpy(dtype=np.float64, copy=True)
    table.loc[3, COLUMNS] = first + np.array([-1, 1, 0, 0, 0, 0, 0]) * 5e-4 * np.sign(0.5 - first[1])
    write_predictions({"val": read_predictions("val"), "test": table})
    shutil.rmtree(EXPORT)
    Path("metrics/export.json").unlink()
    message = r"classifier and predictions are not of one run: .*ISIC_003 .* 0\.0005 .*`dvc repro`"
    with pytest.raises(PipelineError, match=message):
        run_again(monkeypatch, exported)
    assert not list(EXPORT.parent.glob("*export*")) and not Path("metrics/export.json").exists()
