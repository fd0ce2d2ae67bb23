"""Hold a run of the sample in the workspace against the one that is committed: `python -m ci.compare_sample [--to REVISION]`.

Reads   dvc.lock, metrics/*.json, and both at REVISION (default: HEAD)
Writes  a table to stdout; exit code 1 and a message if something differs by more than it may

Before training there is no rounding that a processor could do its own way: the outputs must be those of dvc.lock to the byte.
Training rounds differently on other processors and with other numbers of threads, and 14 epochs on 307 images amplify it, so that
the headline metrics have a tolerance (`TOLERANCE`) and the other files must have the same keys.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from skinlesion.base.errors import PipelineError, name_some, run_stage
from skinlesion.base.files import read_json
from tools.records import HEADLINE, METRIC_FILES

DATA_STAGES = ("download", "split", "prepare", "synthesize")

# How far each may lie from what is committed, on the sample's 97 test images: one and a half times the largest difference seen to
# five runs of the same code that differ in nothing but their rounding (one or two threads; PyTorch and oneDNN held to AVX2,
# SSE4.1 or no vector instructions). Accuracy was .588 to .773 in them, macro AUC .895 to .962: on so few images only the latter,
# which counts ranks and not the class that comes first, is sharp.
TOLERANCE = {
    "accuracy": 0.27,
    "balanced_accuracy": 0.24,
    "macro_f1": 0.27,
    "macro_auc": 0.08,
    "mel_sensitivity": 0.30,
    "mel_specificity": 0.30,
}


def at_revision(path: str, revision: str) -> str:
    """A file's text at a revision of this repository."""
    shown = subprocess.run(["git", "show", f"{revision}:{path}"], capture_output=True, text=True, check=False)
    if shown.returncode:
        raise PipelineError(f"{path} at {revision} cannot be read: {shown.stderr.strip()}")
    return shown.stdout


def data_hashes(lock: str) -> dict[str, str]:
    """MD5 of what the stages before training wrote, by path, from the text of a `dvc.lock`."""
    stages = YAML(typ="safe", pure=True).load(lock)["stages"]
    if missing := [name for name in DATA_STAGES if name not in stages]:
        raise PipelineError(f"dvc.lock has no {name_some(missing)}: run `dvc repro`")
    return {out["path"]: out["md5"] for name in DATA_STAGES for out in stages[name]["outs"]}


def paths_of_keys(content: dict[str, Any]) -> set[str]:
    """The keys of a metrics file with those above them, as `test.per_class.mel.auc`."""
    return set(pd.json_normalize(content).columns)


def compare_data(old: str, new: str) -> list[str]:
    """What of the data is not the committed one."""
    before, after = data_hashes(old), data_hashes(new)
    return [
        f"{path}: {after.get(path, 'missing')} instead of {before.get(path, 'nothing')}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def compare_headline(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Rows of the table of headline metrics, and those that are off."""
    rows, off = [], []
    for key in HEADLINE:
        before, after, allowed = old["test"][key], new["test"][key], TOLERANCE[key]
        rows.append(f"| {HEADLINE[key]} | {before:.3f} | {after:.3f} | {allowed:.2f} |")
        if abs(after - before) > allowed:
            off.append(f"{HEADLINE[key]} of test is {after:.3f}, committed is {before:.3f}, and {allowed:.2f} apart is the most")
    return rows, off


def compare_keys(revision: str) -> list[str]:
    """Files of metrics that have other keys than the committed ones; failures and groups come and go with the predictions."""
    odd = []
    for name in METRIC_FILES:
        old = paths_of_keys(json.loads(at_revision(f"metrics/{name}.json", revision)))
        if changed := old ^ paths_of_keys(read_json(Path(f"metrics/{name}.json"))):
            odd.append(f"metrics/{name}.json has other keys: {name_some(sorted(changed))}")
    return odd


def main() -> None:
    """Compare, print, refuse."""
    parser = argparse.ArgumentParser(prog="python -m ci.compare_sample", description=__doc__.partition("\n")[0])
    parser.add_argument("--to", default="HEAD", metavar="REVISION", help="what the run is held against (default: %(default)s)")
    revision = parser.parse_args().to
    off = compare_data(at_revision("dvc.lock", revision), Path("dvc.lock").read_text(encoding="utf-8"))
    rows, far = compare_headline(
        json.loads(at_revision("metrics/evaluate.json", revision)), read_json(Path("metrics/evaluate.json"))
    )
    print("\n".join(["| test, synthetic sample | committed | here | may differ by |", "| --- | --- | --- | --- |", *rows]))
    if off := [*off, *far, *compare_keys(revision)]:
        raise PipelineError("\n  ".join([f"this run of the sample is not the one of {revision}:", *off]))
    print(f"data as at {revision} to the byte, metrics within their tolerance")


if __name__ == "__main__":
    run_stage(main)
