"""Recipes: what they say, how they combine, and that DVC's own parser makes of the printed words exactly that."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

import recipes
from recipes import compose, override, read_recipe, recipe_names, recipe_words
from recipes.__main__ import main
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.config.params import Params, check_params, load_params
from skinlesion.training.augmentation.presets import resolve
from tests.conftest import ROOT

PUBLISHED = {
    "capstone_resnet50",
    "dsci_b0_baseline",
    "dsci_b0_sampler",
    "dsci_b0_mel3",
    "dsci_b0_synth",
    "dsci_b0_long_mel",
    "dsci_b2_mel224",
    "dsci_b2_acc260",
    "dsci_b2_melsampler260",
    "attention_focal_b0",
    "two_phase_resnet50",
    "cosine_b0",
}
NETWORKS = sorted(PUBLISHED | {"best_cpu", "best_gpu"})
NAMES = sorted({*NETWORKS, "ham10000", "plain", "smoke"})

# Mappings whose keys are not the schema's: a recipe replaces them as a whole.
OPEN = ("synthesize.images", "ensemble.overrides", "train.class_multipliers", "threshold_sweep.groups")
NOT_THE_NETWORK_S = {"compile", "loggers"}

WriteRecipe = Callable[..., str]


@pytest.fixture
def params_file(workspace: Path) -> Path:
    """The repository's `params.yaml`, comments included, in the working directory."""
    return Path(shutil.copy(ROOT / "params.yaml", workspace / "params.yaml"))


