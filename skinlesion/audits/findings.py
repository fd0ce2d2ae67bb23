"""Results of the optional stages (extras/dvc.yaml), and whether they still belong to this workspace.

They are written to `metrics/extras/NAME.json`, those of the export to `metrics/export.json`.

The main pipeline does not depend on these stages, so their results may be of another classifier or of other images than those in
the workspace now. Each file therefore holds the sha256 of what was measured, and a reader can compare.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from skinlesion.artifacts.paths import METRICS
from skinlesion.artifacts.prepared import PREPARED
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest, read_json, write_json
from skinlesion.config.params import load_params
from skinlesion.evaluation.results.predictions import PREDICTIONS

EXTRAS = METRICS / "extras"
EXPORT = METRICS / "export.json"
SUBJECTS = "of"  # the key of the digests in a file


def extra_path(name: str) -> Path:
    """Where an extra writes what it found."""
    return EXPORT if name == EXPORT.stem else EXTRAS / f"{name}.json"


def found_extras() -> dict[str, Path]:
    """The files of the extras that were run, by name in alphabetical order."""
    paths = [*EXTRAS.glob("*.json"), *([EXPORT] if EXPORT.is_file() else [])]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


# What an extra can be measured on, and the sha256 of what the workspace has now.
_DIGESTS: dict[str, Callable[[], str]] = {
    "images": lambda: file_digest(PREPARED / "images.npy", "sha256"),  # all images, as the network sees them
    # And so the classifier, its calibration and the split.
    "predictions": lambda: file_digest(PREDICTIONS / "test.csv", "sha256"),
    # How the networks of the leak demonstration are trained.
    "recipe": lambda: hashlib.sha256(json.dumps(load_params().leak_recipe().model_dump(), sort_keys=True).encode()).hexdigest(),
}


def write_extra(name: str, content: dict[str, Any], *, of: Iterable[str]) -> None:
    """Write what an extra found, with the digests of what was measured: any of `images`, `predictions`, `recipe`."""
    write_json(extra_path(name), {SUBJECTS: {subject: _DIGESTS[subject]() for subject in of}, **content})


def read_extra(name: str) -> dict[str, Any] | None:
    """What an extra found; None if it was not run.

    Raises
    ------
    PipelineError
        The file is damaged, or lacks the digests of what was measured.
    """
    path = extra_path(name)
    if not path.is_file():
        return None
    content = read_json(path)
    subjects = content.get(SUBJECTS)
    if not isinstance(subjects, dict) or not subjects or not subjects.keys() <= _DIGESTS.keys():
        raise PipelineError(f"{path} lacks the digests of what was measured: run `dvc repro extras/dvc.yaml` again")
    return content


def outdated(content: dict[str, Any]) -> list[str]:
    """The subjects of an extra, as `read_extra` gives it, that the workspace has otherwise now; empty if it is up to date."""
    return [name for name, digest in content[SUBJECTS].items() if _DIGESTS[name]() != digest]
