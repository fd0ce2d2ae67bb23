"""Compare two runs on the same images: `python -m skinlesion.compare A B`.

A and B are folders: a recorded run (`results/NAME`), a project, or a folder with `val.csv` and `test.csv`. With `--rev` they are
revisions of this project (a branch, a tag, a commit, an experiment's name; `workspace` is what lies here), whose prediction
tables DVC brings from its cache or remote. Nothing is written and nothing is run.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.config.schema import BootstrapParams
from skinlesion.evaluation.metrics.bootstrap import describe_draws
from skinlesion.evaluation.metrics.pairing import compare, pair
from skinlesion.evaluation.results.predictions import PREDICTIONS, read_predictions

WORKSPACE = "workspace"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `how` is of its `draws`, `confidence` and `seed`."""
    parser = argparse.ArgumentParser(prog="python -m skinlesion.compare", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("first", metavar="A", help="the run that is compared with")
    parser.add_argument("second", metavar="B", help="the run that is compared; differences are B - A")
    parser.add_argument("--rev", action="store_true", help="A and B are revisions of this project")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="experiments are chosen on val (default: test)")
    parser.add_argument("--draws", type=int, default=2000, help="resamples of the lesions, >= 100 (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap, >= 0 (default: 0)")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals, 0.5 to 1 (default: 0.95)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    try:
        options.how = BootstrapParams(draws=options.draws, confidence=options.confidence, seed=options.seed)
    except ValidationError as error:
        problem = error.errors()[0]
        parser.error(f"argument --{problem['loc'][0]}: {problem['msg']}, not '{problem['input']}'")
    return options


def read_folder(name: str, split: str) -> pd.DataFrame:
    """The prediction table of a recorded run, a project or a bare folder."""
    folder = Path(name)
    candidates = [folder / "predictions", folder / PREDICTIONS, folder]
    for candidate in candidates:
        if (candidate / f"{split}.csv").is_file():
            return read_predictions(split, candidate)
    hint = "" if folder.exists() else " (for a revision of this project add --rev)"
    raise PipelineError(
        f"no prediction table: none of {', '.join(str(each / f'{split}.csv') for each in candidates)} exists{hint}"
    )


def read_revision(revision: str, split: str) -> pd.DataFrame:
    """The prediction table of a revision of the project in the working directory."""
    if revision == WORKSPACE:
        return read_predictions(split)
    import dvc.api  # a second or more; folders do not need it
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError
    from dvc_data.index import DataIndexDirError  # of a folder that is neither in the cache nor in a remote

    path = (PREDICTIONS / f"{split}.csv").as_posix()
    try:
        content = dvc.api.read(path, repo=".", rev=revision, mode="rb")
    except (DvcException, SCMError, DataIndexDirError, OSError) as error:
        raise PipelineError(
            f"{path} of revision '{revision}' cannot be read: {error}. `git log` and `dvc exp list` name revisions; what is not "
            "in the cache comes with `dvc pull` or by running it again"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{split}.csv").write_bytes(content)
        return read_predictions(split, Path(folder))


def format_table(table: pd.DataFrame, names: tuple[str, str]) -> str:
    """The comparison as aligned text."""
    lines = [f"A {names[0]}", f"B {names[1]}", "", f"{'':<24}{'A':>8}{'B':>8}{'B - A':>9}  {'interval':<18}{'p':>8}"]
    for row in table.itertuples():
        numbers = f"{row.first:>8.3f}{row.second:>8.3f}{row.difference:>+9.3f}"
        interval = f"[{row.low:+.3f}, {row.high:+.3f}]"
        lines.append(f"{row.metric:<24}{numbers}  {interval:<18}{row.p:>8.4f}")
    return "\n".join(lines)


def describe(options: argparse.Namespace, images: int, lesions: int) -> dict[str, Any]:
    """What was compared, and how."""
    return {
        "first": options.first,
        "second": options.second,
        "split": options.split,
        "images": images,
        "lesions": lesions,
        "bootstrap": describe_draws(options.how),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    read = read_revision if options.rev else read_folder
    paired = pair(read(options.first, options.split), read(options.second, options.split))
    table = compare(paired, options.how)
    images, lesions = len(paired.first), int(paired.first["lesion_id"].nunique())
    if options.json:
        metrics = json.loads(table.set_index("metric").to_json(orient="index", double_precision=15))
        sys.stdout.write(json.dumps(describe(options, images, lesions) | {"metrics": metrics}, indent=2) + "\n")
        return
    size = f"{options.split} split, {images:,} images of {lesions:,} lesions."
    sys.stdout.write(
        f"{format_table(table, (options.first, options.second))}\n\n"
        f"{size} Interval ({100 * options.confidence:g} %) and p (two-sided, not adjusted\n"
        f"for the number of metrics) are of B - A, from {options.draws:,} draws of lesions that A and B share.\n"
    )


if __name__ == "__main__":
    run_stage(main)
