"""Which trained classifier a calibration, an operating point or an export belongs to: a digest that each of them carries."""

import hashlib
from pathlib import Path

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest
from skinlesion.config.contents import Calibration, OperatingPoints
from skinlesion.model.classifier import WEIGHTS_FILE, read_member_names


def classifier_digest(folder: Path = CLASSIFIER) -> str:
    """sha256, hexadecimal, of the members' names and weights in their order."""
    lines = [f"{name} {file_digest(folder / name / WEIGHTS_FILE, 'sha256')}\n" for name in read_member_names(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_belongs(content: Calibration | OperatingPoints, path: Path, digest: str) -> None:
    """Refuse a file of another classifier, as an interrupted `dvc repro` leaves it.

    content : of the file at `path`. digest : of the classifier (`classifier_digest`).

    Raises
    ------
    PipelineError
        The digest is another one, or is not there.
    """
    if content.classifier_sha256 != digest:
        raise PipelineError(
            f"{path} is of another classifier than the one in {CLASSIFIER}: run `dvc repro`, which renews what is old"
        )
