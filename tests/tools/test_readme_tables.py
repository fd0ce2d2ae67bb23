"""README's tables and the summary: every figure of a record at its place."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skinlesion.base.files import read_json
from skinlesion.report.formats import describe_rule
from tests.conftest import refuses
from tests.tools import record_cases
from tools import readme_evidence, readme_tables, summary
from tools.record_results import record
from tools.records import HEADLINE, Record, list_records, read_record

GAIN = {"inflation": 0.05, "low": -0.01, "high": 0.1}
LEAK = {
    "recipe": {"backbone": "resnet18", "epochs": 5, "seeds": [0, 1]},
    "siblings": {"image_level": {"share": 0.375}},
    "all": {"metrics": {"accuracy": GAIN, "macro_auc": GAIN, "mel_sensitivity": GAIN | {"inflation": -0.02}}},
    "with_siblings": {"metrics": {"accuracy": GAIN | {"inflation": 0.125}}},
    "without_siblings": None,
}


def test_readme_tables_are_generated_from_the_records(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("run-1")
    record_cases.write("README.md", f"# Title\n\n{readme_tables.BEGIN}\nstale\n{readme_tables.END}\n\nbelow\n")
    monkeypatch.setattr(sys, "argv", ["readme_tables", "--check"])
    refuses(r"README.md does not say what results/ says: run `python -m tools.readme_tables`", readme_tables.main)
    assert "stale" in Path("README.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["readme_tables"])
    readme_tables.main()
    text = Path("README.md").read_text(encoding="utf-8")
    accuracy = record_cases.figures(record_cases.prediction_table(2, "T"))["accuracy"]
    assert f"| {accuracy:.3f} [{accuracy - 0.01:.3f}, {accuracy + 0.01:.3f}] |" in text
    report = "[page](results/run-1/report/index.html), [Markdown](results/run-1/report/report.md)"
    kind = "real, source `local`, 200 x 150 px, network sees 64 x 64 (squash)"
    assert f"| [run-1](results/run-1/), report: {report} | {kind} |" in text
    assert "| resnet18 from `resnet18.pth` (sha256 abababab) | 56 / 28 |" in text
    assert "| majority class (nv) |  |  | 0.125 | 0.143 | - | 0.500 | - | - |" in text
    point = "| mel: recall_0.90 | 0.0625 | sensitivity ≥ 0.90 | 0.925 | 0.875 [0.800, 0.950] | 0.750 [0.700, 0.800] |"
    assert f"{point} 0.500 | 0.250 |" in text
    assert "| mel: youden | 0.5000 | largest Youden index | 0.500 | - | 0.750 | 0.500 | 0.250 |" in text
    assert "| GradCAM, `layer4` | 56 | 1.500 [1.400, 1.600] | 1.250 |" in text
    assert text.startswith("# Title\n\n")
    assert text.endswith(f"{readme_tables.END}\n\nbelow\n")
    assert "Headline metrics, 95% intervals." in text
    assert "Operating points: thresholds chosen on validation, then audited on test, 90% intervals." in text
    assert "the lesion's share of the area (1 is chance), 97.5% intervals." in text
    monkeypatch.setattr(sys, "argv", ["readme_tables", "--check"])
    readme_tables.main()


def test_what_was_asked_of_a_point_is_said_by_its_rule() -> None:
    points = [
        ({"rule": "specificity", "constraint": 0.9}, "specificity ≥ 0.90"),
        ({"rule": "cost", "constraint": 10.0}, "least cost, a miss costs 10 false alarms"),
        ({"rule": "guaranteed", "constraint": 0.85}, "sensitivity of lesions ≥ 0.85, guaranteed"),
        ({"rule": "youden", "constraint": None}, "largest Youden index"),
        ({"constraint": 0.95}, "sensitivity ≥ 0.95"),  # of a record from before there were rules
    ]
    assert [describe_rule(point) for point, _ in points] == [rule for _, rule in points]


def test_an_ensemble_has_its_members_provenance_metrics_and_spread(finished_run: Path) -> None:
    record_cases.write(
        "models/classifier/ensemble.json",
        record_cases.ENSEMBLE | {"members": [{"name": f"{name}-0"} for name in ("base", "b2", "meta")]},
    )
    other = {"backbone": "efficientnet_b2", "seed": 7, "params": {"weights": "none"}}
    others = {"b2-0": other, "meta-0": {"needs_metadata": True}}
    for name, changed in others.items():
        record_cases.write(f"models/classifier/{name}/config.json", record_cases.MEMBER_CONFIG | changed)
        record_cases.write(f"metrics/train/{name}.json", {"member": name})
    content = read_json(Path("metrics/evaluate.json"))
    spread = {"accuracy": {"mean": 0.8215, "sd": 0.0123, "min": 0.8, "max": 0.83}, "macro_auc": {"mean": None, "sd": None}}
    content |= {"test_time": "flips", "members": {"base-0": {}, **others}, "spread": {"test": spread}}
    by_lesion = dict.fromkeys(HEADLINE, 0.5)
    content["test"]["per_lesion"] = by_lesion | {"intervals": {name: {"low": 0.4, "high": 0.6} for name in by_lesion}}
    record_cases.write("metrics/evaluate.json", content)
    layers = {"base-0": {"layer": "layer4"}, "b2-0": {"layer": "features"}, "meta-0": {"layer": "layer4"}}
    record_cases.write("metrics/gradcam.json", record_cases.GRADCAM | {"layers": layers})
    record_cases.commit_to_dvc()
    folder = record("three")
    provenance = read_json(folder / "provenance.json")
    members = [(member["name"], member["backbone"], member["seed"]) for member in provenance["classifier"]["members"]]
    assert members == [("base-0", "resnet18", 0), ("b2-0", "efficientnet_b2", 7), ("meta-0", "resnet18", 0)]
    trained = sorted(path.name for path in (folder / "metrics" / "train").iterdir())
    assert trained == ["b2-0.json", "base-0.json", "meta-0.json"]
    block = readme_tables.results_block([read_record(folder)])
    networks = "resnet18 from `resnet18.pth` (sha256 abababab) and efficientnet_b2 from random weights and resnet18 with metadata"
    assert f"| {networks} from `resnet18.pth` (sha256 abababab); mean of 3 members; test-time views: flips |" in block
    assert "| each of the 3 members alone (mean ± standard deviation) |  |  | 0.822 ± 0.012 |  |  | - |  |  |" in block
    lesions = " | ".join(["0.500 [0.400, 0.600]"] * len(by_lesion))
    assert f"| one prediction a lesion, the mean of its images |  |  | {lesions} |" in block
    assert "| GradCAM, `layer4`, `features` |" in block


def test_synthetic_records_are_marked_and_come_last(finished_run: Path) -> None:
    record("z-real")
    record_cases.set_source(synthetic=True)
    record_cases.commit_to_dvc()
    record("a-sample")
    block = readme_tables.results_block([read_record(folder) for folder in list_records()])
    assert block.index("[z-real]") < block.index("[a-sample]")
    assert "**synthetic**, source `sample`" in block
    assert "say nothing about real skin" in block


def test_levels_of_runs_that_differ_and_of_a_run_without_masks(finished_run: Path) -> None:
    first = read_record(record("a"))
    wider = {**first.metrics["evaluate"], "bootstrap": {**first.metrics["evaluate"]["bootstrap"], "confidence": 0.99}}
    no_masks = {**first.metrics["gradcam"], "images_with_mask": 0, "energy_ratio": None, "bootstrap": None}
    other = replace(first, name="b", metrics=first.metrics | {"evaluate": wider, "gradcam": no_masks})
    block = readme_tables.results_block([first, other])
    assert "Headline metrics, 95% (a) or 99% (b) intervals." in block
    assert "(1 is chance), 97.5% intervals." in block
    assert "(1 is chance)." in readme_tables.results_block([replace(first, metrics=first.metrics | {"gradcam": no_masks})])


def evidence_of(**metrics: Any) -> dict[str, list[list[str]]]:
    """The rows of the tables of a run with these metrics, by the first word of their captions."""
    record = Record("mine", {}, {"gradcam": {}} | metrics, has_report=False)
    return {each.caption.split()[0]: [list(row) for row in each.rows] for each in readme_evidence.evidence_tables([record])}


def test_what_stands_behind_a_headline_is_a_row() -> None:
    (row,) = evidence_of(subgroups=record_cases.SUBGROUPS, selective=record_cases.SELECTIVE)["What"]
    run, sizes, accuracy, macro_auc, worst, worst_auc, *answered = row
    assert (run, sizes) == ("[mine](results/mine/)", "1,200 / 800")
    assert (accuracy, macro_auc) == ("0.750 [0.700, 0.800]", "0.875 [0.850, 0.900]")
    assert (worst, worst_auc) == ("0.250 [0.100, 0.400] (age below 30, 12 melanoma lesions)", "-")
    assert answered == ["the surest 60% of validation", "0.700 [0.690, 0.710]", "0.900 [0.890, 0.910]", "0.100 [0.090, 0.110]"]
    nothing_proven = record_cases.SUBGROUPS | {"histology_only": None, "worst": dict.fromkeys(record_cases.SUBGROUPS["worst"])}
    assert evidence_of(subgroups=nothing_proven)["What"] == evidence_of()["What"] == [[run, *["-"] * 9]]


def test_a_measured_leak_is_a_row() -> None:
    ((_, *cells),) = evidence_of(**{"extras/leak": LEAK})["A"]
    assert [cell.replace("\xa0", " ") for cell in cells] == [
        *("resnet18, 5 epochs", "2", "38%", "+0.050 [-0.010, +0.100]", "+0.050 [-0.010, +0.100]", "-0.020 [-0.010, +0.100]"),
        *("+0.125 [-0.010, +0.100]", "-"),
    ]


def test_level_and_data_are_said(finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"test": record_cases.prediction_table(2, "T")}
    content = record_cases.evaluate_metrics(tables, synthetic=True)
    content["bootstrap"]["confidence"] = 0.9
    record_cases.write("metrics/evaluate.json", content)
    summary.main()
    text = capsys.readouterr().out
    assert "SYNTHETIC sample, which says nothing about real skin: 56 images of 28 lesions; 90 % intervals over lesions" in text
    accuracy = record_cases.figures(tables["test"])["accuracy"]
    assert f"{accuracy:.3f} [{accuracy - 0.01:.3f}, {accuracy + 0.01:.3f}]   majority class 0.125" in text
    assert "models/classifier/   (member base-0; test-time views: none)" in text
    record_cases.write("metrics/evaluate.json", content | {"members": {"base-0": {}, "base-1": {}}, "test_time": "square"})
    summary.main()
    assert "(mean of 2 members: base-0, base-1; test-time views: square)" in capsys.readouterr().out


def test_readme_without_records_or_markers(workspace: Path) -> None:
    record_cases.write("README.md", f"{readme_tables.BEGIN}\n{readme_tables.END}\n")
    assert "No run is recorded yet" in readme_tables.updated_readme()[1]
    record_cases.write("README.md", "no markers")
    refuses("must have one line '<!-- results:begin -->'", readme_tables.updated_readme)
