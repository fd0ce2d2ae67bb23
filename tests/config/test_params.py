"""`params.yaml`: what is accepted, and what each refusal says."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from skinlesion.base.errors import PipelineError
from skinlesion.config.params import load_params
from skinlesion.training.augmentation.presets import resolve
from tests.conftest import ROOT, WriteParams


def refusal(path: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        load_params(path)
    return str(caught.value)


def test_the_repository_s_own_file_is_valid(repository_params: dict[str, Any]) -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.train.lr == repository_params["train"]["lr"]
    assert params.download.source == "sample"


# Values that a key refuses by itself, by what the message says of them.
BY_KEY: dict[str, list[dict[str, Any]]] = YAML(typ="safe", pure=True).load("""
valid integer: [{train.epochs: ten}, {train.epochs: 2.5}, {train.epochs: true}, {split.seed: null}]
valid number: [{train.lr: true}]
valid boolean: [{train.augmentation.vertical_flip: 1}]
finite number: [{train.lr: .nan}]
greater than 0: [{train.lr: 0}, {split.max_deviation: 0}, {threshold_sweep.cost_ratios: [0.0]}, {subgroups.age_bands: [0]},
  {threshold_sweep.prevalences: [0.0]}, {selective.coverages: [0.0]}]
greater than 0.5: [{bootstrap.confidence: 0.5}]
greater than or equal to 0: [{split.fold: -1}, {selective.raps_penalty: -0.1}]
greater than or equal to 1: [{subgroups.min_lesions: 0}, {subgroups.min_melanomas: 0}, {robustness.severities: [0]}]
greater than or equal to 2: [{train.batch_size: 1}, {baselines.color_bins: 1}]
greater than or equal to 100: [{bootstrap.draws: 99}]
less than 1: [{train.label_smoothing: 1.0}, {train.effective_beta: 1.0}, {threshold_sweep.guaranteed_recalls: [1.0]},
  {threshold_sweep.guarantee: 1.0}, {selective.conformal_levels: [1.0]}, {selective.conformal_share: 1.0}]
less than or equal to 1: [{threshold_sweep.specificity_constraints: [1.5]}, {threshold_sweep.recall_constraints: [1.5]}]
less than or equal to 5: [{robustness.severities: [6]}]
less than or equal to 7: [{selective.raps_free: 8}]
less than or equal to 16: [{baselines.color_bins: 17}]
less than or equal to 1024: [{prepare.size: 2048}]
at least 1 item: [{gradcam.methods: []}, {threshold_sweep.recall_constraints: []}, {selective.coverages: []},
  {subgroups.age_bands: []}, {robustness.corruptions: []}, {robustness.severities: []}]
names a value twice: [{gradcam.methods: [CAM, LayerCAM, CAM]}, {threshold_sweep.cost_ratios: [5.0, 5.0]},
  {threshold_sweep.recall_constraints: [0.9, 0.9]}, {selective.coverages: [0.5, 0.5]}, {robustness.corruptions: [hue, hue]},
  {robustness.severities: [3, 3]}, {ensemble.seeds: [0, 0]}]
