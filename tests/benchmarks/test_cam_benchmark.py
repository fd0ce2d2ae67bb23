"""The benchmark of maps: both sides make the same ones, and the command prints and writes what it found."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import explanations, stage_loop
from benchmarks.stage_loop import draw_images, read_images
from benchmarks.training import AS_PLAIN
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import read_json
from skinlesion.config.params import load_params
from skinlesion.data.sample.sample import draw_sample
from tests.conftest import WriteParams


def test_other_maps_are_refused(write_params: WriteParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params({})
    small = {"width": 80, "height": 64}  # drawn in a fiftieth of the time
    monkeypatch.setattr(stage_loop, "draw_sample", lambda folder, **given: draw_sample(folder, **given | small))
    draw_images(tmp_path, size=64, lesions=21)
    params = load_params().train.model_copy(update=AS_PLAIN | {"backbone": "resnet18"})
    task = explanations.prepare_task(read_images(tmp_path), params, "GradCAM", device=torch.device("cpu"), batch_size=8)
    inputs = [image for image, _ in explanations.read_plainly(task)]
    assert explanations.check_same_maps(task, inputs) <= explanations.TOLERANCE
    with pytest.raises(PipelineError, match=r"resnet18, GradCAM: maps differ by .*, above 1e-04"):
        explanations.check_same_maps(replace(task, options=replace(task.options, layer="layer2")), inputs[::-1])


@pytest.mark.operations
def test_methods_printed_rounds_written(write_params: WriteParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params({})
    path = tmp_path / "found.json"
    arguments = "--backbones mobilenet_v3_small --methods GradCAM LayerCAM --size 64 --lesions 21 --rounds 2 --device cpu"
    explanations.main([*arguments.split(), "--json", str(path)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("mobilenet_v3_small")]
    assert ["LayerCAM" in line for line in lines] == [False, True]
    found = read_json(path)["backbones"]["mobilenet_v3_small"]["LayerCAM"]
    assert found["greatest_difference"] <= explanations.TOLERANCE
    for kind in ("end_to_end", "maps_alone"):
        ours, loop = (found["speeds"][side][kind] for side in ("ours", "loop"))
        assert len(ours) == len(loop) == 2
        assert found["ratios"][kind]["median"] == pytest.approx((ours[0] / loop[0] + ours[1] / loop[1]) / 2)


def test_quartiles_are_of_the_ratios_within_a_round() -> None:
    found = explanations.quartiles([2.0, 9.0, 8.0], [2.0, 3.0, 4.0])
    assert found == {"low": 1.5, "median": 2.0, "high": 2.5}
