"""Look up known holes of all pinned packages: `python -m ci.audit` (`make audit`), with pip-audit and its allow-list.

It fails on a hole that ci/audit-allow.toml does not list, on an entry there that is past its day or that nothing matches any
more, and on a package that could not be looked up, of which pip-audit itself says "No known vulnerabilities found".
"""

import argparse
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from skinlesion.base.errors import PipelineError, name_some, run_stage

ALLOW = Path("ci/audit-allow.toml")
LONGEST = timedelta(days=180)
# The locks have every package of a run, of the app and of the API. Of what tests and loggers need only the direct pins are known.
QUESTIONS = (
    ("--require-hashes", "-r", "requirements/pipeline.lock"),
    ("--require-hashes", "-r", "requirements/app.lock"),
    ("--no-deps", "-r", "requirements/dev.txt", "-r", "requirements/loggers.txt"),
)
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]


@dataclass(frozen=True)
class Hole:
    """A known vulnerability of a package that we have."""

    package: str
    version: str
    names: frozenset[str]  # its id and aliases
    fixed_in: tuple[str, ...]

    def __str__(self) -> str:
        way_out = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fixed version yet"
        return f"{self.package} {self.version}: {', '.join(sorted(self.names))} ({way_out})"


class Allowed(BaseModel, extra="forbid", strict=True):
    """An entry of the allow-list."""

    id: Text
    package: Text
    reason: Text
    until: date


class AllowList(BaseModel, extra="forbid"):
    """The file: its entries, `[[allow]]`."""

    allow: list[Allowed] = []


def read_allowed(path: Path, today: date) -> list[Allowed]:
    """The allow-list; no entry's day is past, or more than `LONGEST` ahead."""
    try:
        entries = AllowList.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).allow
    except tomllib.TOMLDecodeError as error:
        raise PipelineError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        wrong = name_some(f"{'.'.join(map(str, each['loc']))} = {each['input']!r}: {each['msg']}" for each in error.errors())
        raise PipelineError(f"{path}: {wrong}; its head shows how an entry looks") from None
    for entry in entries:
        if not today <= entry.until <= today + LONGEST:
            raise PipelineError(
                f"{path}: {entry.id} of {entry.package} is tolerated until {entry.until}, which must be from today to "
                f"{LONGEST.days} days ahead: update it or argue anew"
            )
    return entries


def ask(question: tuple[str, ...]) -> list[Hole]:
    """What pip-audit finds, each package looked up."""
    command = ["pip-audit", "--disable-pip", "--progress-spinner", "off", "--desc", "off", "--format", "json", *question]
    done = subprocess.run([sys.executable, "-m", "pip_audit", *command[1:]], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise PipelineError(f"`{' '.join(command)}` gave no result: {reason}") from None
    skipped = [package for package in packages if "skip_reason" in package]
    if skipped or not packages:
        why = f" ({skipped[0]['skip_reason']})" if skipped else ""
        names = name_some([package["name"] for package in skipped])
        raise PipelineError(f"{len(skipped)} of {len(packages)} packages were not looked up: {names}{why}")
    return [
        Hole(package["name"], package["version"], frozenset({hole["id"], *hole["aliases"]}), tuple(hole["fix_versions"]))
        for package in packages
        for hole in package["vulns"]
    ]


def weigh(holes: list[Hole], allowed: list[Allowed]) -> list[str]:
    """Everything that is wrong: holes that are not tolerated, and entries that match none."""

    def matches(entry: Allowed, hole: Hole) -> bool:
        return entry.package == hole.package and entry.id in hole.names

    open_holes = [str(hole) for hole in holes if not any(matches(entry, hole) for entry in allowed)]
    stale = [
        f"{ALLOW}: {entry.id} of {entry.package} is not found any more: take the entry out"
        for entry in allowed
        if not any(matches(entry, hole) for hole in holes)
    ]
    return [*open_holes, *stale]


def main() -> None:
    argparse.ArgumentParser(prog="python -m ci.audit", description="Look up known holes of all pinned packages.").parse_args()
    allowed = read_allowed(ALLOW, datetime.now(UTC).date())
    holes = [hole for question in QUESTIONS for hole in ask(question)]
    wrong = weigh(holes, allowed)
    if wrong:
        raise PipelineError("\n  ".join(["the audit found", *wrong]))
    print(f"no hole is known but the {len(allowed)} that {ALLOW} tolerates")


if __name__ == "__main__":
    run_stage(main)