""")


@pytest.mark.parametrize(("message", "override"), [(message, each) for message, values in BY_KEY.items() for each in values])
def test_a_value_that_its_key_refuses(write_params: WriteParams, message: str, override: dict[str, Any]) -> None:
    ((key, value),) = override.items()
    named = f"{key}.0 = {value[0]!r}" if isinstance(value, list) and len(value) == 1 else f"{key} = {value!r}"
    assert re.search(rf"{re.escape(named)}: .*{message}", refusal(write_params(override)))


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"train.learning_rate": 0.1}, ["train.learning_rate: unknown key", "known here: backbone, weights"]),
    ({"train.patiense": 3}, ["train.patiense: unknown key", "did you mean 'patience'?"]),
    ({"train.augmentation.rotaton": 3}, ["train.augmentation.rotaton: unknown key; did you mean 'rotation'?"]),
    ({"spilt": {}}, ["spilt: unknown key; did you mean 'split'?"]),
    ({"extras.leak": ["ran"]}, ["extras.leak.0 = 'ran'", "'run'"]),
    ({"train.backbone": "resnet81"}, ["'resnet81': torchvision has no classification model of that name; did you mean 'resnet"]),
    ({"split.fold": 5}, ["split", "fold is 5, and with 5 folds it can be 0 to 4"]),
    ({"prepare.fit": "sqash"}, ["prepare.fit = 'sqash'", "'squash', 'crop' or 'pad'", "did you mean 'squash'?"]),
    ({"gradcam.methods": ["CAM", "GradCamPP"]}, ["gradcam.methods.1 = 'GradCamPP'", "did you mean 'GradCAM"]),
    ({"gradcam.methods": "GradCAM"}, ["gradcam.methods = 'GradCAM'", "valid list"]),
    ({"train.precision": 64}, ["train.precision = '64'", "'32', 'bf16' or '16'"]),
    ({"train.loggers": ["wandb"]}, ["train.loggers.0 = 'wandb'", "'dvclive'"]),
    ({"download.path": "images"}, ["path is only read by source 'local', and source is 'sample'", "set download.path to null"]),
    ({"download.source": "local"}, ["source is 'local', which needs a folder: set download.path"]),
    ({"train.warmup_epochs": 99.0}, ["warmup_epochs is 99.0, more than the"]),
    ({"threshold_sweep.target": "melanoma"}, ["target 'melanoma' is neither a diagnosis nor a group"]),
    ({"threshold_sweep.target": "malignat"}, ["did you mean 'malignant'?"]),
    ({"threshold_sweep.groups": {"mel": ["mel"]}}, ["groups.mel has the name of a diagnosis"]),
    ({"threshold_sweep.groups": {"size": ["mel"]}}, ["groups.size: a name in which DVC does not see changes"]),
    ({"threshold_sweep.groups": {"bad": ["mel", "bbc"]}}, ["groups.bad: 'bbc' is not a diagnosis; did you mean 'bcc'?"]),
    ({"threshold_sweep.groups": {"bad": ["mel", "mel"]}}, ["groups.bad must list different diagnoses"]),
    ({"threshold_sweep.groups": {"bad": []}}, ["groups.bad must list different diagnoses, at least one"]),
    (
        {"threshold_sweep.groups": {"all": ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]}},
        ["groups.all holds every diagnosis"],
    ),
    ({"prepare": 64}, ["prepare = 64"]),
    ({"train.metadata": "dx_type"}, ["train.metadata", "dx_type is never an input"]),
    ({"train.metadata": ["age", "dx_type"]}, ["dx_type is never an input"]),
    ({"train.metadata": "age"}, ["train.metadata = 'age'"]),
    ({"train.freeze_epochs": 8}, ["freeze_epochs is 8 of 8 epochs: none is left for fine-tuning"]),
    ({"train.freeze_epochs": 7, "train.warmup_epochs": 2}, ["more than the 1 epochs of fine-tuning"]),
    ({"train.schedule": "one_cycle", "train.warmup_epochs": 0}, ["one_cycle rises for warmup_epochs and falls after"]),
    ({"train.dropout_samples": 4, "train.dropout": 0.0}, ["dropout_samples needs dropout above 0"]),
    ({"train.dropout_samples": 4}, ["dropout_samples needs dropout above 0", "null is none for 'resnet18'"]),
    ({"train.backbone": "vit_b_16", "train.attention": "se"}, ["'vit_b_16' passes on tokens instead: set attention to none"]),
    ({"train.backbone": "vit_b_16", "prepare.size": 72}, ["prepare.size is 72, and backbone 'vit_b_16' takes images of a mult"]),
    (
        {"ensemble.overrides": {"base": {"backbone": "inception_v3"}}},
        ["'inception_v3' takes images of 75 pixels and more (ensemble.overrides.base): change one of them"],
    ),
    ({"gradcam.methods": ["GradCAM", "LeGrad"]}, ["LeGrad reads the attention of a ViT, and 'resnet18'"]),
    ({"train.backbone_lr": 0.001, "train.layer_decay": 0.9}, ["backbone_lr and layer_decay both set the backbone's rates"]),
    ({"train.loss": "class_balanced"}, ["class_balanced brings its own class weights"]),
    ({"train.loss": "ldam"}, ["ldam has a margin for the true class and no smoothed labels"]),
    ({"train.class_weights": "none", "train.defer_weights": 0.5}, ["defer_weights defers class weights, and there are none"]),
    ({"train.sam_rho": 0.05, "train.accumulate": 2}, ["sam_rho climbs and steps on one batch"]),
    ({"train.sam_rho": 0.05, "train.precision": "16"}, ["sam_rho does not go with precision 16"]),
    ({"train.schedule": "plateau", "train.patience": 2}, ["plateau_patience is 2 and patience 2: training ends before"]),
    ({"train.schedule": "plateau", "train.warmup_epochs": 8}, ["schedule plateau begins after warmup_epochs"]),
    ({"train.augmentation.mixup": 0.2, "train.augmentation.mix_share": 0.0}, ["mix_share is 0, so that nothing is mixed"]),
    ({"train.schedule": "plateau", "train.average": "swa"}, ["swa needs a schedule that does not depend on validation"]),
    ({"train.class_multipliers": {"melanoma": 3.0}}, ["class_multipliers: 'melanoma' is not a diagnosis"]),
    ({"train.class_multipliers": {"mel": 0.0}}, ["train.class_multipliers.mel = 0.0"]),
    ({"train.augmentation.rand_augment": 5, "train.augmentation.trivial_augment": True}, ["two policies for the same thing"]),
    ({"train.augmentation.preset": "ligth"}, ["did you mean 'light'?"]),
    ({"synthesize.images": {"dff": 3}}, ["images: 'dff' is not a diagnosis; did you mean 'df'?"]),
    ({"ensemble.members": ["b2"]}, ["'b2' has no entry in overrides"]),
    ({"ensemble.members": ["size"], "ensemble.overrides": {"size": {}}}, ["'size' is a name in which DVC does not see changes"]),
    ({"ensemble.members": ["../x"], "ensemble.overrides": {"../x": {}}}, ["must be a plain name"]),
    (
        {"ensemble.overrides": {"base": {"backbne": "vit_b_16"}}},
        ["ensemble.overrides.base makes a refused `train`: train.backbne: unknown key; did you mean 'backbone'?"],
    ),
    (
        {"ensemble.overrides": {"base": {"device": "cpu"}}},
        ["ensemble.overrides.base makes a refused `train`: train.device: unknown key; it is machine.device now"],
    ),
    ({"evaluate.batch_size": 64}, ["evaluate.batch_size: unknown key; it is machine.batch_size now, one value for all stages"]),
    ({"selective.bootstrap_draws": 100}, ["selective.bootstrap_draws: unknown key; it is bootstrap.draws now"]),
    ({"machine.devices": 0}, ["machine.devices"]),
    ({"evaluate.test_time": "flip"}, ["evaluate.test_time = 'flip'", "did you mean 'flips'?"]),
    ({"selective.conformal_method": "lac"}, ["conformal_method = 'lac'"]),
    ({"subgroups.age_bands": [50, 30]}, ["age_bands must rise, and [50", "does not"]),
    ({"subgroups.age_bands": [30, 30]}, ["age_bands must rise"]),
    ({"robustness.corruptions": ["fog"]}, ["robustness.corruptions"]),
    ({"prepare.color_constancy": "gray_world"}, ["prepare.color_constancy = 'gray_world'"]),
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


# Merged out, it has 2^39 keys.
DOUBLED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("train: [1, 2", "is not valid YAML"),
        ("", "must hold these sections: machine, bootstrap, download, split, prepare"),
        ("- a\n- b\n", "must hold these sections"),
        ("split: {}\nsplit: {}\n", "is not valid YAML"),
        ("a: " + "{a: " * 3000, "is not valid YAML: its values are nested too deeply"),
        ("a: " + "9" * 5000, "is not valid YAML: Exceeds the limit"),
        ("a: 2001-99-99", "is not valid YAML: month must be in 1..12"),
        ("a: !!bool x", "is not valid YAML: 'x'"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
        ("a: &a 1\nb: [" + "*a, " * 21 + "1]", "has 21 aliases (*name), more than 20: write the values out"),
        (DOUBLED, "has 78 aliases (*name), more than 20"),
        ("".join(f"a{number}: 1\n" for number in range(60)), "a17: unknown key"),
        ("".join(f"a{number}: 1\n" for number in range(60)), "\n  and 42 more"),
        ('"": 1', "'': unknown key; known here: machine"),
    ],
)
def test_a_file_that_is_no_params_file(workspace: Path, content: str, fragment: str) -> None:
    path = workspace / "params.yaml"
    path.write_text(content, encoding="utf-8")
    assert fragment in refusal(path)


def test_half_a_character_is_refused(workspace: Path) -> None:
    own = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "members: [base]" in own
    (workspace / "params.yaml").write_text(own.replace("members: [base]", 'members: ["\\ud800"]'), encoding="utf-8")
    assert re.search(r"params\.yaml is refused: .*members.*\\ud800.* holds half a character", refusal(workspace / "params.yaml"))


def test_missing_file_says_where_to_run(workspace: Path) -> None:
    assert "params.yaml not found in" in refusal(Path("params.yaml"))


def test_dvc_s_spelling_of_a_small_number_arrives_as_a_float(workspace: Path) -> None:
    before, section, train = (ROOT / "params.yaml").read_text(encoding="utf-8").partition("\ntrain:\n")
    text, replaced = re.subn(r"(?m)^  lr: \S+", "  lr: 1e-05", train)
    assert replaced == 1
    path = workspace / "params.yaml"
    path.write_text(before + section + text, encoding="utf-8")
    assert load_params(path).train.lr == 0.00001


def test_accepted_values(write_params: WriteParams) -> None:
    accepted = {
        "train.precision": 32,
        "train.warmup_epochs": 2,
        "download.source": "local",
        "download.path": "../images",
        "threshold_sweep.target": "malignant",
        "split.fold": 4,
        "train.backbone": "vgg11",
        "train.dropout_samples": 4,
    }
    params = load_params(write_params(accepted))
    assert params.train.precision == "32"
    assert params.train.warmup_epochs == 2.0
    assert params.threshold_sweep.target_classes() == ["mel", "bcc", "akiec"]
    assert params.split.fold == 4


def test_a_member_has_its_overrides_and_the_rest_of_train(write_params: WriteParams) -> None:
    overrides = {"base": {}, "b2": {"backbone": "efficientnet_b2", "augmentation": {"preset": "strong", "rotation": 45.0}}}
    ensemble = {"ensemble.members": ["base", "b2"], "ensemble.seeds": [3, 0], "ensemble.overrides": overrides}
    params = load_params(write_params(ensemble))
    assert params.ensemble.member_names() == ["base-3", "base-0", "b2-3", "b2-0"]
    assert params.member("base") == params.train
    other = params.member("b2")
    assert (other.backbone, other.lr) == ("efficientnet_b2", params.train.lr)
    assert (resolve(other.augmentation).rotation, resolve(other.augmentation).cutmix) == (45.0, 1.0)


def test_a_value_replaces_the_preset_s_also_by_nothing(write_params: WriteParams) -> None:
    changed = {"train.augmentation.horizontal_flip": False, "train.augmentation.color_jitter": 0.0}
    values = resolve(load_params(write_params(changed)).train.augmentation)
    assert (values.horizontal_flip, values.vertical_flip, values.color_jitter, values.rotation) == (False, True, 0.0, 20.0)
