"""The benchmark of engines: what it compares, and that the command prints and writes what it found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import inference_engines
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import read_json
from tests.conftest import WriteParams

pytestmark = pytest.mark.operations  # two exports and a benchmark


def test_it_prints_a_line_a_batch_and_writes_every_figure(
    write_params: WriteParams, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params({"export.float32_layers": 1})
    path = tmp_path / "found.json"
    arguments = "--networks squeezenet1_1:32 --lesions 21 --rounds 3 --batch 4 --threads 1 --json"
    inference_engines.main([*arguments.split(), str(path)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("squeezenet1_1:32")]
    assert ["  4 a call" in line for line in lines] == [False, True] and all(" x (" in line for line in lines)
    found = read_json(path)
    assert (found["threads"], found["rounds"], found["float32_layers"]) == (1, 3, 1) and torch.get_num_threads() == 1
    for engines in found["networks"]["squeezenet1_1:32"].values():
        assert list(engines) == ["torch", "float32", "int8"] and engines["torch"]["times_torch"]["median"] == 1
        assert all(each["times_torch"]["low"] <= each["times_torch"]["high"] for each in engines.values())

    network = inference_engines.OnnxNetwork
    monkeypatch.setattr(
        inference_engines, "OnnxNetwork", lambda *given, **how: lambda *inputs: 1.01 * network(*given, **how)(*inputs)
    )
    with pytest.raises(PipelineError, match=r"squeezenet1_1: logits differ by 1\.0e-02 of the largest, above 1e-04"):
        inference_engines.main([*arguments.split(), str(path)])


@pytest.mark.parametrize("network", ["resnet18", ":64", "resnet18:big", "resnet18:0"])
def test_a_network_without_its_pixels_is_refused(network: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        inference_engines.parse(["--networks", network])
    assert "--networks" in capsys.readouterr().err
