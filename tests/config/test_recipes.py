"""Recipes: what they say, how they combine, and that they leave nothing of a network to what was there."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from recipes import compose, override, recipe_names, recipe_words
from skinlesion.config.params import Params, load_params
from skinlesion.training.augmentation.presets import resolve
from tests.config.recipe_cases import NAMES, NETWORKS, PUBLISHED, apply, flatten, read
from tests.conftest import ROOT

NOT_THE_NETWORK_S = {"compile", "loggers"}


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
# Columns that have another name than the option.
COLUMNS = {"batch": "batch_size", "wd": "weight_decay", "rates": "schedule", "eps": "label_smoothing"}
COLUMNS |= {"weights": "class_weights", "stop": "patience"}
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
    found = train.model_dump() | {"name": name, "size": params.prepare.size, "mel": train.class_multipliers.get("mel", 1)}
    table = {COLUMNS.get(column, column): YAML(typ="safe", pure=True).load(value) for column, value in row.items()}
    assert {option: found[option] for option in table} == table
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
        ("hidden", "hidden_dropout"): train.head == "linear",
        ("metadata_dropout",): not train.metadata,
        ("freeze_lr",): train.freeze_epochs == 0,
        ("momentum",): train.optimizer != "sgd",
        ("restart_epochs",): train.schedule != "cosine_restarts",
        ("plateau_patience", "plateau_factor"): train.schedule != "plateau",
        ("ema_decay",): train.average != "ema",
        ("swa_start",): train.average != "swa",
        ("focal_gamma",): train.loss != "focal",
        ("ldam_margin", "ldam_scale"): train.loss != "ldam",
        ("logit_tau",): train.loss != "logit_adjusted",
        ("effective_beta",): train.class_weights != "effective" and train.loss != "class_balanced",
        ("class_weights_mean",): train.class_weights == "none",
    }
    skipped = NOT_THE_NETWORK_S.union(*(names for names, holds in unread.items() if holds))
    synthesis = params.synthesize.model_dump() if params.synthesize.images else {}
    others = {"prepare": params.prepare.model_dump(), "ensemble": params.ensemble.model_dump(), "synthesize": synthesis}
    return train.model_dump(exclude=skipped) | others


@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_recipe_leaves_nothing_to_before(name: str, params_file: Path, repository_params: dict[str, Any]) -> None:
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
