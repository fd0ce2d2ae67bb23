"""JSON that one stage writes and another reads: it comes back, and what cannot be is refused by file, key and stage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from skinlesion.artifacts.raw import read_provenance
from skinlesion.artifacts.splits import SplitFacts, read_split_facts
from skinlesion.base.errors import PipelineError
from skinlesion.config.contents import Calibration, Conformal, OperatingPoints
from skinlesion.evaluation.results import decisions
from skinlesion.model.classifier import read_member_names
from tests.conftest import refuses
from tests.serving import predictor_cases
from tests.serving.predictor_cases import FITTED


class File(NamedTuple):
    """Something right that a file can hold, as it comes back when it is read, and who reads and writes it."""

    content: dict[str, Any]
    read: Callable[[Path], Any]
    comes_back: Any
    stage: str
    write: Callable[[dict[str, Any], Path], None] | None = None


UNCHANGED: dict[str, Any] = FITTED | {"scale": [1.0] * 7, "temperature": 1.0, "test_time": "none"}
PROVENANCE = {"source": "sample", "synthetic": True, "licence": "CC0", "counts": {}, "files": []}
FACTS = {"fingerprint": "f00d", "source": "sample", "synthetic": True}
VECTOR = UNCHANGED | {"method": "vector", "bias": [0, 0.1, -0.1, 0, 0, 0, 0], "test_time": "flips"}
SETS = predictor_cases.SETS | {"calibration": UNCHANGED}
POINTS = predictor_cases.POINTS | {"points": {"a": {"threshold": 0.5}}}
MEMBERS = {"members": [{"name": "base-0"}, {"name": "wide_2-11"}]}

FILES = {
    "provenance.json": File(PROVENANCE, lambda file: read_provenance(file.parent), PROVENANCE, "download"),
    "facts.json": File(FACTS, lambda file: read_split_facts(file.parent), SplitFacts("f00d", "sample", True), "split"),
    "ensemble.json": File(MEMBERS, lambda file: read_member_names(file.parent), ["base-0", "wide_2-11"], "assemble"),
    "calibration.json": File(VECTOR, decisions.read_calibration, Calibration(**VECTOR), "evaluate", decisions.write_calibration),
    "conformal.json": File(SETS, decisions.read_conformal, Conformal(**SETS), "selective", decisions.write_conformal),
    "points.json": File(
        *(POINTS, decisions.read_operating_points, OperatingPoints(**POINTS), "threshold-sweep"), decisions.write_operating_points
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_right_comes_back(workspace: Path, name: str) -> None:
    file, path = FILES[name], workspace / name
    if file.write is None:
        path.write_text(json.dumps(file.content))
    else:
        file.write(file.content, path)
    assert file.read(path) == file.comes_back
    assert json.loads(path.read_text()) == file.content
    path.unlink()
    refuses(f"{name} not found: run the stage that writes it first", file.read, path)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(("provenance.json", key) for key in ("source", "synthetic", "licence", "counts")),
        *(("facts.json", key) for key in FACTS),
        *(("calibration.json", key) for key in ("method", "scale", "bias", "test_time")),
        *(("conformal.json", key) for key in SETS),
        *(("points.json", key) for key in POINTS),
        ("ensemble.json", "members"),
    ],
)
def test_a_key_that_is_missing_is_named(workspace: Path, name: str, key: str) -> None:
    file, path = FILES[name], workspace / name
    path.write_text(json.dumps({other: value for other, value in file.content.items() if other != key}))
    refuses(f"{name}: {key}: missing: run `{file.stage}` again", file.read, path)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("provenance.json", {"synthetic": "no"}, "synthetic = 'no': input should be a valid boolean"),
        ("provenance.json", {"counts": None}, "counts = None: input should be a valid dictionary"),
        ("facts.json", {"fingerprint": 5}, "fingerprint = 5: input should be a valid string"),
        ("facts.json", {"more": 1}, "more = 1: unexpected keyword argument"),
        ("ensemble.json", {"members": []}, "members = []: list should have at least 1 item"),
        ("ensemble.json", {"members": ["base-0"]}, "members.0 = 'base-0': input should be"),
        ("ensemble.json", {"members": [{"name": "base-0"}] * 2}, "names a value twice"),
        ("calibration.json", {"method": "isotonic"}, "method = 'isotonic': input should be 'temperature' or 'vector'"),
        ("calibration.json", {"scale": 2.0}, "scale = 2.0: input should be a valid list"),
        ("calibration.json", {"scale": [1.0] * 6}, "list should have at least 7 items after validation, not 6"),
        ("calibration.json", {"scale": [True] * 7}, "scale.4 = True: input should be a valid number; and 2 more"),
        ("calibration.json", {"scale": [10**400] * 7}, "scale.0 = 1000"),
        ("calibration.json", {"bias": ["hot"] * 7}, "bias.0 = 'hot': input should be a valid number"),
        ("calibration.json", {"bias": [float("inf")] * 7}, "bias.0 = inf: input should be a finite number"),
        ("calibration.json", UNCHANGED | {"scale": [-1.0] * 7}, "scale of a temperature must be above 0, not -1.0"),
        ("calibration.json", {"test_time": "flip"}, "'flips', 'square' or 'multi_crop'; did you mean 'flips'?"),
        ("conformal.json", {"method": "split"}, "method = 'split': input should be 'aps' or 'raps'"),
        ("conformal.json", {"penalty": -1.0}, "penalty = -1.0: input should be greater than or equal to 0"),
        ("conformal.json", {"free": "two"}, "free = 'two': input should be a valid integer"),
        ("conformal.json", {"calibration": 5}, "calibration = 5: input should be"),
        ("conformal.json", {"calibration": VECTOR | {"scale": [1.0]}}, "calibration.scale = [1.0]: list should have at least 7"),
        ("conformal.json", {"levels": {}}, "levels: dictionary should have at least 1 item"),
        ("conformal.json", {"levels": {"0.9": "high"}}, "levels.0.9 = 'high': input should be a valid number"),
        ("points.json", {"target": ["mel"]}, "target = ['mel']: input should be a valid string"),
        ("points.json", {"rule": ""}, "rule = '': string should have at least 1 character"),
        ("points.json", {"classes": 5}, "classes = 5: input should be a valid list"),
        ("points.json", {"classes": {"mel": 1}}, "classes: input should be a valid list"),
        ("points.json", {"classes": ["mel", "mel"]}, "classes = ['mel', 'mel']: names a value twice"),
        ("points.json", {"classes": ["mel", "bc"]}, "classes.1 = 'bc': unknown diagnosis; did you mean 'bcc'?"),
        ("points.json", {"points": {}}, "points: dictionary should have at least 1 item"),
        ("points.json", {"points": {"a": {"threshold": True}}}, "points.a.threshold = True: input should be a valid number"),
        ("points.json", {"points": {"a": {"threshold": None}}}, "points.a.threshold = None: input should be a valid number"),
        ("points.json", {"points": {"a": {"threshold": 1.5}}}, "points.a.threshold = 1.5: input should be less than"),
    ],
)
def test_impossible_values_are_neither_read_nor_written(workspace: Path, name: str, change: dict[str, Any], problem: str) -> None:
    file, path = FILES[name], workspace / name
    path.write_text(json.dumps(file.content | change).replace("Infinity", "1e999"))  # the first is not JSON
    attempts: list[Callable[[], object]] = [lambda: file.read(path)]
    if file.write is not None:
        attempts.append(lambda: file.write and file.write(file.content | change, path))
    for attempt in attempts:
        with pytest.raises(PipelineError) as caught:
            attempt()
        message = str(caught.value)
        assert problem in message and f"{name}: " in message and message.endswith(f": run `{file.stage}` again")
