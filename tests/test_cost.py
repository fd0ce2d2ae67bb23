"""The worked example of costs: its arithmetic, and that the page has what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cost
from skinlesion.errors import PipelineError
from tests.conftest import ROOT, WriteParams

PAGE = ROOT / "docs/gpu-runner.md"
MEASURED = {
    "machine": "a machine",
    "device": "cuda",
    "size": 100,
    "backbones": {
        "resnet50": {
            "fastest": "auto",
            "ours": {
                "auto": {"precision": "bf16-mixed", "compiled": False, "end_to_end": [90.0, 100.0, 120.0]},
                "32": {"precision": "32-true", "compiled": True, "end_to_end": [1.0, 1.0, 1.0]},
            },
        }
    },
}


def test_hours_are_images_seen_over_the_median_speed(
    workspace: Path, write_params: WriteParams, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params({"split.folds": 4})
    (workspace / "measured.json").write_text(json.dumps(MEASURED), encoding="utf-8")
    cost.main(["measured.json", "--images", "8000", "--epochs", "30", "--trainings", "2"])
    said = capsys.readouterr().out
    # 2 trainings x 30 epochs x 6,000 images at 100 a second are 3,600 s.
    assert "| resnet50 | bf16-mixed | 100.0 (90.0 to 120.0) | 1.0 |" in said
    assert "a machine (cuda), 100 px, 2 trainings of 30 epochs; prepared images 0.2 GB:" in said


def test_another_file_is_refused_by_name(workspace: Path, write_params: WriteParams) -> None:
    write_params()
    (workspace / "other.json").write_text('{"backbones": {"resnet50": {}}}', encoding="utf-8")
    with pytest.raises(PipelineError, match=r"other.json is no result of `python -m benchmarks.training --json`"):
        cost.main(["other.json"])


def test_the_page_has_what_the_command_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    cost.main(["benchmarks/results/training-2-cores.json"])
    assert capsys.readouterr().out in PAGE.read_text(encoding="utf-8")
    assert "python -m benchmarks.cost benchmarks/results/training-2-cores.json" in PAGE.read_text(encoding="utf-8")


def test_no_gpu_figure_is_invented() -> None:
    """Until a GPU has been measured the page has the figures of the file above and a command for the rest."""
    measured = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "benchmarks/results").glob("training-*.json")]
    if all(result["device"] == "cpu" for result in measured):
        assert "no GPU has been measured" in " ".join(PAGE.read_text(encoding="utf-8").split())