@pytest.fixture
def write_recipe(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> WriteRecipe:
    """Write a recipe of one's own beside copies of the real ones; gives its name back."""
    folder = Path(shutil.copytree(ROOT / "recipes", workspace / "own_recipes"))
    monkeypatch.setattr(recipes, "FOLDER", folder)

    def write(params: Any, *, name: str = "own", **other: Any) -> str:
        content = {"description": "own", "source": "ours", "params": params, **other}
        with (folder / f"{name}.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump({key: value for key, value in content.items() if value is not None}, file)
        return name

    return write


def read(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def apply(path: Path, *names: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Let DVC set the recipes' words in `params.yaml`, and read the file again."""
    words = recipe_words(list(names))
    assert words[::2] == ["-S"] * (len(words) // 2)
    apply_overrides(path, [*words[1::2], *more])
    return read(path)


def exactly(document: Any) -> str:
    """A text in which 1, 1.0, true and '1' differ."""
    return json.dumps(document, indent=1, sort_keys=True)


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys; the mappings of `OPEN` are values."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, dict) and key not in OPEN else {key: value}
    return flat


def chain(name: str) -> list[dict[str, Any]]:
    """Contents of a recipe's file and of those it is based on, the last first."""
    content = read(ROOT / "recipes" / f"{name}.yaml")
    return [*(chain(content["based_on"]) if "based_on" in content else []), content]


def expected(base: dict[str, Any], *names: str) -> dict[str, Any]:
    """What `params.yaml` must be after the recipes, worked out from their files by other means."""
    document = copy.deepcopy(base)
    for name in names:
        for content in chain(name):
            for key, value in flatten(content["params"]).items():
                *sections, last = key.split(".")
                section = document
                for part in sections:
                    section = section[part]
                section[last] = value
    return document


def test_the_recipes_are_those_of_the_readme() -> None:
    assert recipe_names() == NAMES
    assert {row["name"] for row in ROWS} == PUBLISHED


@pytest.mark.parametrize("name", NAMES)
def test_recipe_is_valid_and_says_what_it_is(name: str, params_file: Path, repository_params: dict[str, Any]) -> None:
    content = read(ROOT / "recipes" / f"{name}.yaml")
    assert 20 < len(content["description"]) <= 125 and "\n" not in content["description"]
    assert len(content["source"]) > 50
    assert content["source"].startswith("Ours") or name in PUBLISHED
    assert "Ours:" in content["source"] or name not in PUBLISHED, "says what the published recipe leaves open"
    assert set(flatten(content["params"])) <= set(flatten(repository_params))
    recipe_words([name])  # refuses what the schema does not know


@pytest.mark.parametrize("name", NAMES)
def test_dvc_makes_of_the_words_what_the_file_says(name: str, params_file: Path, repository_params: dict[str, Any]) -> None:
    assert exactly(apply(params_file, name)) == exactly(expected(repository_params, name))
    assert load_params(params_file, check_backbone=True)


@pytest.mark.parametrize("names", [("cosine_b0", "ham10000"), ("dsci_b0_mel3", "capstone_resnet50"), ("best_gpu", "ham10000")])
def test_several_recipes_through_dvc(names: tuple[str, str], params_file: Path, repository_params: dict[str, Any]) -> None:
    assert exactly(apply(params_file, *names)) == exactly(expected(repository_params, *names))


def test_no_word_needs_quoting(params_file: Path) -> None:
    for name in NAMES:
        for word in recipe_words([name]):
            assert word == "-S" or not set(word) & set(' \t\n"\\*?$`;&|<>'), word


def test_words_survive_a_shell(params_file: Path) -> None:
    command = f'for word in $("{sys.executable}" -m recipes dsci_b0_mel3 two_phase_resnet50 ham10000); do echo "$word"; done'
    said = subprocess.run(["sh", "-c", command], cwd=ROOT, text=True, capture_output=True, check=True)
    assert said.stdout.splitlines() == recipe_words(["dsci_b0_mel3", "two_phase_resnet50", "ham10000"])
    assert "train.precision='32'" in said.stdout  # the quotes are for DVC


# The published recipes' table, typed a second time. wd: weight decay; eps: label smoothing; mel: melanoma's multiplier; stop:
# patience, 1000 where the original has no early stopping.
TABLE = """
name                  backbone        size epochs batch lr   wd   rates  loss          eps  weights mel sampler  select_by  stop
capstone_resnet50     resnet50        224  15     32    3e-4 1e-4 none   cross_entropy 0.05 inverse 1   shuffle  accuracy   1000
dsci_b0_baseline      efficientnet_b0 224  15     32    3e-4 0.01 none   cross_entropy 0    inverse 1   shuffle  macro_f1   1000
dsci_b0_sampler       efficientnet_b0 224  15     32    3e-4 0.01 none   cross_entropy 0    none    1   balanced macro_f1   1000
dsci_b0_mel3          efficientnet_b0 224  15     32    3e-4 0.01 none   cross_entropy 0    inverse 3   shuffle  macro_f1   1000
dsci_b0_synth         efficientnet_b0 224  15     32    3e-4 0.01 none   cross_entropy 0    inverse 1   shuffle  macro_f1   1000
dsci_b0_long_mel      efficientnet_b0 224  30     32    2e-4 0.01 none   cross_entropy 0    inverse 3   shuffle  mel_recall 1000
dsci_b2_mel224        efficientnet_b2 224  30     32    2e-4 0.01 none   cross_entropy 0    inverse 3   shuffle  mel_recall 1000
dsci_b2_acc260        efficientnet_b2 260  30     16    2e-4 0.01 none   cross_entropy 0.1  none    1   shuffle  accuracy   1000
dsci_b2_melsampler260 efficientnet_b2 260  30     16    2e-4 0.01 none   cross_entropy 0    none    3   balanced mel_recall 1000
attention_focal_b0    efficientnet_b0 224  50     32    1e-3 0.01 cosine focal         0    none    1   balanced macro_auc  10
two_phase_resnet50    resnet50        224  30     32    1e-4 0.01 none   focal         0    inverse 1   balanced macro_f1   7
cosine_b0             efficientnet_b0 224  20     32    3e-4 0.01 cosine cross_entropy 0    none    1   shuffle  macro_f1   7
"""
ROWS = [dict(zip(TABLE.split("\n")[1].split(), line.split(), strict=True)) for line in TABLE.strip().split("\n")[1:]]
# Flips, rotation, smallest crop, jitter; what is not said here is off.
AUGMENTATION: dict[str, tuple[bool, float, float, float]] = {
    "capstone_resnet50": (True, 10, 1.0, 0),
    **dict.fromkeys([name for name in PUBLISHED if name.startswith("dsci") and "260" not in name], (True, 25, 1.0, 0.1)),
    **dict.fromkeys([name for name in PUBLISHED if "260" in name], (True, 25, 0.6, 0.1)),
    "two_phase_resnet50": (True, 30, 0.8, 0.2),
    "cosine_b0": (True, 0, 0.7, 0.2),
}


def resolved(path: Path, *names: str) -> Params:
    apply(path, *names)
    return load_params(path)


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_published_recipe_is_that_of_the_table(row: dict[str, str], params_file: Path) -> None:
    name = row["name"]
    params = resolved(params_file, name)
    train = params.train
    numbers = {
        "size": params.prepare.size,
        "epochs": train.epochs,
        "batch": train.batch_size,
        "lr": train.lr,
        "wd": train.weight_decay,
        "eps": train.label_smoothing,
        "mel": train.class_multipliers.get("mel", 1),
        "stop": train.patience,
    }
    assert numbers == {key: float(row[key]) for key in numbers}
    words = {
        "backbone": train.backbone,
        "rates": train.schedule,
        "loss": train.loss,
        "weights": train.class_weights,
        "sampler": train.sampler,
        "select_by": train.select_by,
    }
    assert words == {key: row[key] for key in words}
    assert set(train.class_multipliers) <= {"mel"}
    assert train.weights == "imagenet" and train.optimizer == "adamw" and train.average == "none"
    assert train.precision == ("auto" if name.startswith(("dsci", "cosine")) else "32"), "AMP or not"
    assert params.ensemble.member_names() == ["base-0"] and params.evaluate.test_time == "none"
    assert bool(params.synthesize.images) == (name == "dsci_b0_synth")


@pytest.mark.parametrize("name", sorted(AUGMENTATION))
def test_published_augmentation(name: str, params_file: Path) -> None:
    values = resolve(resolved(params_file, name).train.augmentation)
    flips, rotation, min_scale, jitter = AUGMENTATION[name]
    assert (values.horizontal_flip, values.vertical_flip, values.rotation) == (flips, flips, rotation)
    assert (values.min_scale, values.color_jitter) == (min_scale, jitter)
    assert not any((values.zoom, values.hue, values.rand_augment, values.trivial_augment, values.hair))
    assert not any((values.random_erasing, values.mixup, values.cutmix))


def test_what_only_some_recipes_have(params_file: Path) -> None:
    two_phase = resolved(params_file, "two_phase_resnet50").train
    assert (two_phase.head, two_phase.hidden, two_phase.dropout, two_phase.hidden_dropout) == ("mlp", 512, 0.5, 0.3)
    assert (two_phase.freeze_epochs, two_phase.freeze_lr, two_phase.backbone_lr) == (5, 1e-3, 1e-5)
    attention = resolved(params_file, "attention_focal_b0").train
    assert (attention.attention, attention.backbone_lr, attention.focal_gamma, attention.head) == ("se", 1e-4, 2.0, "linear")
    assert attention.augmentation.preset == "strong" and not resolve(attention.augmentation).cutmix
    assert resolved(params_file, "cosine_b0").train.warmup_epochs == 1.0


# What `params.yaml` might hold before: nothing of it may stay in a recipe of a network, but for what the machine decides.
OTHERWISE: dict[str, Any] = YAML(typ="safe", pure=True).load("""
prepare: {size: 96, fit: crop, color_constancy: shades_of_gray}
synthesize: {images: {df: 7}}
ensemble: {seeds: [3, 4], members: [other], overrides: {other: {lr: 0.5}}}
evaluate: {test_time: flips}
train: {
  backbone: vgg11, weights: other.pth, head: mlp, hidden: 9, hidden_dropout: 0.9, dropout: 0.9, dropout_samples: 9, attention:
  cbam, metadata: true, metadata_dropout: 0.9, precision: '16', epochs: 99, batch_size: 9, accumulate: 9, lr: 9.0, backbone_lr:
  9.0, layer_decay: 0.9, freeze_epochs: 9, freeze_lr: 9.0, optimizer: sgd, momentum: 0.1, weight_decay: 9.0, sam_rho: 9.0,
  clip_norm: 9.0, schedule: plateau, warmup_epochs: 9.0, restart_epochs: 9, plateau_patience: 9, plateau_factor: 0.9, average:
  swa, ema_decay: 0.9, swa_start: 0.9, batch_norm_images: 9, loss: ldam, focal_gamma: 9.0, ldam_margin: 9.0, ldam_scale: 9.0,
  logit_tau: 9.0, label_smoothing: 0.9, class_weights: effective, effective_beta: 0.9, class_weights_mean: classes,
  class_multipliers: {nv: 9.0}, defer_weights: 0.9, sampler: square_root, one_view_per_lesion: true, select_by: loss, patience:
  9,
  augmentation: {
    preset: strong, horizontal_flip: false, vertical_flip: false, rotation: 9.0, min_scale: 0.1, zoom: 0.9, color_jitter: 0.9,
    hue: 0.4, rand_augment: 9, trivial_augment: true, hair: 0.9, random_erasing: 0.9, mixup: 9.0, cutmix: 9.0, mix_share: 0.9
  }
}
""")


def read_values(params: Params) -> dict[str, Any]:
    """The values of a recipe's subject that some option reads, and that the machine does not decide."""
    train = params.train
    unread = {
        "hidden": train.head == "linear",
        "hidden_dropout": train.head == "linear",
        "metadata_dropout": not train.metadata,
        "freeze_lr": train.freeze_epochs == 0,
        "momentum": train.optimizer != "sgd",
        "restart_epochs": train.schedule != "cosine_restarts",
        "plateau_patience": train.schedule != "plateau",
        "plateau_factor": train.schedule != "plateau",
        "ema_decay": train.average != "ema",
        "swa_start": train.average != "swa",
        "focal_gamma": train.loss != "focal",
        "ldam_margin": train.loss != "ldam",
        "ldam_scale": train.loss != "ldam",
        "logit_tau": train.loss != "logit_adjusted",
        "effective_beta": train.class_weights != "effective" and train.loss != "class_balanced",
        "class_weights_mean": train.class_weights == "none",
    }
    skipped = NOT_THE_NETWORK_S | {name for name, holds in unread.items() if holds}
    values = {name: value for name, value in train.model_dump().items() if name not in skipped}
    synthesis = params.synthesize.model_dump() if params.synthesize.images else {}
    others = {"prepare": params.prepare, "ensemble": params.ensemble}
    return values | {name: section.model_dump() for name, section in others.items()} | {"synthesize": synthesis}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_s_recipe_leaves_nothing_to_what_was_there(
    name: str, params_file: Path, repository_params: dict[str, Any]
) -> None:
    assert set(repository_params["train"]) - NOT_THE_NETWORK_S == set(OTHERWISE["train"]), (
        "a new option needs a value in recipes/plain.yaml"
    )
    changes = compose([name])
    ours = Params.model_validate(override(repository_params, changes))
    theirs = Params.model_validate(override(override(repository_params, OTHERWISE), changes))
    assert read_values(theirs) == read_values(ours)
    assert theirs.evaluate.test_time == ours.evaluate.test_time


def test_no_recipe_names_a_path_of_a_machine() -> None:
    for name in NAMES:
        values = flatten(compose([name]))
        assert values.get("train.weights", "none") in ("none", "imagenet")
        assert values.get("download.path") is None and values.get("split.links") is None


def test_later_recipe_wins(params_file: Path, repository_params: dict[str, Any]) -> None:
    def both(*names: str) -> Params:
        return Params.model_validate(override(repository_params, compose(names)))

    assert both("capstone_resnet50", "cosine_b0").train.backbone == "efficientnet_b0"
    assert both("cosine_b0", "capstone_resnet50").train.backbone == "resnet50"
    assert both("cosine_b0", "capstone_resnet50").train.schedule == "none"
    assert both("cosine_b0", "ham10000") == both("ham10000", "cosine_b0")
    assert both("ham10000", "smoke").download.source == "sample"
    assert both("smoke", "ham10000").download.source == "dataverse"


@pytest.mark.structure
def test_dvc_takes_every_value_that_the_readme_sets(params_file: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [
        shlex.split(command, comments=True) for command in re.findall(r"^dvc exp run (?!--queue|\$).*", text, re.MULTILINE)
    ]
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


@pytest.mark.parametrize("name", [name for name in NAMES if name != "smoke"])
def test_smoke_makes_any_recipe_small(name: str, params_file: Path, repository_params: dict[str, Any]) -> None:
    params = resolved(params_file, name, "smoke")
    assert (params.download.source, params.prepare.size, params.train.epochs) == ("sample", 32, 1)
    assert (params.train.backbone, params.train.weights) == ("mobilenet_v3_small", "none")
    assert params.ensemble.member_names() == ["base-0"] and params.bootstrap.draws == 100
    kept = ("loss", "sampler", "attention", "head", "average", "class_weights", "class_multipliers", "augmentation", "optimizer")
    alone = override(repository_params, compose([name]))["train"]
    assert {key: params.train.model_dump()[key] for key in kept} == {key: alone[key] for key in kept}


def test_members_of_the_mixed_ensemble(params_file: Path) -> None:
    params = resolved(params_file, "best_gpu")
    backbones = {name: params.member(name).backbone for name in params.ensemble.members}
    assert backbones == {"convnext": "convnext_small", "efficientnet": "efficientnet_v2_s", "swin": "swin_v2_s"}
    assert (params.member("swin").layer_decay, params.member("efficientnet").layer_decay) == (0.8, 1.0)


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
    ("train.lr", 1e-05),
    ("train.lr", 3e-4),
    ("train.lr", 2),
    ("train.lr", 2.0),
    ("train.clip_norm", None),
    ("train.metadata", True),
    ("train.compile", False),
    ("train.precision", "32"),
    ("train.precision", 32),
    ("train.precision", "bf16"),
    ("machine.devices", "auto"),
    ("train.weights", "../shared/weights/mobilenet_v2-b0353104.pth"),
    ("train.weights", "/data/weights.safetensors"),
    ("train.weights", "~/weights.pth"),
    ("train.weights", "C:/weights@2,a=b+c%d.pth"),
    ("train.weights", "1e-05"),
    ("train.weights", "null"),
    ("train.weights", "True"),
    ("train.weights", "nan"),
    ("ensemble.seeds", [0, 1, 2]),
    ("threshold_sweep.recall_constraints", [0.5, 1e-05, 1]),
    ("train.loggers", []),
    ("train.loggers", ["dvclive", "tensorboard"]),
    ("train.class_multipliers", {}),
    ("train.class_multipliers", {"mel": 3.0, "bcc": 2, "df": 1e-05}),
    ("synthesize.images", {"df": 300, "vasc": 0}),
    ("threshold_sweep.groups", {"malignant": ["mel"], "keratinocytic": ["bcc", "akiec"]}),
    (
        "ensemble.overrides",
        {
            "base": {},
            "b2": {
                "backbone": "efficientnet_b2",
                "lr": 1e-05,
                "weights": "../weights/b2.pth",
                "precision": "32",
                "dropout": None,
                "metadata": False,
                "loggers": ["dvclive"],
                "class_multipliers": {"mel": 2.0},
                "augmentation": {"rotation": None},
            },
        },
    ),
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


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *names: str) -> str:
    """Run the command; stdout may hold only what DVC refuses. Returns its message."""
    monkeypatch.setattr(sys, "argv", ["recipes", *names])
    with pytest.raises(SystemExit) as stopped:
        run_stage(main)
    assert capsys.readouterr().out == "--recipe-was-refused\n"
    assert isinstance(stopped.value.code, str), "exit code 1, the message on stderr"
    return stopped.value.code


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"train": {"epochs": 0}}, ["params.yaml with recipe own is refused", "train.epochs = 0", "greater than or equal to 1"]),
    ({"train": {"epoch": 3}}, ["train.epoch: unknown key; did you mean 'epochs'?"]),
    ({"train": {"augmentation": {"mixp": 3}}}, ["train.augmentation.mixp: unknown key; did you mean 'mixup'?"]),
    ({"trian": {"epochs": 3}}, ["trian: unknown key; did you mean 'train'?"]),
    ({"train": 3}, ["train = 3"]),
    ({"train": {"backbone": "efficientnet_bO"}}, ["train.backbone", "did you mean 'efficientnet_b"]),
    ({"train": {"class_multipliers": {"mell": 3}}}, ["'mell' is not a diagnosis; did you mean 'mel'?"]),
    ({"train": {"weights": "my weights.pth"}}, ["train.weights = 'my weights.pth' cannot go through a command line unharmed"]),
    ({"train": {"weights": "*.pth"}}, ["train.weights = '*.pth' cannot go through a command line unharmed"]),
    ({"train": {"weights": "${a}"}}, ["train.weights = '${a}' cannot go"]),
    ({"train": {"weights": "it's"}}, ["cannot go through a command line unharmed: set it in params.yaml itself"]),
    ({"threshold_sweep": {"groups": {"my group": ["mel"]}}}, ["threshold_sweep.groups = {'my group'", "cannot go through"]),
    (
        {"ensemble": {"members": ["b"], "overrides": {"b": {"backbone": "restnet18"}}}},
        ["ensemble.overrides.b", "train.backbone", "did you mean 'resnet18'?"],
    ),
]


@pytest.mark.parametrize(("params", "said"), REFUSED)
def test_refused_values(
    params: dict[str, Any],
    said: list[str],
    params_file: Path,
    write_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = refused(monkeypatch, capsys, write_recipe(params))
    for part in said:
        assert part in message


def test_recipes_that_are_valid_alone_and_refused_together(
    params_file: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = write_recipe({"train": {"epochs": 3}}, name="short")
    assert recipe_words([short]) == ["-S", "train.epochs=3"]
    message = refused(monkeypatch, capsys, "two_phase_resnet50", short)
    assert "params.yaml with recipes two_phase_resnet50 short is refused" in message
    assert "freeze_epochs is 5 of 3 epochs" in message


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cosin_b0", "there is no recipe 'cosin_b0'; did you mean cosine_b0"),
        ("dsci_b2_mel", "did you mean dsci_b2_mel224 or"),
        ("xyz", "there is no recipe 'xyz'; `python -m recipes` lists them all"),
        ("../params", "there is no recipe '../params'"),
    ],
)
def test_unknown_recipe(
    name: str, said: str, params_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(monkeypatch, capsys, "plain", name)


def test_refusal_of_the_command_itself() -> None:
    done = subprocess.run([sys.executable, "-m", "recipes", "cosine"], cwd=ROOT, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, "--recipe-was-refused\n")
    assert done.stderr.startswith("error: there is no recipe 'cosine'; did you mean cosine_b0?")


def test_dvc_refuses_the_word_of_a_refused_recipe() -> None:
    command = [sys.executable, "-m", "dvc", "exp", "run", "--recipe-was-refused"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode != 0 and "unrecognized arguments: --recipe-was-refused" in done.stderr


def test_outside_the_project(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run from the project's root" in refused(monkeypatch, capsys, "plain")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"params": {}, "description": "two\nlines"}, "description"),
        ({"params": {}, "source": None}, "source: Field required"),
        ({"params": [1]}, "params"),
        ({"params": {}, "parms": {}}, "parms: Extra inputs are not permitted"),
        ({"params": {}, "based_on": "plane"}, "there is no recipe 'plane'; did you mean plain?"),
        ({"params": {}, "based_on": "own"}, "recipe 'own' is based on itself: own <- own"),
    ],
)
def test_a_file_that_is_no_recipe(content: dict[str, Any], said: str, write_recipe: WriteRecipe) -> None:
    name = write_recipe(content.pop("params"), **content)
    with pytest.raises(PipelineError, match=r"recipe '") as caught:
        compose([name])
    assert said in str(caught.value)


def test_a_file_that_is_no_yaml(write_recipe: WriteRecipe) -> None:
    (recipes.FOLDER / "broken.yaml").write_text("params: {a: 1\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"recipe 'broken': .* is not valid YAML"):
        read_recipe("broken")


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
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.endswith("\n")
    assert said.split() == recipe_words(["cosine_b0", "ham10000"])
