"""Sum up what the drills wrote down: `python -m tests.drills.table FILE [--record]` (`make drills` ends with it).

Reads   FILE, a line a round, as tests/drills/ledger.py writes it
Writes  a Markdown table to standard output; with --record, where every round survived, results/drills.json and README.md's
        table between `<!-- drills:begin -->` and `<!-- drills:end -->`

A fault is called as "SIGKILL in train": the table sums over what stands behind " in ". It ends with 1 where a round
did not survive.
"""

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from skinlesion.base.devices import cpu_model
from skinlesion.base.errors import PipelineError, name_some, run_stage
from skinlesion.base.files import atomic_file, read_json, write_json
from skinlesion.base.versions import library_versions
from tests.drills.ledger import Outcome
from tools.readme_tables import README, replace_block, table

RECORD = Path("results/drills.json")
MARKERS = ("<!-- drills:begin -->", "<!-- drills:end -->")
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
FIGURES = ("rounds", *OUTCOMES, "mended", "seconds")
# What a record must have: a drill whose rounds this machine skipped (a mount, a clock that can be set) would be missed by nobody.
DRILLS = frozenset(("cache", "clock", "disk full", "fuzz", "interrupted", "million rows", "read-only", "servers", "together"))
MOST_NAMED = 4  # places; of more, their number is said

logger = logging.getLogger(__name__)


def read_rounds(path: Path) -> list[dict[str, Any]]:
    """The rounds, in the order in which they ended.

    Raises
    ------
    PipelineError
        The file is missing, empty, or a line is no round.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise PipelineError(f"{path} not found: `make drills` writes it") from None
    rounds = []
    for number, line in enumerate(lines, start=1):
        try:
            one = json.loads(line)
            outcome, seconds = one["outcome"], float(one["seconds"])
            if outcome not in OUTCOMES or not one["drill"] or not one["fault"] or seconds < 0:
                raise ValueError(f"outcome {outcome!r}, {seconds} s")
        except (ValueError, KeyError, TypeError) as error:
            raise PipelineError(f"{path}, line {number}, is no round ({error!r}): run the drills again") from None
        rounds.append(one)
    if not rounds:
        raise PipelineError(f"{path} holds no round: run the drills again")
    return rounds


def sum_up(rounds: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a drill and fault, by name: `places` where it struck, `rounds`, how many ended in which outcome, `seconds` in all,
    and in how many `tools.mend` was needed before `dvc repro` went on (`mended`).
    """
    places: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    struck: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for one in rounds:
        fault, _, place = one["fault"].partition(" in ")
        struck[one["drill"], fault].append(one)
        places[one["drill"], fault] |= {place} - {""}
    return [
        {
            "drill": drill,
            "fault": fault,
            "places": sorted(places[drill, fault]),
            "rounds": len(found),
            **{outcome: sum(one["outcome"] == outcome for one in found) for outcome in OUTCOMES},
            "mended": sum(bool(one.get("mended")) for one in found),
            "seconds": round(sum(one["seconds"] for one in found)),
        }
        for (drill, fault), found in sorted(struck.items())
    ]


def total(rows: list[dict[str, Any]]) -> dict[str, int]:
    """The sums of all rows."""
    return {name: sum(row[name] for row in rows) for name in FIGURES}


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table, the totals last."""
    cells = [[row["drill"], row["fault"], name_places(row["places"]), *(f"{row[name]:,}" for name in FIGURES)] for row in rows]
    totals = [f"**{value:,}**" for value in total(rows).values()]
    return table(["drill", "fault", "in", *FIGURES], [*cells, ["**all**", "", "", *totals]])


def name_places(places: list[str]) -> str:
    """Where a fault struck."""
    return ", ".join(places) if len(places) <= MOST_NAMED else f"{len(places)} places"


def commits_of(rounds: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Which drills were done with which commit; several only where some were repeated after a change."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for one in rounds:
        found[str(one.get("commit"))].add(one["drill"])
    return {commit: sorted(drills) for commit, drills in found.items()}


def name_commits(commits: dict[str, list[str]]) -> str:
    """The commits, and where there are several, what was done with which."""
    if len(commits) == 1:
        return f"commit {next(iter(commits))[:7]}"
    return "; ".join(f"commit {commit[:7]}: {', '.join(drills)}" for commit, drills in commits.items())


def name_seeds(rounds: Iterable[dict[str, Any]]) -> str:
    """From which `DRILLS_SEED` moments were drawn; several only where the file is of several runs."""
    return ", ".join(map(str, sorted({one["seed"] for one in rounds if "seed" in one}))) or "none"


def describe(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What results/drills.json says: when, of which code, where and with what, from which seed; the rows and their totals."""
    rows = sum_up(rounds)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "git_commits": commits_of(rounds),
        "processor": cpu_model(),
        "versions": {"dvc": version("dvc"), **library_versions()},
        "seed": name_seeds(rounds),
        "rows": rows,
        "examples": sum(one.get("examples", 0) for one in rounds),
        "measured": [
            {"what": one["fault"], "cpu_seconds": round(one["cpu_seconds"], 1), "peak_mib": round(one["peak_mib"])}
            for one in rounds
            if "peak_mib" in one
        ],
        "total": total(rows),
    }


def readme_block(record: dict[str, Any]) -> str:
    """What stands in README between the markers."""
    totals, versions = record["total"], record["versions"]
    drilled = f"{record['date']}, {name_commits(record['git_commits'])}; moments from seed {record['seed']}"
    machine = f"{record['processor']}, DVC {versions['dvc']}, torch {versions['torch']}"
    title = f"{totals['rounds']:,} rounds, {totals['survived']:,} survived, {totals['corrupt']} corrupt ({drilled}; {machine}):"
    words = "{}: {:,.0f} s of CPU, {:,} MiB of memory at most."
    measured = [words.format(one["what"].capitalize(), one["cpu_seconds"], one["peak_mib"]) for one in record["measured"]]
    if record["examples"]:
        measured.append(f"Fuzz tried {record['examples']:,} examples, none of which ended in a traceback.")
    return "\n".join(["", title, "", *markdown(record["rows"]), "", *measured, *([""] if measured else [])])


def updated_readme(record: dict[str, Any], readme: Path = README) -> str:
    """README's text with the table of a record."""
    return replace_block(readme.read_text(encoding="utf-8"), readme_block(record), MARKERS)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.drills.table", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, metavar="FILE", help="the rounds, as .drills.jsonl")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD} and the table in {README}")
    options = parser.parse_args(arguments)
    rounds = read_rounds(options.file)
    print("\n".join(markdown(sum_up(rounds))))
    print(f"\nmoments from seed {name_seeds(rounds)}")
    lost = [f"{one['drill']}: {one['fault']} ({one['outcome']})" for one in rounds if one["outcome"] != "survived"]
    if lost:
        raise PipelineError(f"{len(lost)} of {len(rounds)} rounds did not survive: {name_some(lost)}. Nothing is recorded")
    if options.record:
        if skipped := DRILLS - {one["drill"] for one in rounds}:
            raise PipelineError(f"no round of {', '.join(sorted(skipped))}: why, `make drills` said. Nothing is recorded")
        write_json(RECORD, describe(rounds))
        text = updated_readme(read_json(RECORD))
        with atomic_file(README) as partial:
            partial.write_text(text, encoding="utf-8")
        logger.info("%s and %s written", RECORD, README)


if __name__ == "__main__":
    run_stage(main)
