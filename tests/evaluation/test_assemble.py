"""The stage `assemble`, and the classifier on disk: what is written, how it comes back, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from skinlesion.artifacts.paths import CLASSIFIER, MEMBERS, PLOTS
from skinlesion.base.files import read_json, write_json
from skinlesion.model.classifier import load_classifier, load_ensemble, read_classifier_config, save_classifier
from skinlesion.report.curves import TABLES
from stages import assemble
from tests.conftest import WriteParams, refuses
from tests.model.classifier_cases import make_config, make_network
from tests.stage_cases import PATIENT, files_of, write_lists, write_prepared

HISTORY = [column for columns in TABLES.values() for column in columns]
FINGERPRINT = "0123456789abcdef" * 4


def write_member(member: str, seed: int, backbone: str = "shufflenet_v2_x0_5", **overrides: Any) -> None:
    """What `train` writes of a member, as far as it matters here, from random weights."""
    facts = {"fingerprint": FINGERPRINT, "epoch": 5 + seed, **overrides}
    config = make_config(backbone, member=member, seed=seed, **facts)
    save_classifier(make_network(config, seed=seed).state_dict(), config, MEMBERS / config.name)
    history = PLOTS / "train" / config.name / "history.csv"
    history.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(dict.fromkeys(HISTORY, 0.5) | {"epoch": [1, 2], "val_loss": [0.5, 0.25 + seed]}).to_csv(history, index=False)


def write_images() -> None:
    """Nine prepared images of noise, and the three lists that deal them out."""
    frame = pd.DataFrame({"image_id": [f"I{number}" for number in range(9)], "dx": "mel", "lesion_id": "L"}).assign(**PATIENT)
    write_prepared(frame["image_id"], np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3)))
    write_lists({"train": frame[:7], "val": frame[7:8], "test": frame[8:]}, FINGERPRINT)


def write_two(write_params: WriteParams, **second: Any) -> None:
    """Params with members base and b2, `second` the overrides of b2, and seeds 3 and 0."""
    overrides = {"base": {}, "b2": {"backbone": "mobilenet_v3_small"} | second}
    write_params({"ensemble.seeds": [3, 0], "ensemble.members": ["base", "b2"], "ensemble.overrides": overrides})


@pytest.fixture
def members(workspace: Path, write_params: WriteParams) -> Path:
    """A workspace with members base-3, base-0, b2-3, b2-0, in this order, and one that params do not name."""
    write_two(write_params)
    write_images()
    for seed in (0, 3):
        write_member("base", seed, weights_sha256="ab" * 32)
        write_member("b2", seed, "mobilenet_v3_small", metadata=True)
    write_member("old", 0, size=64)
    return workspace


def test_the_classifier_is_the_members_that_params_name_in_their_order(members: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assemble.main()
    names = ["base-3", "base-0", "b2-3", "b2-0"]
    copied = {f"{name}/{file}" for name in names for file in ("config.json", "weights.safetensors")}
    written, trained = files_of(CLASSIFIER), files_of(MEMBERS)
    assert set(written) == {"ensemble.json"} | copied
    assert all(written[path] == trained[path] for path in copied)
    ensemble = read_json(CLASSIFIER / "ensemble.json")
    assert [member["name"] for member in ensemble["members"]] == names
    first = {"name": "base-3", "member": "base", "seed": 3, "backbone": "shufflenet_v2_x0_5", "epoch": 8}
    assert ensemble["members"][0] == first | {"needs_metadata": False, "weights_sha256": "ab" * 32}
    assert [member["needs_metadata"] for member in ensemble["members"]] == [False, False, True, True]
    assert ensemble["needs_metadata"]
    shared = {key: ensemble[key] for key in ("size", "fit", "color_constancy", "fingerprint", "images_sha256")}
    assert shared == {"size": 32, "fit": "squash", "color_constancy": "none", "fingerprint": FINGERPRINT, "images_sha256": "beef"}
    assert "left out, since params do not name them: old-0" in caplog.text
    loaded = load_ensemble()
    assert list(loaded) == names
    assert [config.backbone for _, config in loaded.values()] == ["shufflenet_v2_x0_5"] * 2 + ["mobilenet_v3_small"] * 2
    assert not any(model.training for model, _ in loaded.values())
    for name, (model, config) in loaded.items():
        assert config == read_classifier_config(MEMBERS / name)
        expected = make_network(config, seed=config.seed).state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_the_curves_of_all_members_are_written(members: Path) -> None:
    assemble.main()
    folder = PLOTS / "assemble"
    assert {path.name for path in folder.iterdir()} == {"loss.csv", "metrics.csv", "learning_rate.csv", "augmentation.png"}
    loss = pd.read_csv(folder / "loss.csv").query("curve == 'val/loss'")
    assert loss["member"].tolist() == [name for name in ("base-3", "base-0", "b2-3", "b2-0") for _ in range(2)]
    assert loss["value"].tolist() == [0.5, 3.25, 0.5, 0.25] * 2


def test_a_member_that_augments_otherwise_has_a_picture_of_its_own(members: Path, write_params: WriteParams) -> None:
    write_two(write_params, augmentation={"preset": "strong"})
    assemble.main()
    first, second = (PLOTS / "assemble" / f"{name}.png" for name in ("augmentation", "augmentation_b2"))
    assert first.read_bytes() != second.read_bytes()


def test_a_second_run_gives_equal_bytes_and_a_member_that_is_gone_is_left_out(members: Path, write_params: WriteParams) -> None:
    assemble.main()
    first = files_of(CLASSIFIER)
    assemble.main()
    assert files_of(CLASSIFIER) == first
    write_params()  # base with seed 0 alone
    assemble.main()
    assert set(files_of(CLASSIFIER)) == {"ensemble.json", "base-0/config.json", "base-0/weights.safetensors"}
    assert not read_json(CLASSIFIER / "ensemble.json")["needs_metadata"]
    assert not list(members.rglob("*.partial"))


@pytest.mark.parametrize("missing", ["models/members/b2-3", "models/members/b2-3/weights.safetensors"])
def test_a_member_that_is_not_trained_is_named(members: Path, missing: str) -> None:
    shutil.rmtree(missing) if Path(missing).is_dir() else Path(missing).unlink()
    command = r"`dvc repro`, or `python -m stages.train --member b2 --seed 3`"
    refuses(rf"member 'b2-3' is not trained, for {missing}.* not found: run {command}", assemble.main)
    assert not CLASSIFIER.exists()


@pytest.mark.parametrize("share", [0.5, 0])
def test_a_member_with_cut_weights_is_refused(members: Path, share: float) -> None:
    path = members / "models/members/b2-3/weights.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refuses(r"b2-3/weights.safetensors is damaged \(.*\): run `dvc repro`, or .*--seed 3`", assemble.main)
    assert not CLASSIFIER.exists()


def test_a_member_without_its_history_is_named_before_anything_is_written(members: Path) -> None:
    (PLOTS / "train" / "b2-3" / "history.csv").unlink()
    refuses(r"plots/train/b2-3/history.csv not found: run `train` first", assemble.main)
    assert not CLASSIFIER.exists()


def test_a_member_in_anothers_folder_is_refused(members: Path) -> None:
    shutil.rmtree(MEMBERS / "base-3")
    shutil.copytree(MEMBERS / "base-0", MEMBERS / "base-3")
    refuses(r"models/members/base-3 holds member 'base-0': run `dvc repro`", assemble.main)


@pytest.mark.parametrize(
    ("different", "reason"),
    [
        ({"size": 48}, "size 48, not 32"),
        ({"fit": "crop"}, "fit crop, not squash"),
        ({"color_constancy": "shades_of_gray"}, "color_constancy shades_of_gray, not none"),
        ({"fingerprint": "f" * 64}, r"fingerprint f{12}\.\.\., not 0123456789ab\.\.\."),
        ({"images_sha256": "cafe", "fit": "pad"}, "fit pad, not squash; images_sha256 cafe, not beef"),
    ],
)
def test_members_that_disagree_are_refused(members: Path, different: dict[str, Any], reason: str) -> None:
    write_json(CLASSIFIER / "ensemble.json", {"members": "of before"})
    write_member("b2", 3, "mobilenet_v3_small", **different)
    refuses(rf"member 'b2-3' was not trained .* of member 'base-3' \({reason}\): run `dvc repro`", assemble.main)
    assert [*files_of(CLASSIFIER)] == ["ensemble.json"] and read_json(CLASSIFIER / "ensemble.json") == {"members": "of before"}


# One classifier


@pytest.fixture
def folder(workspace: Path) -> Path:
    """A saved classifier with metadata."""
    config = make_config("shufflenet_v2_x0_5", metadata=True)
    save_classifier(make_network(config).state_dict(), config, Path("one"))
    return Path("one")


def test_a_classifier_says_plainly_what_it_is_and_whether_it_needs_metadata(folder: Path) -> None:
    content = read_json(folder / "config.json")
    first = {"member": "base", "seed": 0, "backbone": "shufflenet_v2_x0_5", "needs_metadata": True}
    assert list(content.items())[:4] == list(first.items())
    model, config = load_classifier(folder)
    assert model.needs_metadata
    assert config.needs_metadata
    with pytest.raises(ValueError, match="metadata"):
        model(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": ...}, "config.json lacks seed: run `train` again"),
        ({"classes": ["mel", "nv"]}, "classes are .* this project's are"),
        ({"classes": None}, "classes = None: .*: run `train` again"),
        ({"mean": [0.5]}, r"mean\.1: missing: run `train` again"),
        ({"size": "64"}, "size = '64': input should be a valid integer"),
        ({"network": {"backbone": "resnet18"}}, "head: missing: run `train` again"),
        ({"network": dict.fromkeys(("backbone", "head"), "foo")}, "head = 'foo': input should be 'linear' or 'mlp'"),
        ({"needs_metadata": False}, "backbone or needs_metadata is not that of its network"),
        ({"backbone": "resnet18"}, "backbone or needs_metadata is not that of its network"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused(folder: Path, changed: dict[str, Any], message: str) -> None:
    content = read_json(folder / "config.json") | changed
    write_json(folder / "config.json", {key: value for key, value in content.items() if value is not ...})
    refuses(message, load_classifier, folder)


def test_weights_that_are_damaged_or_of_another_network_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    refuses(r"weights.safetensors is damaged or does not fit 'shufflenet_v2_x0_5' .*run `train`", load_classifier, folder)
    save_classifier(make_network(make_config("resnet18")).state_dict(), make_config("shufflenet_v2_x0_5"), folder)
    refuses("is damaged or does not fit 'shufflenet_v2_x0_5'", load_classifier, folder)
    path.unlink()
    refuses(r"weights.safetensors not found: run `train` first", load_classifier, folder)


def test_a_folder_that_holds_another_member_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "ensemble.json", {"members": [{"name": "other-3"}]})
    config = make_config("shufflenet_v2_x0_5")
    save_classifier(make_network(config).state_dict(), config, tmp_path / "other-3")
    refuses(f"other-3 holds member '{config.name}': run `assemble` again", load_ensemble, tmp_path)
