"""Write what a run changed, for a pull request: `python -m ci.report --base COMMIT --out FOLDER`.

Reads   the workspace after `dvc repro`; params, metrics and plots of COMMIT; FOLDER/repro.log; the variables RUN_URL, RECIPES
        and OVERRIDES, which may be missing
Writes  FOLDER/report.md, FOLDER/plots/*.png, and FOLDER/metrics_diff.md with every metric that changed
"""

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ci.compare_sample import at_revision
from ci.pictures import WORKSPACE, draw
from ci.run_log import RunLog, read_log
from skinlesion.artifacts.paths import METRICS
from skinlesion.artifacts.raw import read_provenance
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_file, read_json
from skinlesion.base.versions import git_commit
from skinlesion.compare import main as compare_runs
from tools.dvc_commands import run_dvc
from tools.records import HEADLINE, number

MARKER = "<!-- pipeline-report -->"  # by which a later run finds the comment that it updates
OPEN = ("train", "evaluate")  # the stages whose pictures are unfolded


def at_base(path: str, base: str) -> dict[str, Any] | None:
    """A metrics file as `base` has it; None where it has none (a new stage, another ensemble)."""
    try:
        return json.loads(at_revision(path, base))
    except PipelineError:
        return None


def resolve(base: str) -> str:
    """The full name of a commit; PipelineError where there is none."""
    found = subprocess.run(["git", "rev-parse", "--verify", f"{base}^{{commit}}"], capture_output=True, text=True, check=False)
    if found.returncode:
        raise PipelineError(f"--base {base!r} is no commit here ({found.stderr.strip()}): fetch it, or name another")
    return found.stdout.strip()


def heading(base: str, log: RunLog) -> list[str]:
    """What was run, where and on what; that images are synthetic, if they are."""
    lines = [MARKER, "## Pipeline report", ""]
    if read_provenance(Path("data/raw"))["synthetic"]:
        lines += ["> **Synthetic sample: these figures say nothing about real skin.**", ""]
    run = f" · [run]({os.environ['RUN_URL']})" if os.environ.get("RUN_URL") else ""
    lines += [f"`{(git_commit() or 'uncommitted')[:10]}` against `{base[:10]}`{run}", ""]
    facts = {
        "recipes": os.environ.get("RECIPES"),
        "overrides": os.environ.get("OVERRIDES"),
        "trained": "; ".join(log.trainings) or "nothing",
        "speed of training": f"{log.images_per_second:,.0f} images/s" if log.images_per_second else None,
        "`dvc repro`": f"{log.seconds:,} s" if log.seconds is not None else None,
        "stages run": ", ".join(log.ran) or "none",
        "restored, not run": ", ".join(log.restored) or None,
    }
    cells = {name: " ".join(fact.split()).replace("|", "\\|") for name, fact in facts.items() if fact}  # one line, no bars
    return [*lines, "| | |", "| --- | --- |", *(f"| {name} | {cell} |" for name, cell in cells.items()), ""]


def headline(base: str) -> list[str]:
    """The headline metrics of test beside those of the base."""
    path = METRICS / "evaluate.json"
    here, before = read_json(path)["test"], (at_base(path.as_posix(), base) or {}).get("test", {})
    rows = []
    for key, name in HEADLINE.items():
        old, new = before.get(key), here[key]
        change = f"{new - old:+.3f}" if old is not None and new is not None else "-"
        rows.append(f"| {name} | {number(old)} | {number(new, here['intervals'].get(key))} | {change} |")
    images = f"{here['images']:,} images of {here['lesions']:,} lesions"
    split = METRICS / "split.json"
    same = read_json(split)["fingerprint"] == (at_base(split.as_posix(), base) or {}).get("fingerprint")
    warning = "**The base was measured on another split, so that the change says nothing.** " if before and not same else ""
    return [
        f"### Test, {images}",
        "",
        "| | base | this run, 95 % interval | change |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        f"{warning}Choose on validation, not on this table: below, both runs on the same validation lesions.",
        "",
    ]


def comparison(base: str) -> list[str]:
    """Whether the difference on validation is more than chance, by the paired bootstrap; or why that cannot be said."""
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            compare_runs(["--rev", base, WORKSPACE, "--split", "val"])
    except PipelineError as error:
        return [f"Not compared on validation: {error}", ""]
    return ["```text", *printed.getvalue().rstrip().splitlines(), "```", ""]


def difference(what: str, base: str) -> str:
    """The Markdown table of `dvc WHAT diff`, its padding taken out, or an empty text where it has no row."""
    rows = [re.sub(r" {2,}", " ", row) for row in run_dvc(what, "diff", base, "--md").strip().splitlines()]
    if len(rows) <= 2:
        return ""
    return "\n".join([rows[0].replace(base, "base").replace(WORKSPACE, "this run"), re.sub("-{4,}", "---", rows[1]), *rows[2:]])


def stage_of(plot: str) -> str:
    """The stage whose plot it is: the one with whose name the plot's begins."""
    stages = YAML(typ="safe", pure=True).load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return next((stage for stage in stages if f"{plot}_".startswith(f"{stage.replace('-', '_')}_")), "extras")


def pictures(names: list[str], *, of_base: bool) -> list[str]:
    """The pictures, those of a stage folded together; a sentence where none shows the base."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(stage_of(name), []).append(name)
    lines = ["### Plots", ""] if names else []
    if names and not of_base:
        lines += ["Of this run alone: the base's are neither here nor in the remote.", ""]
    for stage, plots in groups.items():
        shown = [f"![{plot.replace('_', ' ')}](plots/{plot}.png)" for plot in plots]
        lines += [f"<details{' open' if stage in OPEN else ''}><summary>{stage}</summary>", "", *shown, "", "</details>", ""]
    return lines


def write_report(folder: Path, base: str) -> Path:
    """Write the report; PipelineError where `dvc repro` has not been run or the base is unknown."""
    base = resolve(base)
    params = difference("params", base)
    metrics = difference("metrics", base)
    names, of_base = draw(folder / "plots", base=base, names={base: f"base {base[:7]}", WORKSPACE: "this run"})
    changed = os.environ.get("RECIPES") or os.environ.get("OVERRIDES")
    command = "`dvc repro --pull` on this commit" + (", with the same recipes and overrides in params.yaml" if changed else "")
    lines = [
        *heading(base, read_log(folder / "repro.log")),
        *["### Parameters that changed", "", params or "None.", ""],
        *headline(base),
        *comparison(base),
        f"{max(len(metrics.splitlines()) - 2, 0):,} metrics changed: `metrics_diff.md` in the run's artifact lists them.",
        "",
        *pictures(names, of_base=of_base),
        f"To take these results without computing them: {command}, then commit dvc.lock and metrics/.",
    ]
    for name, text in {"metrics_diff.md": metrics or "No metric changed.", "report.md": "\n".join(lines)}.items():
        with atomic_file(folder / name) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
    return folder / "report.md"


def main() -> None:
    """Write the report and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m ci.report", description=__doc__.partition("\n")[0])
    parser.add_argument("--base", required=True, metavar="COMMIT", help="what the run is compared with")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="holds repro.log; the report goes there")
    arguments = parser.parse_args()
    print(write_report(arguments.out, arguments.base))


if __name__ == "__main__":
    run_stage(main)
