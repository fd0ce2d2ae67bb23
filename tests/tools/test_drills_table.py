"""The drills' table: what it sums up, what it refuses, and that README has the recorded one."""

from pathlib import Path

import pytest

from skinlesion.base.files import read_json
from tests.conftest import ROOT, refuses
from tests.drills import table
from tests.drills.ledger import COMMIT, Corrupt, Ledger

SOME_README = f"# Title\n\n{table.MARKERS[0]}\nstale\n{table.MARKERS[1]}\n\nbelow\n"


@pytest.fixture
def rounds(workspace: Path) -> Path:
    """Four rounds that survived, as drills write them, and a README to be written."""
    path = workspace / "rounds.jsonl"
    ledger = Ledger(path)
    for fault in ("SIGKILL in train", "SIGKILL in split", "Ctrl-C in split"):
        with ledger.round("interrupted", fault) as facts:
            facts |= {"seed": 3, "mended": fault == "SIGKILL in split"}
    with ledger.round("cache", "whole cache removed"):
        pass
    (workspace / "README.md").write_text(SOME_README, encoding="utf-8")
    (workspace / "results").mkdir()
    return path


def test_rounds_are_summed_up_by_fault(rounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.main([str(rounds)])
    assert capsys.readouterr().out.splitlines() == [
        "| drill | fault | in | rounds | survived | failed | corrupt | mended | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| cache | whole cache removed |  | 1 | 1 | 0 | 0 | 0 | 0 |",
        "| interrupted | Ctrl-C | split | 1 | 1 | 0 | 0 | 0 | 0 |",
        "| interrupted | SIGKILL | split, train | 2 | 2 | 0 | 0 | 1 | 0 |",
        "| **all** |  |  | **4** | **4** | **0** | **0** | **1** | **0** |",
        "",
        "moments from seed 3",
    ]
    assert Path("README.md").read_text(encoding="utf-8") == SOME_README


def test_a_record_is_written_with_its_readme(rounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "DRILLS", frozenset({"cache", "interrupted", "million rows"}))
    with Ledger(rounds).round("million rows", "split of 1,000 rows") as measured:
        measured |= {"cpu_seconds": 4.04, "peak_mib": 1099.6, "examples": 1200}
    table.main([str(rounds), "--record"])
    record = read_json(table.RECORD)
    assert record["git_commits"] == {str(COMMIT): ["cache", "interrupted", "million rows"]}
    assert record["seed"] == "3" and record["total"]["rounds"] == 5 and record["versions"].keys() >= {"dvc", "torch", "python"}
    assert [row["places"] for row in record["rows"]] == [[], ["split"], ["split", "train"], []]
    text = Path("README.md").read_text(encoding="utf-8")
    assert "5 rounds, 5 survived, 0 corrupt" in text and "stale" not in text and text.endswith("\n\nbelow\n")
    assert "Split of 1,000 rows: 4 s of CPU, 1,100 MiB of memory at most." in text and "Fuzz tried 1,200 examples" in text
    assert table.updated_readme(record) == text


def test_rounds_of_several_commits_are_told_apart() -> None:
    rounds = [{"drill": drill, "commit": at} for drill, at in (("clock", "a" * 40), ("cache", "b" * 40), ("disk", "a" * 40))]
    assert table.name_commits(table.commits_of(rounds)) == "commit aaaaaaa: clock, disk; commit bbbbbbb: cache"
    assert table.name_commits(table.commits_of(rounds[:1])) == "commit aaaaaaa"


def test_a_drill_that_was_skipped_is_missed(rounds: Path) -> None:
    refuses(r"no round of clock, disk full, fuzz, .*together: why, `make drills` said", table.main, [str(rounds), "--record"])
    assert not table.RECORD.exists()


@pytest.mark.parametrize(("error", "outcome"), [(Corrupt, "corrupt"), (ValueError, "failed")])
def test_a_lost_round_is_an_error(rounds: Path, error: type[Exception], outcome: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(error), Ledger(rounds).round("cache", "cached file cut"):
        raise error("wrong")
    message = rf"1 of 5 rounds did not survive: cache: cached file cut \({outcome}\)\. Nothing is recorded"
    refuses(message, lambda: table.main([str(rounds), "--record"]))
    assert "| cache | cached file cut |  | 1 | 0 |" in capsys.readouterr().out
    assert not table.RECORD.exists() and Path("README.md").read_text(encoding="utf-8") == SOME_README


@pytest.mark.parametrize("line", ["{", '{"drill": "a"}', '{"drill": "a", "fault": "b", "outcome": "fine", "seconds": 1}', "[]"])
def test_what_is_no_round_is_named(rounds: Path, line: str) -> None:
    with rounds.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    refuses(r"rounds.jsonl, line 5, is no round", lambda: table.main([str(rounds)]))


def test_no_rounds_are_no_success(workspace: Path) -> None:
    refuses(r"rounds.jsonl not found: `make drills` writes it", table.main, ["rounds.jsonl"])
    Path("rounds.jsonl").touch()
    refuses(r"rounds.jsonl holds no round", table.main, ["rounds.jsonl"])


@pytest.mark.structure
def test_readme_has_the_recorded_table_in_which_all_survived() -> None:
    record = read_json(ROOT / table.RECORD)
    assert table.updated_readme(record, ROOT / "README.md") == (ROOT / "README.md").read_text(encoding="utf-8")
    assert record["total"]["survived"] == record["total"]["rounds"] >= 50 and record["total"]["corrupt"] == 0
    assert record["total"] == table.total(record["rows"])
