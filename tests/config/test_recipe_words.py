"""The words of recipes: DVC's own parser makes of them exactly what the files say, and what it could not is refused."""

import copy
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

import recipes
from recipes import compose, read_recipe, recipe_words
from recipes.__main__ import main
from skinlesion.base.errors import run_stage
from skinlesion.config.params import check_params, load_params
from tests.config.recipe_cases import NAMES, Refused, WriteRecipe, apply, exactly, expected, read
from tests.conftest import ROOT, refuses
from tests.stage_cases import refused as refusal

COMBINED = [("cosine_b0", "ham10000"), ("dsci_b0_mel3", "capstone_resnet50"), ("best_gpu", "ham10000")]


@pytest.mark.parametrize("names", [*((name,) for name in NAMES), *COMBINED])
def test_dvc_makes_of_words_what_files_say(names: tuple[str, ...], params_file: Path, repository_params: dict[str, Any]) -> None:
    assert exactly(apply(params_file, *names)) == exactly(expected(repository_params, *names))
    assert load_params(params_file)


def test_no_word_needs_quoting(params_file: Path) -> None:
    for name in NAMES:
        for word in recipe_words([name]):
            assert word == "-S" or not set(word) & set(' \t\n"\\*?$`;&|<>'), word


def test_words_survive_a_shell(params_file: Path) -> None:
    command = f'for word in $("{sys.executable}" -m recipes dsci_b0_mel3 two_phase_resnet50 ham10000); do echo "$word"; done'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines() == recipe_words(["dsci_b0_mel3", "two_phase_resnet50", "ham10000"])
    assert "train.precision='32'" in done.stdout  # the quotes are for DVC


@pytest.mark.structure
def test_dvc_takes_every_value_that_the_readme_sets(params_file: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(words, comments=True) for words in re.findall(r"^dvc exp run (?!--queue|\$).*", text, re.MULTILINE)]
    values = [[word for flag, word in itertools.pairwise(words) if flag == "-S"] for words in commands]
    assert len(values) > 5
    before = params_file.read_bytes()
    for words in values:
        apply_overrides(params_file, words)
        check_params(read(params_file), name=" ".join(words))
        params_file.write_bytes(before)


def test_a_value_behind_the_recipe_wins(params_file: Path) -> None:
    document = apply(params_file, "cosine_b0", "ham10000", more=("train.epochs=5", "++train.class_multipliers.mel=2"))
    assert document["train"]["epochs"] == 5 and document["train"]["class_multipliers"] == {"mel": 2}


def test_a_mapping_is_replaced_and_can_be_emptied_again(params_file: Path, repository_params: dict[str, Any]) -> None:
    # ruamel, with which DVC writes, breaks the file when it empties a mapping that has a comment behind its key.
    assert apply(params_file, "dsci_b0_mel3", "dsci_b0_synth", more=("++train.class_multipliers.bcc=2",))
    assert apply(params_file, "dsci_b0_mel3")["train"]["class_multipliers"] == {"mel": 3.0}
    assert apply(params_file, "dsci_b0_synth")["synthesize"]["images"] == {"akiec": 300, "df": 425, "vasc": 410}
    assert list(apply(params_file, "best_gpu")["ensemble"]["overrides"]) == ["convnext", "efficientnet", "swin"]
    emptied = apply(params_file, "plain")
    assert emptied["train"]["class_multipliers"] == {} and emptied["synthesize"]["images"] == {}
    assert emptied["ensemble"]["overrides"] == {"base": {}}
    assert apply(params_file, "dsci_b0_mel3")["train"]["class_multipliers"] == {"mel": 3.0}


VALUES: list[tuple[str, Any]] = [
    *(("train.lr", value) for value in (1e-05, 3e-4, 2, 2.0)),
    ("train.clip_norm", None),
    ("train.metadata", True),
    ("train.compile", False),
    *(("train.precision", value) for value in ("32", 32, "bf16")),
    ("machine.devices", "auto"),
    *(("train.weights", value) for value in ("../shared/weights/mobilenet_v2-b0353104.pth", "/data/weights.safetensors")),
    *(("train.weights", value) for value in ("~/weights.pth", "C:/weights@2,a=b+c%d.pth", "1e-05", "null", "True", "nan")),
    ("ensemble.seeds", [0, 1, 2]),
    ("threshold_sweep.recall_constraints", [0.5, 1e-05, 1]),
    *(("train.loggers", value) for value in ([], ["dvclive", "tensorboard"])),
    *(("train.class_multipliers", value) for value in ({}, {"mel": 3.0, "bcc": 2, "df": 1e-05})),
    ("synthesize.images", {"df": 300, "vasc": 0}),
    ("threshold_sweep.groups", {"malignant": ["mel"], "keratinocytic": ["bcc", "akiec"]}),
    ("ensemble.overrides", {"base": {}, "b2": {"backbone": "efficientnet_b2", "lr": 1e-05, "weights": "../weights/b2.pth"}}),
    ("ensemble.overrides", {"base": {}, "b2": {"precision": "32", "dropout": None, "metadata": False, "loggers": ["dvclive"]}}),
    ("ensemble.overrides", {"base": {}, "b2": {"class_multipliers": {"mel": 2.0}, "augmentation": {"rotation": None}}}),
]


