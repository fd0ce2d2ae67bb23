"""Decoding every image once, on all cores, into one array on disk.

Threads, not processes: Pillow releases the interpreter lock while it decodes and resizes, so the cores are busy and no
pixel is copied between processes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from skinlesion.artifacts.prepared import INDEX_COLUMNS, PREPARED
from skinlesion.artifacts.raw import MAX_PIXELS, RAW, image_path
from skinlesion.artifacts.tables import write_table
from skinlesion.base.decoding import decode_picture
from skinlesion.base.errors import PipelineError, name_some, reason_of
from skinlesion.base.files import atomic_folder
from skinlesion.base.parallel import map_in_order
from skinlesion.config.schema import ColorConstancy, Fit
from skinlesion.data.color_constancy import shades_of_gray
from skinlesion.data.geometry import fit_image


@dataclass(frozen=True)
class Prepared:
    """An image in its square: uint8 of shape (size, size, 3), RGB; and the original's width and height in pixels."""

    pixels: np.ndarray
    width: int
    height: int


def prepare_image(path: Path, *, size: int, fit: Fit, color_constancy: ColorConstancy) -> Prepared | str:
    """Decode a JPEG of any color mode, take the light's color out of it if asked, and fit it into a square.

    The light is estimated on the whole original, so that neither a crop nor black bars have a part in it.

    Returns
    -------
    The image in its square, or why its content cannot be used.

    Raises
    ------
    OSError
        The system could not read the file (permissions, hardware).
    """
    try:
        original = decode_picture(path.read_bytes(), ["JPEG"], _convert)
    except MemoryError:
        raise
    except PipelineError as error:
        return str(error)
    except Exception as error:  # Pillow's decoders raise a dozen kinds for broken data
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return "not a JPEG file" if isinstance(error, UnidentifiedImageError) else reason_of(error)
    return Prepared(square_of(original, size=size, fit=fit, color_constancy=color_constancy), *original.size)


def _convert(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise PipelineError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS // 1_000_000} megapixels")
    # EXIF orientation is left alone: masks lie on the stored pixels. HAM10000 has none anyway.
    return image.convert("RGB")


def square_of(original: Image.Image, *, size: int, fit: Fit, color_constancy: ColorConstancy) -> np.ndarray:
    """What the network is shown of a decoded RGB image: uint8 (size, size, 3)."""
    if color_constancy == "shades_of_gray":
        original = Image.fromarray(shades_of_gray(np.asarray(original)))
    return np.asarray(fit_image(original, size=size, fit=fit))


def write_prepared(
    image_ids: list[str],
    *,
    size: int,
    fit: Fit,
    color_constancy: ColorConstancy,
    workers: int,
    raw: Path = RAW,
    folder: Path = PREPARED,
) -> None:
    """Prepare images and write `images.npy` (uint8, N x size x size x 3) and `index.csv` (`INDEX_COLUMNS`), both in order.

    The bytes do not depend on `workers`; the memory used does not depend on the number of images.

    Raises
    ------
    PipelineError
        Some images are broken; nothing is written, and the old content of `folder` stays.
    """
    sizes: list[tuple[int, int]] = []
    broken: list[str] = []

    def prepare(image_id: str) -> Prepared | str:
        return prepare_image(image_path(image_id, raw), size=size, fit=fit, color_constancy=color_constancy)

    results = map_in_order(prepare, image_ids, workers=workers)
    with atomic_folder(folder) as partial:
        # Written in sequence rather than through a memory map, where a full disk is a SIGBUS and not an OSError.
        with (partial / "images.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(image_ids), size, size, 3)}
            np.lib.format.write_array_header_1_0(file, header)
            # disable=None: no bar where nobody watches
            progress = tqdm(results, total=len(image_ids), desc="prepare", unit=" images", disable=None)
            for image_id, result in zip(image_ids, progress, strict=True):
                if isinstance(result, str):
                    broken.append(f"{image_id} ({result})")
                elif not broken:
                    file.write(result.pixels)
                    sizes.append((result.width, result.height))
        if broken:
            raise PipelineError(f"{len(broken)} broken image(s) in {raw / 'images'}: {name_some(broken)}: run `download` again")
        index = pd.DataFrame(sizes, columns=["width", "height"]).assign(
            image_id=image_ids, fit=fit, color_constancy=color_constancy
        )
        write_table(index, partial / "index.csv", INDEX_COLUMNS)
