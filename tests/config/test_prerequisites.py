"""What params ask for and this machine lacks: `download` stops for it before it begins."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skinlesion.base.errors import run_stage
from stages import download
from tests.conftest import ROOT, WriteParams


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        ({"train.weights": "imagnet"}, "train.weights: no file imagnet (a relative path starts at the project's root); did "),
        ({"train.weights": "IMAGENET1K_V2"}, "train.weights: no file IMAGENET1K_V2"),
        ({"train.weights": "https://example.org/resnet18.pth"}, "imagenet, or download the file"),
        ({"ensemble.overrides": {"base": {"weights": "data"}}}, "train.weights: no file data"),
        ({"split.links": "pairs.csv"}, "split.links: pairs.csv not found"),
        ({"train.loggers": ["tensorboard"]}, "the package tensorboard is not installed: pip install -r requirements/loggers.txt"),
        ({"train.compile": True}, "train.compile needs a C++ compiler, and there is none"),
    ],
)
def test_what_a_later_stage_would_lack_stops_before_the_download(
    workspace: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, Any], missing: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # so that it is found nowhere
    monkeypatch.setenv("PATH", str(workspace))
    monkeypatch.setattr(download, "collect", lambda *_: pytest.fail("the download began"))
    (workspace / "data").mkdir()
    for present in ({"split.links": "pairs.csv"}, {}):
        write_params({"download.source": "dataverse"} | present | overrides)
        with pytest.raises(SystemExit) as ended:
            run_stage(download.main)
        assert str(ended.value.code).startswith("error: params.yaml asks for what is not there:\n  ")
        assert missing in str(ended.value.code)
        assert ("split.links" in str(ended.value.code)) == ("split.links" in present | overrides)  # all in one message
        assert not list((workspace / "data").iterdir())


def test_what_is_there_lets_the_download_begin(workspace: Path, write_params: WriteParams) -> None:
    for name in ("weights.pth", "pairs.csv"):
        (workspace / name).touch()
    there = {"train.weights": "weights.pth", "split.links": "pairs.csv", "train.loggers": ["dvclive"]}
    write_params({f"download.sample.{name}": 64 for name in ("lesions", "width", "height")} | there)
    download.main()
    assert (workspace / "data" / "raw" / "provenance.json").is_file()


def test_the_stage_does_without_torch() -> None:
    code = "import sys; from stages import download; download.load_params(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
