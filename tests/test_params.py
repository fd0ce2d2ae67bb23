"""`params.yaml`: what is accepted, and what each refusal says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skinlesion.errors import PipelineError
from skinlesion.params import load_params

WriteParams = Callable[..., Path]

REPOSITORY = Path(__file__).resolve().parents[1]


def refusal(path: Path, *, check_backbone: bool = False) -> str:
    with pytest.raises(PipelineError) as caught:
        load_params(path, check_backbone=check_backbone)
    return str(caught.value)


def test_the_repository_s_own_file_is_valid(repository_params: dict[str, Any]) -> None:
    params = load_params(REPOSITORY / "params.yaml", check_backbone=True)
    assert params.train.lr == repository_params["train"]["lr"]
    assert params.download.source == "sample"


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"train.learning_rate": 0.1}, ["train.learning_rate: unknown key", "known here: seed, backbone"]),
    ({"train.patiense": 3}, ["train.patiense: unknown key", "did you mean 'patience'?"]),
    ({"train.augmentation.rotaton": 3}, ["train.augmentation.rotaton: unknown key; did you mean 'rotation'?"]),
    ({"spilt": {}}, ["spilt: unknown key; did you mean 'split'?"]),
    ({"train.epochs": "ten"}, ["train.epochs = 'ten'", "valid integer"]),
    ({"train.epochs": 2.5}, ["train.epochs = 2.5", "valid integer"]),
    ({"train.epochs": True}, ["train.epochs = True", "valid integer"]),
    ({"train.lr": True}, ["train.lr = True", "valid number"]),
    ({"train.augmentation.vertical_flip": 1}, ["train.augmentation.vertical_flip = 1", "valid boolean"]),
    ({"split.seed": None}, ["split.seed = None", "valid integer"]),
    ({"train.lr": 0}, ["train.lr = 0", "greater than 0"]),
    ({"train.lr": float("nan")}, ["train.lr = nan", "finite number"]),
    ({"train.batch_size": 1}, ["train.batch_size = 1", "greater than or equal to 2"]),
    ({"train.label_smoothing": 1.0}, ["train.label_smoothing = 1.0", "less than 1"]),
    ({"prepare.size": 2048}, ["prepare.size = 2048", "less than or equal to 1024"]),
    ({"split.max_deviation": 0}, ["split.max_deviation = 0", "greater than 0"]),
    ({"split.fold": 5}, ["split", "fold is 5, and with 5 folds it can be 0 to 4"]),
    ({"split.fold": -1}, ["split.fold = -1", "greater than or equal to 0"]),
    ({"prepare.fit": "sqash"}, ["prepare.fit = 'sqash'", "'squash', 'crop' or 'pad'", "did you mean 'squash'?"]),
    ({"gradcam.method": "GradCamPP"}, ["gradcam.method = 'GradCamPP'", "did you mean 'GradCAM"]),
    ({"train.precision": 64}, ["train.precision = '64'", "'32', 'bf16' or '16'"]),
    ({"train.loggers": ["wandb"]}, ["train.loggers.0 = 'wandb'", "'dvclive'"]),
    (
        {"download.path": "images"},
        ["path is only read by source 'local', and source is 'sample'", "set download.path to null"],
    ),
    ({"download.source": "local"}, ["source is 'local', which needs a folder: set download.path"]),
    ({"train.warmup_epochs": 99.0}, ["warmup_epochs is 99.0, more than the"]),
    ({"threshold_sweep.target": "melanoma"}, ["target 'melanoma' is neither a diagnosis nor a group"]),
    ({"threshold_sweep.target": "malignat"}, ["did you mean 'malignant'?"]),
    ({"threshold_sweep.groups": {"mel": ["mel"]}}, ["groups.mel has the name of a diagnosis"]),
    ({"threshold_sweep.groups": {"bad": ["mel", "bbc"]}}, ["groups.bad: 'bbc' is not a diagnosis; did you mean 'bcc'?"]),
    ({"threshold_sweep.groups": {"bad": ["mel", "mel"]}}, ["groups.bad must list different diagnoses"]),
    ({"threshold_sweep.groups": {"bad": []}}, ["groups.bad must list different diagnoses, at least one"]),
    (
        {"threshold_sweep.groups": {"all": ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]}},
        ["groups.all holds every diagnosis"],
    ),
    ({"threshold_sweep.recall_constraints": [0.9, 0.9]}, ["recall_constraints names a value twice"]),
    ({"threshold_sweep.recall_constraints": []}, ["threshold_sweep.recall_constraints", "at least 1 item"]),
    (
        {"threshold_sweep.recall_constraints": [1.5]},
        ["threshold_sweep.recall_constraints.0 = 1.5", "less than or equal to 1"],
    ),
    ({"prepare": 64}, ["prepare = 64"]),
]


@pytest.mark.parametrize(("overrides", "fragments"), REFUSED)
def test_refused_value(write_params: WriteParams, overrides: dict[str, Any], fragments: list[str]) -> None:
    message = refusal(write_params(overrides))
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_every_refusal_is_reported_at_once(write_params: WriteParams) -> None:
    message = refusal(write_params({"train.epochs": 0, "prepare.fit": "stretch"}))
    assert "train.epochs = 0" in message
    assert "prepare.fit = 'stretch'" in message


def test_missing_key_and_missing_section(write_params: WriteParams) -> None:
    message = refusal(write_params(without=("train.lr", "gradcam")))
    assert "train.lr: missing; every key must be in the file" in message
    assert "gradcam: missing" in message


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("train: [1, 2", "is not valid YAML"),
        ("", "must hold one section a stage: download, split, prepare"),
        ("- a\n- b\n", "must hold one section a stage"),
        ("split: {}\nsplit: {}\n", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_params_file(workspace: Path, content: str, fragment: str) -> None:
    path = workspace / "params.yaml"
    path.write_text(content, encoding="utf-8")
    assert fragment in refusal(path)


def test_missing_file_says_where_to_run(workspace: Path) -> None:
    assert "params.yaml not found in" in refusal(Path("params.yaml"))


def test_dvc_s_spelling_of_a_small_number_arrives_as_a_float(workspace: Path) -> None:
    text, replaced = re.subn(r"(?m)^  lr: \S+", "  lr: 1e-05", (REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    assert replaced == 1
    path = workspace / "params.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_params(path).train.lr == 0.00001


def test_accepted_values(write_params: WriteParams) -> None:
    accepted = {
        "train.precision": 32,
        "train.warmup_epochs": 2,
        "download.source": "local",
        "download.path": "../images",
        "threshold_sweep.target": "malignant",
        "split.fold": 4,
    }
    params = load_params(write_params(accepted))
    assert params.train.precision == "32"
    assert params.train.warmup_epochs == 2.0
    assert params.threshold_sweep.target_classes() == ["mel", "bcc", "akiec"]
    assert params.split.fold == 4


def test_unknown_backbone_is_refused_where_it_is_asked_for(write_params: WriteParams) -> None:
    path = write_params({"train.backbone": "resnet81"})
    assert "train.backbone = 'resnet81': torchvision has no classification model of that name; did you mean 'resnet" in refusal(
        path, check_backbone=True
    )
    assert load_params(path).train.backbone == "resnet81"  # a stage that builds no network does not import torchvision
