"""Predict image files from the command line: `python -m skinlesion.predict IMAGE_OR_FOLDER... --csv OUT`.

Every file gets a row, one that cannot be read with the reason; the columns are `skinlesion.prediction_rows.ROW_COLUMNS`. Exit
code 0 where every file was predicted, 3 where some were not, 1 where nothing could be done at all.

Not for clinical use.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from skinlesion.cores import available_cores
from skinlesion.errors import PipelineError, describe_os_error, run_stage
from skinlesion.files import atomic_file
from skinlesion.operating_point import OperatingPoint
from skinlesion.patients import Patient
from skinlesion.prediction_rows import ROW_COLUMNS, row_of
from skinlesion.predictor import BATCH, ENGINES, ENSEMBLE, Predictor, load_predictor
from skinlesion.preparing import map_in_order
from skinlesion.uploads import EXTENSIONS, Upload, check_size, decode_upload

SOME_FAILED = 3

logger = logging.getLogger(__name__)

Decoded = tuple[Path, Upload | None, np.ndarray | None, str]  # file, image, its square, and why it has none


def main() -> None:
    """Parse the command line, predict, write the table."""
    arguments = parse_arguments()
    predictor = load_predictor(arguments.workspace, model=arguments.model, engine=arguments.engine, device=arguments.device)
    point = predictor.find_point(arguments.operating_point)
    patient = Patient(arguments.age, arguments.sex, arguments.localization)
    if patient != Patient() and not predictor.needs_metadata:
        raise PipelineError("this classifier sees the image alone: leave out --age, --sex and --localization")
    files = list_files(arguments.images)
    failed = write_rows(predictor, files, arguments.csv, point=point, patient=patient)
    if point is not None:
        logger.info("%s", point.sentence)
    logger.info("%d of %d files predicted, in %s. Not for clinical use.", len(files) - failed, len(files), arguments.csv)
    if failed:
        logger.warning("%d could not be predicted: see the column error", failed)
        sys.exit(SOME_FAILED)


def parse_arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.predict", description="Predict image files. Not for clinical use."
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER", help="files, or folders of them")
    parser.add_argument("--csv", type=Path, required=True, metavar="OUT", help="the table to write")
    parser.add_argument("--model", default=ENSEMBLE, help="ensemble (default), or a member as base-0")
    parser.add_argument("--engine", default=ENGINES[0], help=f"{', '.join(ENGINES)}; the last two need the stage export")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps, xpu")
    parser.add_argument("--operating-point", help="as recall_0.90 (default, if there is one of that name)")
    parser.add_argument(
        "--age", type=float, help="years, for every file; only for a classifier that takes metadata, as the next two"
    )
    parser.add_argument("--sex", help="female or male")
    parser.add_argument("--localization", help="site of the lesion, as 'lower extremity'")
    parser.add_argument("--workspace", type=Path, default=Path(), help="where models/ is; by default here")
    return parser.parse_args()


def list_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant, in the order given, those of a folder by name and with all folders in it, each once.

    A file is taken whatever it is called, of a folder what has one of `EXTENSIONS`; hidden ones are left out.

    Raises
    ------
    PipelineError
        A path does not exist, or a folder has no image.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise PipelineError(f"{path} not found: name files or folders that exist")
        found = sorted(file for file in path.rglob("*") if _is_image(file, path)) if path.is_dir() else [path]
        if not found:
            raise PipelineError(f"{path} holds no file that ends in {', '.join(EXTENSIONS)}: name another folder, or the files")
        files |= dict.fromkeys(found)
    return list(files)


def _is_image(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in EXTENSIONS and file.is_file()


def write_rows(predictor: Predictor, files: Sequence[Path], out: Path, *, point: OperatingPoint | None, patient: Patient) -> int:
    """Predict files and write their rows, in order, to a CSV; how many could not be predicted."""
    failed = 0
    decoded = map_in_order(lambda file: decode(predictor, file), files, workers=available_cores())
    progress = tqdm(total=len(files), desc="predict", unit=" images", disable=None)  # None: no bar where nobody watches
    # A file's name may be no UTF-8; it is then written with escapes, and the run goes on.
    with (
        atomic_file(out) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        progress,
    ):
        writer = csv.DictWriter(file, ROW_COLUMNS)
        writer.writeheader()
        while batch := list(islice(decoded, BATCH)):
            for row in rows_of(predictor, batch, point=point, patient=patient):
                failed += bool(row["error"])
                writer.writerow(row)
            progress.update(len(batch))
    return failed


def decode(predictor: Predictor, file: Path) -> Decoded:
    """Read and prepare one file; a reason in place of what cannot be had."""
    try:
        check_size(file.stat().st_size)  # before it is read
        upload = decode_upload(file.read_bytes())
    except PipelineError as error:
        return file, None, None, str(error)
    except OSError as error:
        return file, None, None, f"The file could not be read: {describe_os_error(error)}."
    return file, upload, predictor.square(upload.image), ""


def rows_of(
    predictor: Predictor, batch: Sequence[Decoded], *, point: OperatingPoint | None, patient: Patient
) -> Iterator[dict[str, str | float]]:
    """The rows of a batch, in order."""
    squares = [square for _, _, square, _ in batch if square is not None]
    logits = iter(predictor.logits(np.stack(squares), [patient] * len(squares)) if squares else ())
    for file, upload, square, reason in batch:
        if upload is None or square is None:
            yield row_of(str(file), None, error=reason)
        else:
            prediction = predictor.describe(next(logits), square, upload.image, point)
            yield row_of(str(file), prediction, notes=upload.notes)


if __name__ == "__main__":
    run_stage(main)
