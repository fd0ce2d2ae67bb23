"""The whole pipeline through DVC on a tiny sample, in a clone: what runs, what does not, and what is compared."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from skinlesion.artifacts.raw import image_path
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.evaluation.results.predictions import read_predictions
from skinlesion.serving.predictor import load_predictor
from skinlesion.serving.uploads import decode_upload
from tests.conftest import ROOT
from tests.pipeline.clone import AFTER_EVALUATION, AFTER_TRAINING, commit_all, run, set_params, stages_run
from tests.stage_cases import read_metrics


def first_json(output: str) -> dict[str, Any]:
    """The JSON that a command printed, before what it said to standard error: here that plots of extras are not there."""
    return json.JSONDecoder().raw_decode(output)[0]


def test_a_second_run_does_nothing_and_git_sees_no_data(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "repro")) == []
    set_params(clone / "params.yaml", {"machine.batch_size": 7, "machine.device": "cpu", "machine.channels_last": False})
    assert stages_run(run(clone, "dvc", "repro")) == ["report"]  # which prints params.yaml
    run(clone, "git", "checkout", "--quiet", "params.yaml", "dvc.lock")
    assert run(clone, "git", "status", "--porcelain") == ""
    tracked = run(clone, "git", "ls-files", "data", "models", "plots").split()
    assert all(name.endswith(".gitkeep") for name in tracked)


def test_the_stages_agree_with_each_other(finished: Path) -> None:
    stages = ("split", "evaluate", "gradcam", "neighbors")
    split, evaluated, explained, compared = (read_metrics(stage, finished) for stage in stages)
    config = json.loads((finished / "models/classifier/base-0/config.json").read_text(encoding="utf-8"))
    assert evaluated["test"]["images"] == split["images"]["test"] == explained["images"] == compared["images"]
    assert compared["metrics"]["accuracy"]["network"]["value"] == pytest.approx(evaluated["test"]["accuracy"])
    assert config["fingerprint"] == split["fingerprint"]
    assert config["git_commit"] == run(finished, "git", "rev-parse", "HEAD~1").strip()
    assert evaluated["data"] == config["data"] == {"source": "sample", "synthetic": True}
    assert set(read_metrics("threshold_sweep", finished)["points"]) >= {"recall_0.85", "youden"}


def test_the_predictor_gives_what_stands_in_the_prediction_table(finished: Path) -> None:
    table, predictor = read_predictions("test", finished / "data/predictions"), load_predictor(finished)
    images = [decode_upload(image_path(image_id, finished / "data/raw").read_bytes()).image for image_id in table["image_id"]]
    predictions = predictor.predict(images)
    given = [list(prediction.probabilities.values()) for prediction in predictions]
    np.testing.assert_allclose(given, table[list(PROBABILITY_COLUMNS)].to_numpy(), rtol=0, atol=1e-5)
    stated = read_metrics("threshold_sweep", finished)["points"]["recall_0.90"]
    positive = (table["dx"] == "mel").to_numpy()
    flagged = np.array([prediction.flagged for prediction in predictions])
    assert flagged[positive].mean() == pytest.approx(stated["test"]["sensitivity"])
    point = predictor.points["recall_0.90"]
    assert point.sensitivity is not None and point.measured_on == "test"
    assert point.sensitivity.value == stated["test"]["sensitivity"] and point.sensitivity.low is not None
    assert predictor.conformal is not None and predictions[0].sets.keys() == {"0.9", "0.95"}


def test_metrics_and_plots_are_found_by_dvc(clone: Path) -> None:
    shown = run(clone, "dvc", "metrics", "show")
    assert all(f"metrics/{name}.json" in shown for name in ("split", "train/base-0", "evaluate", "threshold_sweep", "gradcam"))
    targets = YAML(typ="safe").load((clone / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    printed = run(clone, "python", "-m", "tools.summary").splitlines()  # `make metrics`
    evaluated = read_metrics("evaluate", clone)["test"]
    low, high = evaluated["intervals"]["macro_auc"]["low"], evaluated["intervals"]["macro_auc"]["high"]
    assert any(f"macro AUC             {evaluated['macro_auc']:.3f} [{low:.3f}, {high:.3f}]" in line for line in printed)
    assert max(map(len, printed)) <= 130
    plots = first_json(run(clone, "dvc", "plots", "show", "--json"))
    # Extras that were not run have no plots yet.
    assert all(error["source"].startswith("plots/extras/") for error in plots.get("errors", []))
    assert len(plots["data"]) >= len(targets)


@pytest.mark.structure
def test_the_readme_draws_the_graph_that_dvc_has(clone: Path) -> None:
    output = run(clone, "dvc", "dag", "--mermaid")
    names = dict(re.findall(r'(node\d+)\["([^"]+)"\]', output))
    arrows = [(names[source], names[target]) for source, target in re.findall(r"(node\d+)-->(node\d+)", output)]
    real = set(arrows)
    drawing = (ROOT / "README.md").read_text(encoding="utf-8").partition("```mermaid")[2].partition("```")[0]
    arrows = re.findall(r"(\S+) --> (.+)", drawing)
    assert {(source, target) for source, targets in arrows for target in targets.split(" & ")} == real


OPTIONS = {  # of six stages, one each
    "threshold-sweep": ("threshold_sweep.target", "malignant"),
    "baselines": ("baselines.color_bins", 4),
    "selective": ("selective.coverages", [0.6]),
    "subgroups": ("subgroups.age_bands", [40]),
    "gradcam": ("gradcam.methods", ["LayerCAM"]),
    "neighbors": ("neighbors.k", 3),
}


@pytest.mark.operations  # it trains or runs much
def test_a_changed_option_runs_only_what_depends_on_it(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(clone)
    before = (clone / "params.yaml").read_bytes()
    for stage, (key, value) in OPTIONS.items():
        set_params(clone / "params.yaml", {key: value})
        changed = {name for name in Repo().status() if not name.startswith("extras/")}
        assert changed == {stage, "report"}  # which prints params.yaml
        (clone / "params.yaml").write_bytes(before)
    words = [word for key, value in OPTIONS.values() for word in ("-S", f"{key}={value}")]
    assert stages_run(run(clone, "dvc", "exp", "run", *words)) == AFTER_EVALUATION
    assert read_metrics("threshold_sweep", clone)["classes"] == ["mel", "bcc", "akiec"]
    assert list(read_metrics("selective", clone)["abstention"]) == ["0.6"]
    assert "below 40" in (clone / "plots/subgroups/groups.csv").read_text(encoding="utf-8")
    assert read_metrics("gradcam", clone)["method"] == "LayerCAM"
    assert read_metrics("neighbors", clone)["k"] == 3


@pytest.mark.operations  # it trains or runs much
def test_another_size_is_prepared_anew_though_a_run_is_cached(clone: Path) -> None:
    assert stages_run(run(clone, "dvc", "exp", "run", "-S", "prepare.size=48", "prepare")) == ["prepare"]
    assert np.load(clone / "data/prepared/images.npy", mmap_mode="r").shape[1:] == (48, 48, 3)
    run(clone, "git", "checkout", "--quiet", "--", ".")
    assert stages_run(run(clone, "dvc", "repro")) == []
    assert np.load(clone / "data/prepared/images.npy", mmap_mode="r").shape[1:] == (32, 32, 3)


@pytest.mark.operations  # it trains or runs much
def test_another_backbone_trains_anew_and_nothing_before_it_does(clone: Path) -> None:
    output = run(clone, "dvc", "exp", "run", "-S", "train.backbone=squeezenet1_1", "-S", "train.lr=0.00001", "train@base-0")
    assert stages_run(output) == ["train@base-0"]
    config = json.loads((clone / "models/members/base-0/config.json").read_text(encoding="utf-8"))
    assert config["params"]["lr"] == 1e-5 and config["backbone"] == "squeezenet1_1"
    difference = json.loads(run(clone, "dvc", "metrics", "diff", "--json"))
    assert difference["metrics/train/base-0.json"]["parameters"]["diff"] != 0


@pytest.mark.operations  # it trains or runs much
def test_an_added_seed_and_an_added_member_train_alone_and_are_compared_with_the_first_run(clone: Path) -> None:
    changes = ["ensemble.seeds=[0,1]", "ensemble.members=[base,small]", "+ensemble.overrides={small: {backbone: squeezenet1_1}}"]
    output = run(clone, "dvc", "exp", "run", "--name", "other", *(word for change in changes for word in ("-S", change)))
    added = ["base-1", "small-0", "small-1"]
    assert stages_run(output) == [*(f"train@{name}" for name in added), *AFTER_TRAINING]
    ensemble = json.loads((clone / "models/classifier/ensemble.json").read_text(encoding="utf-8"))
    assert [member["backbone"] for member in ensemble["members"]] == ["mobilenet_v3_small"] * 2 + ["squeezenet1_1"] * 2
    evaluated = read_metrics("evaluate", clone)
    assert evaluated["members"].keys() == {"base-0", *added}
    mean = sum(member["test"]["macro_auc"] for member in evaluated["members"].values()) / 4
    assert evaluated["spread"]["test"]["macro_auc"]["mean"] == pytest.approx(mean)
    gained = json.loads(run(clone, "dvc", "metrics", "diff", "--json"))["metrics/evaluate.json"]["test.macro_auc"]["diff"]
    assert gained != 0 and "other" in run(clone, "dvc", "exp", "show", "--csv")
    compared = json.loads(run(clone, "python", "-m", "skinlesion.compare", "--rev", "HEAD", "other", "--draws=100", "--json"))
    assert compared["metrics"]["macro_auc"]["difference"] == pytest.approx(gained, abs=1e-9)
    assert "squeezenet1_1" in run(clone, "dvc", "params", "diff", "HEAD", "other")
    assert first_json(run(clone, "dvc", "plots", "diff", "HEAD", "workspace", "--json"))["data"]
    run(clone, "git", "checkout", "--quiet", "--", ".")
    # Three members fewer: nothing trains, and what they left in the workspace is not in the classifier.
    assert set(stages_run(run(clone, "dvc", "repro"))) <= {"assemble", "report"}
    assert sorted(path.name for path in (clone / "models/classifier").iterdir()) == ["base-0", "ensemble.json"]
    assert (clone / "models/members/small-0").is_dir()
    assert run(clone, "git", "status", "--porcelain", "metrics/evaluate.json", "params.yaml") == ""


@pytest.mark.operations  # it trains or runs much
def test_an_experiment_in_a_temporary_workspace(clone: Path) -> None:
    output = run(clone, "dvc", "exp", "run", "--temp", "--name", "aside", "-S", "threshold_sweep.target=bcc")
    assert stages_run(output) == ["threshold-sweep", "failures", "report"]
    assert run(clone, "git", "status", "--porcelain") == ""
    assert "aside" in run(clone, "dvc", "exp", "list", "--name-only")


@pytest.mark.operations  # it trains or runs much
def test_an_extra_is_run_on_request_and_the_report_and_a_record_take_it_up(clone: Path) -> None:
    assert "Not run" in (clone / "report/report.md").read_text(encoding="utf-8")
    output = run(clone, "dvc", "exp", "run", "-S", "extras.external=[run]", "extras/dvc.yaml")
    assert stages_run(output) == ["extras/dvc.yaml:external-download@run", "extras/dvc.yaml:external@run"]
    assert stages_run(run(clone, "dvc", "repro")) == ["report"]
    external = json.loads((clone / "metrics/extras/external.json").read_text(encoding="utf-8"))
    report = (clone / "report/report.md").read_text(encoding="utf-8")
    assert f"{external['compared']['external']['macro_auc']['value']:.3f}" in report
    assert stages_run(run(clone, "dvc", "repro")) == []
    commit_all(clone, "external test")
    run(clone, "python", "-m", "tools.record_results", "tiny")
    provenance = json.loads((clone / "results/tiny/provenance.json").read_text(encoding="utf-8"))
    assert provenance["recorder"]["git_commit"] == run(clone, "git", "rev-parse", "HEAD").strip()
    assert {"extras/external/predictions.csv", "report/index.html"} <= provenance["files_sha256"].keys()


def test_a_misspelt_param_stops_every_stage(clone: Path) -> None:
    path = clone / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("  weight_decay:", "  wieght_decay:"), encoding="utf-8")
    with pytest.raises(AssertionError, match=r"(?s)train.wieght_decay: unknown key; did you mean 'weight_decay'\?"):
        run(clone, "dvc", "repro")
