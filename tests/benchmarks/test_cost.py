"""The worked example of costs: its arithmetic, and that the page has what the command prints."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import cost
from tests.conftest import ROOT, WriteParams, refuses

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


def test_hours_are_images_over_the_speed(workspace: Path, write_params: WriteParams, capsys: pytest.CaptureFixture[str]) -> None:
    write_params({"split.folds": 4})
    (workspace / "measured.json").write_text(json.dumps(MEASURED), encoding="utf-8")
    cost.main(["measured.json", "--images", "8000", "--epochs", "30", "--trainings", "2"])
    output = capsys.readouterr().out
    # 2 trainings x 30 epochs x 6,000 images at 100 a second are 3,600 s.
    assert "| resnet50 | bf16-mixed | 100.0 (90.0 to 120.0) | 1.0 |" in output
    assert "a machine (cuda), 100 px, 2 trainings of 30 epochs; prepared images 0.2 GB:" in output


def test_another_file_is_refused_by_name(workspace: Path, write_params: WriteParams) -> None:
    write_params()
    (workspace / "other.json").write_text('{"backbones": {"resnet50": {}}}', encoding="utf-8")
    refuses(r"other.json is not a result of `python -m benchmarks.training --json`", cost.main, ["other.json"])


def test_the_page_has_what_the_command_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    cost.main(["benchmarks/results/training-2-cores.json"])
    assert capsys.readouterr().out in PAGE.read_text(encoding="utf-8")
    assert "python -m benchmarks.cost benchmarks/results/training-2-cores.json" in PAGE.read_text(encoding="utf-8")


def test_no_gpu_figure_is_invented() -> None:
    """What the page says of a GPU is what the benchmark logged there, and hours that follow from it."""
    log = (ROOT / "benchmarks/results/training-h100.log").read_text(encoding="utf-8")
    rounds = [(float(plain), float(ours)) for plain, ours in re.findall(r"plain ([\d.]+), auto ([\d.]+)", log)]
    plain, ours = zip(*rounds, strict=True)
    hours = [[cost.Plan(images, 0.8, cost.EPOCHS, cost.TRAININGS).hours(speed) for speed in ours] for images in cost.IMAGES]
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"{ours[0]:.0f} and {ours[1]:.0f} images a second" in page
    assert f"in float32 trained {plain[0]:.0f} and {plain[1]:.0f}." in page
    assert f"{ours[0] / plain[0]:.1f} and {ours[1] / plain[1]:.1f} times the plain loop" in page
    assert f"{min(hours[0]):.1f} to {max(hours[0]):.1f} hours for HAM10000 and {min(hours[1]):.1f} to {max(hours[1]):.1f}" in page
