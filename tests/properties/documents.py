"""JSON that one stage writes and another reads, with something wrong in it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from skinlesion.artifacts.raw import RAW
from skinlesion.evaluation.results.decisions import CALIBRATION, OPERATING_POINTS
from stages import failures, selective, split
from tests.conftest import WriteParams
from tests.properties.mutations import changed_bytes, changed_documents
from tests.properties.outcome import Property, message_of, refused_by_name
from tests.properties.tables import metadata_rows, prepare_predictions, prepare_split

TEXTS = (
    *("", "null", "[]", "1", '"text"', "{", "{}", "[" * 100_000, '{"a": ' * 50_000, "NaN", '{"points": NaN}', '{"a": 1, "a": 2}'),
    *('{"threshold": ' + "9" * 5000 + "}", '{"a": 1e999}', '{"a": "\\ud800"}', "{'a': 1}", '{"a": 1} {"b": 2}', "// comment\n{}"),
)


@dataclass(frozen=True)
class Written:
    """The bytes of a file and, where one place of its content was changed, which one and how."""

    content: bytes
    place: tuple[Any, ...] = ()
    how: str = "bytes"


def as_bytes(changed: tuple[tuple[Any, ...], str, dict[str, Any]]) -> Written:
    place, how, document = changed
    return Written(json.dumps(document).encode("utf-8", "surrogatepass"), place, how)


def written(content: dict[str, Any]) -> st.SearchStrategy[Written]:
    """A file whose content is changed in one place, whose bytes are damaged, or that is something else."""
    text = json.dumps(content, indent=2).encode()
    others = st.sampled_from(TEXTS).map(lambda other: Written(other.encode()))
    return changed_documents(content).map(as_bytes) | changed_bytes(text).map(Written) | others


def judge(path: Path, main: Callable[[], None], names: tuple[str, ...], example: Written) -> None:
    """The stage works, or names the file or what in it is wrong; a key that it needs is missed."""
    path.write_bytes(example.content)
    refused_by_name(message_of(main), path.name, *names, must=b"NaN" in example.content or b"Infinity" in example.content)


FITTED = {"method": "vector", "scale": [1.0] * 7, "bias": [0.0] * 7, "fitted_on": "val"}
POINTS: dict[str, Any] = {"target": "mel", "classes": ["mel"], "score": "sum of calibrated probabilities"}
POINTS |= {"rule": "flag when score >= threshold", "chosen_on": "val"}
POINTS |= {"points": {"youden": {"rule": "youden", "constraint": None, "threshold": 0.25, "val": {}}}}
PROVENANCE = {"source": "sample", "synthetic": True, "licence": "CC0", "counts": {"images": 88}}


def prepare_split_with_metadata(write_params: WriteParams) -> None:
    prepare_split(write_params)
    metadata_rows().to_csv(RAW / "metadata.csv", index=False)


PROPERTIES = tuple(
    Property(name, prepare, written(content), partial(judge, path, main, names), cost=cost)
    for name, prepare, path, content, main, names, cost in (
        ("calibration.json in selective", prepare_predictions, CALIBRATION, FITTED, selective.main, ("probabilities", "NaN"), 15),
        ("operating_points.json in failures", prepare_predictions, OPERATING_POINTS, POINTS, failures.main, (), 5),
        ("provenance.json in split", prepare_split_with_metadata, RAW / "provenance.json", PROVENANCE, split.main, (), 10),
    )
)