@pytest.mark.parametrize(("key", "value"), VALUES)
def test_value_survives_dvc(
    key: str, value: Any, params_file: Path, write_recipe: WriteRecipe, repository_params: dict[str, Any]
) -> None:
    section, name = key.split(".")
    document = apply(params_file, write_recipe({section: {name: value}}))
    assert exactly(document[section][name]) == exactly(value)
    del document[section][name], (rest := copy.deepcopy(repository_params))[section][name]
    assert exactly(document) == exactly(rest), "and nothing else changed"


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"train": {"epochs": 0}}, ["params.yaml with recipe own is refused", "train.epochs = 0", "greater than or equal to 1"]),
    ({"train": {"augmentation": {"mixp": 3}}}, ["train.augmentation.mixp: unknown key; did you mean 'mixup'?"]),
    ({"trian": {"epochs": 3}}, ["trian: unknown key; did you mean 'train'?"]),
    ({"train": 3}, ["train = 3"]),
    ({"train": {"backbone": "efficientnet_bO"}}, ["train.backbone", "did you mean 'efficientnet_b"]),
    *(
        ({"train": {"weights": name}}, [f"train.weights = {name!r} cannot go through a command line unharmed: set it in params"])
        for name in ("my weights.pth", "*.pth", "${a}", "it's")
    ),
    ({"threshold_sweep": {"groups": {"my group": ["mel"]}}}, ["threshold_sweep.groups = {'my group'", "cannot go through"]),
    (
        {"ensemble": {"members": ["b"], "overrides": {"b": {"backbone": "restnet18"}}}},
        ["ensemble.overrides.b", "train.backbone", "did you mean 'resnet18'?"],
    ),
]


@pytest.mark.parametrize(("params", "parts"), REFUSED)
@pytest.mark.usefixtures("params_file")
def test_refused_values(params: dict[str, Any], parts: list[str], write_recipe: WriteRecipe, refused: Refused) -> None:
    message = refused(write_recipe(params))
    assert [part for part in parts if part not in message] == []


@pytest.mark.usefixtures("params_file")
def test_recipes_that_are_valid_alone_and_refused_together(write_recipe: WriteRecipe, refused: Refused) -> None:
    short = write_recipe({"train": {"epochs": 3}}, name="short")
    assert recipe_words([short]) == ["-S", "train.epochs=3"]
    message = refused("two_phase_resnet50", short)
    assert "params.yaml with recipes two_phase_resnet50 short is refused" in message
    assert "freeze_epochs is 5 of 3 epochs" in message


@pytest.mark.usefixtures("params_file")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cosin_b0", "there is no recipe 'cosin_b0'; did you mean 'cosine_b0'?; `python -m recipes` lists them all"),
        ("xyz", "there is no recipe 'xyz'; `python -m recipes` lists them all"),
        ("../params", "there is no recipe '../params'"),
    ],
)
def test_unknown_recipe(name: str, message: str, refused: Refused) -> None:
    assert message in refused("plain", name)


def test_refusal_of_the_command_itself() -> None:
    command = f'"{sys.executable}" -m recipes cosine | xargs "{sys.executable}" -m dvc exp run'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.stderr.startswith("error: there is no recipe 'cosine'; did you mean 'cosine_b0'?")
    assert done.returncode != 0 and "unrecognized arguments: --recipe-was-refused" in done.stderr  # by DVC


def test_outside_the_project(workspace: Path, refused: Refused) -> None:
    assert "run from the project's root" in refused("plain")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"params": {}, "description": "two\nlines"}, "description"),
        ({"params": {}, "source": None}, "source: Field required"),
        ({"params": [1]}, "params"),
        ({"params": {}, "parms": {}}, "parms: Extra inputs are not permitted"),
        ({"params": {}, "based_on": "plane"}, "there is no recipe 'plane'; did you mean 'plain'?"),
        ({"params": {}, "based_on": "own"}, "recipe 'own' is based on itself: own <- own"),
    ],
)
def test_a_file_that_is_no_recipe(content: dict[str, Any], message: str, write_recipe: WriteRecipe) -> None:
    name = write_recipe(content.pop("params"), **content)
    with refusal(message):
        compose([name])


def test_a_file_that_is_no_yaml(write_recipe: WriteRecipe) -> None:
    (recipes.FOLDER / "broken.yaml").write_text("params: {a: 1\n", encoding="utf-8")
    refuses(r"recipe 'broken': .* is not valid YAML", read_recipe, "broken")


def test_listing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["recipes"])
    run_stage(main)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    for line, name in zip(lines, NAMES, strict=True):
        assert line.endswith("  " + read(ROOT / "recipes" / f"{name}.yaml")["description"])


def test_printed_on_one_line(params_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["recipes", "cosine_b0", "ham10000"])
    run_stage(main)
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and output.endswith("\n")
    assert output.split() == recipe_words(["cosine_b0", "ham10000"])
