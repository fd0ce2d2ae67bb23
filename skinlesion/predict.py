"""Predict image files from the command line: `python -m skinlesion.predict IMAGE_OR_FOLDER... --csv OUT`.

Every file gets a row, one that cannot be read with the reason; the columns are `skinlesion.serving.prediction.ROW_COLUMNS`. Exit
code 0 where every file was predicted, 3 where some were not, 1 where nothing could be begun.

Not for clinical use.
"""

import argparse
import csv
import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from skinlesion.artifacts.patients import Patient
from skinlesion.base.cores import available_cores
from skinlesion.base.decoding import BEGINNING, PICTURES, kind_of
from skinlesion.base.errors import PipelineError, describe_os_error, name_some, run_stage
from skinlesion.base.files import atomic_file
from skinlesion.base.parallel import map_in_order
from skinlesion.data.sources.folders import walk
from skinlesion.serving.engines import ENGINES
from skinlesion.serving.operating_point import OperatingPoint
from skinlesion.serving.prediction import ROW_COLUMNS, row_of
from skinlesion.serving.predictor import BATCH, ENSEMBLE, Predictor, load_predictor
from skinlesion.serving.uploads import EXTENSIONS, check_size, decode_upload

SOME_FAILED = 3

logger = logging.getLogger(__name__)


class Decoded(NamedTuple):
    """What is kept of a file until it is predicted: not its picture, of which a batch could fill the memory.

    square, quality : of the predictor's methods of that name. notes : of `Upload`. error : why there is no square.
    """

    file: Path
    square: np.ndarray | None = None
    quality: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""


def main() -> None:
    """Parse the command line, predict, write the table."""
    arguments = parse_arguments()
    predictor = load_predictor(arguments.workspace, model=arguments.model, engine=arguments.engine, device=arguments.device)
    point = predictor.find_point(arguments.operating_point)
    patient = Patient(arguments.age, arguments.sex, arguments.localization)
    if patient != Patient() and not predictor.needs_metadata:
        raise PipelineError("this classifier sees the image alone: leave out --age, --sex and --localization")
    files = list_files(arguments.images)
    out = check_output(arguments.csv, files)
    failed = write_rows(predictor, files, out, point=point, patient=patient)
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


def check_output(out: Path, files: Sequence[Path]) -> Path:
    """Where the table goes, links followed.

    Raises
    ------
    PipelineError
        It would take the place of something else than such a table: a shell makes `--csv *.jpg` out of a slip.
    """
    out = out.resolve()
    header = ",".join(ROW_COLUMNS)
    taken = out.exists() and not out.is_file()
    if out.is_file() and out.stat().st_size > 0:
        with out.open("rb") as file:
            taken = file.read(len(header)) != header.encode()
    if taken or out in {file.resolve() for file in files} or out.suffix.lower() in EXTENSIONS:
        raise PipelineError(f"--csv {out} is not a table of this command and is left as it is: name another file")
    return out


def list_files(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant, in the order given, those of a folder by name and with all folders in it, each once.

    A file is taken whatever it is, of a folder what is a picture or is called like one; hidden ones are left out.

    Raises
    ------
    PipelineError
        A path does not exist, or a folder has no image.
    """
    files: dict[Path, Path] = {}  # by where they are
    for path in paths:
        if not path.exists():
            raise PipelineError(f"{path} not found: name files or folders that exist")
        found = _images_of(path) if path.is_dir() else [path]
        if not found:
            raise PipelineError(f"{path} holds no JPEG, PNG or DICOM file: name another folder, or the files")
        for file in found:
            files.setdefault(file.resolve(), file)
    return list(files.values())


def _images_of(folder: Path) -> list[Path]:
    """The files of a folder that are pictures by content or by name, sorted; what is left out is named."""
    files = sorted(file for file in walk(folder) if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    images = [file for file in files if file.suffix.lower() in EXTENSIONS or _is_picture(file)]
    if others := sorted({*files} - {*images}):
        named = name_some(file.relative_to(folder).as_posix() for file in others)
        logger.warning("%s: %d other files are left out (%s)", folder, len(others), named)
    return images


def _is_picture(file: Path) -> bool:
    with file.open("rb") as opened:
        return kind_of(opened.read(BEGINNING)) in PICTURES


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
        return Decoded(file, error=str(error))
    except OSError as error:
        return Decoded(file, error=f"The file could not be read: {describe_os_error(error)}.")
    return Decoded(file, predictor.square(upload.image), predictor.quality(upload.image), upload.notes)


def rows_of(
    predictor: Predictor, batch: Sequence[Decoded], *, point: OperatingPoint | None, patient: Patient
) -> Iterator[dict[str, str | float]]:
    """The rows of a batch, in order."""
    squares = [each.square for each in batch if each.square is not None]
    logits = iter(predictor.logits(np.stack(squares), [patient] * len(squares)) if squares else ())
    for each in batch:
        if each.square is None:
            yield row_of(str(each.file), None, source=predictor.source, error=each.error)
        else:
            prediction = predictor.conclude(next(logits), each.square, each.quality, point)
            yield row_of(str(each.file), prediction, source=predictor.source, notes=each.notes)


if __name__ == "__main__":
    run_stage(main)
