"""Whether what an extra found is of this workspace."""

from pathlib import Path

from skinlesion.audits.findings import EXTRAS, outdated, read_extra, write_extra
from skinlesion.evaluation.results.predictions import PREDICTIONS
from tests.conftest import WriteParams, refuses


def test_an_extra_is_outdated_once_what_it_is_of_has_changed(workspace: Path, write_params: WriteParams) -> None:
    PREDICTIONS.mkdir(parents=True)
    (PREDICTIONS / "test.csv").write_text("one", encoding="utf-8")
    write_params()
    write_extra("robustness", {"value": 1.0}, of=["predictions", "recipe"])
    read = read_extra("robustness")
    assert read is not None and read["value"] == 1.0 and outdated(read) == []
    (PREDICTIONS / "test.csv").write_text("another", encoding="utf-8")
    assert outdated(read) == ["predictions"]
    write_params({"leak.overrides": {"epochs": 3}})
    assert outdated(read) == ["predictions", "recipe"]


def test_an_extra_that_was_not_run_is_none_and_one_that_says_nothing_is_refused(workspace: Path) -> None:
    assert read_extra("leak") is None
    EXTRAS.mkdir(parents=True)
    for content in ("{}", '{"of": {}}', '{"of": {"weather": "1"}}'):
        (EXTRAS / "leak.json").write_text(content, encoding="utf-8")
        refuses("lacks the digests of what was measured", read_extra, "leak")
