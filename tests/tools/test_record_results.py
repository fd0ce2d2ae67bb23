"""Recording a run: what a record holds, what is left out of it, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.base.files import file_digest, read_json
from tests.conftest import WriteParams, refuses
from tests.tools.record_cases import IDENTITY, MEMBER, OUTS, PER_CLASS, commit_to_dvc, prediction_table, set_source, write
from tools.record_results import record
from tools.records import METRIC_FILES, file_digests


def add_plot(name: str, columns: dict[str, str]) -> None:
    """Add a plot to dvc.yaml: file and column of each of its y."""
    yaml = YAML(typ="safe", pure=True)
    document = yaml.load(Path("dvc.yaml").read_text(encoding="utf-8"))
    document["plots"].append({name: PER_CLASS | {"y": columns}})
    with Path("dvc.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(document, file)


def test_a_record_holds_the_run_and_says_where_it_came_from(finished_run: Path) -> None:
    folder = record("run-1")
    assert set(file_digests(folder)) == {
        *("failures.csv", "maps.csv", "params.yaml", "plots/evaluate_per_class.svg", "predictions/test.csv"),
        *("predictions/val.csv", "report/index.html", "report/report.md", "metrics/train/base-0.json"),
        *(f"metrics/{name}.json" for name in METRIC_FILES),
    }
    provenance = read_json(folder / "provenance.json")
    assert provenance["plots_left_out"] == ["plots/gradcam/index.png"]  # a picture of real skin
    assert provenance["originals"] == {"width": 200, "height": 150, "images": 3, "of": 3}
    member = {"name": "base-0", "weights": "../weights/resnet18.pth"} | MEMBER
    assert provenance["classifier"] == IDENTITY | {"members": [member]}
    assert provenance["data"]["source"] == "local"
    assert provenance["recorder"] == {"git_commit": None, "dirty": None}
    assert set(provenance["outs_md5"]) == set(OUTS)
    assert file_digests(folder) == provenance["files_sha256"]
    svg = (folder / "plots" / "evaluate_per_class.svg").read_text(encoding="utf-8")
    assert "run-1" in svg
    assert "workspace" not in svg


def add_extra(name: str, **of: str) -> None:
    """A workspace in which an optional stage was run, of images or predictions with these digests."""
    metrics = "metrics/export.json" if name == "export" else f"metrics/extras/{name}.json"
    write(metrics, {"of": of})
    write(f"data/extras/{name}/table.csv", "image_id\n")
    write(f"plots/extras/{name}/values.csv", "dx,f1,low,high,support\nmel,0.5,0.25,0.75,8\n")
    plot = PER_CLASS | {"y": {f"../plots/extras/{name}/values.csv": "dx"}}
    stages = Path("extras/dvc.yaml")
    document = json.loads(stages.read_text(encoding="utf-8")) if stages.is_file() else {"stages": {}, "plots": []}
    outs = [metrics, f"data/extras/{name}", f"plots/extras/{name}"]
    document["stages"][name.replace("_", "-")] = {"wdir": "..", "cmd": "true", "outs": outs}
    document["plots"].append({f"{name}_values": plot})
    write("extras/dvc.yaml", document)


def test_optional_stages_are_recorded_where_they_are_of_this_run(finished_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("robustness", "export"):
        add_extra(name, predictions=file_digest(Path("data/predictions/test.csv"), "sha256"))
    add_extra("external", predictions="0" * 64)
    commit_to_dvc()
    folder = record("run-1")
    names = set(file_digests(folder))
    assert {"metrics/export.json", "metrics/extras/robustness.json", "plots/robustness_values.svg"} <= names
    assert "extras/robustness/table.csv" in names
    assert not [name for name in names if "external" in name]
    provenance = read_json(folder / "provenance.json")
    assert provenance["extras_left_out"] == ["external"] and "left out, since of another run: external" in caplog.text
    assert {"models", "data/extras/robustness"} <= set(provenance["outs_md5"])


def test_what_dvc_lock_keeps_of_a_stage_that_is_no_more_is_not_recorded(finished_run: Path) -> None:
    with Path("dvc.lock").open("a", encoding="utf-8") as file:
        file.write("  train@base-7:\n    cmd: 'true'\n    outs:\n    - path: models/members/base-7\n      md5: abcd\n")
    assert "models/members/base-7" not in read_json(record("run-1") / "provenance.json")["outs_md5"]


def test_pictures_of_synthetic_images_are_recorded(finished_run: Path) -> None:
    set_source(synthetic=True)
    commit_to_dvc()
    folder = record("sample")
    assert (folder / "plots" / "gradcam_index.png").read_bytes() == Path("plots/gradcam/index.png").read_bytes()


def test_recording_is_deterministic_and_replaces_only_when_asked(finished_run: Path) -> None:
    first = file_digests(record("run-1"))
    refuses(r"results/run-1 exists: take another name", record, "run-1")
    assert file_digests(record("run-1", replace=True)) == first


@pytest.mark.parametrize("name", ["", "../run", "a/b", "Run 1", ".hidden"])
def test_a_name_that_is_no_folder_name_is_refused(workspace: Path, name: str) -> None:
    refuses("cannot name a record", record, name)


def test_a_stale_workspace_is_refused(finished_run: Path, write_params: WriteParams) -> None:
    write_params({"train.lr": 0.5})
    refuses(r"not up to date \(all\).*dvc repro", record, "run-1")
    assert not Path("results").exists()


def change_a_metric() -> None:
    content = read_json(Path("metrics/evaluate.json"))
    content["test"]["accuracy"] += 1e-6
    write("metrics/evaluate.json", content)


def change_rows() -> None:
    table, columns = prediction_table(2, "T"), list(PROBABILITY_COLUMNS)
    table.loc[[0, 20], columns] = table.loc[[20, 0], columns].to_numpy()
    table.to_csv("data/predictions/test.csv", index=False)
    commit_to_dvc()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change_a_metric, r"test\.csv gives accuracy .* not of one run"),
        (change_rows, r"test\.csv gives"),
        (lambda: write("metrics/split.json", {"fingerprint": "beef"}), "not trained on the lists"),
        (lambda: Path("metrics/gradcam.json").unlink(), "metrics/gradcam.json not found"),
        (lambda: Path("metrics/train/base-0.json").unlink(), "metrics/train/base-0.json not found"),
    ],
)
def test_what_is_not_of_one_run_is_refused(finished_run: Path, spoil: Callable[[], None], message: str) -> None:
    spoil()
    refuses(message, record, "run-1")
    assert not Path("results").exists()


def test_plots_without_their_files_are_left_out(finished_run: Path) -> None:
    """A plot that has one of its two files is not a whole plot."""
    add_plot("half", {"plots/evaluate/per_class.csv": "dx", "plots/train/loss.tsv": "dx"})
    add_plot("none", {"plots/train/loss.tsv": "dx"})
    folder = record("run-1")
    provenance = read_json(folder / "provenance.json")
    assert sorted(provenance["plots_left_out"]) == ["half", "none", "plots/gradcam/index.png"]
    assert [path.name for path in (folder / "plots").iterdir()] == ["evaluate_per_class.svg"]


def test_a_plot_that_dvc_cannot_draw_is_refused(finished_run: Path) -> None:
    add_plot("none", {"plots/train/loss.tsv": "dx"})
    add_plot("odd", {"plots/evaluate/per_class.csv": "no_such_column"})
    refuses(r"DVC cannot draw odd \(.*no_such_column.*\): run the stage that writes it", record, "run-1")
    assert not Path("results/run-1").exists()
