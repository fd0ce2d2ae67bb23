"""Prove that every row has its image, every image its row, and that every file is whole; each is decoded once."""

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from skinlesion.artifacts.raw import MASK_SUFFIX, MAX_PIXELS, image_path, list_images, mask_path
from skinlesion.base.cores import available_cores
from skinlesion.base.decoding import decode_picture, kind_of
from skinlesion.base.errors import PipelineError, name_some, reason_of


def check_files(raw: Path, image_ids: Iterable[str]) -> int:
    """Check the images and masks in `raw` (laid out as `data/raw`) against the metadata's ids, and decode them all.

    Returns
    -------
    The number of lesion masks.

    Raises
    ------
    PipelineError
        A row without an image, an image or a mask without a row, an image that is no whole RGB JPEG of at most 25
        megapixels, a mask that is no whole PNG of its image's size or marks nothing. Offenders are named and counted.
    """
    listed = set(image_ids)
    images = set(list_images(raw))
    masks = {path.stem.removesuffix(MASK_SUFFIX) for path in (raw / "segmentations").glob("*.png")}
    for offenders, meaning in (
        (
            listed - images,
            "have a row in the metadata and no image: complete the source (see what was left aside), or delete the rows",
        ),
        (images - listed, "are images without a row in the metadata: complete it, or move the images elsewhere"),
        (masks - listed, "have a mask and no row in the metadata: complete it, or move the masks elsewhere"),
    ):
        if offenders:
            raise PipelineError(f"{len(offenders):,} id(s) {meaning}: {name_some(sorted(offenders))}")
    # Threads, because Pillow releases the interpreter lock while it decodes. The warning is Pillow's own about large headers.
    with warnings.catch_warnings(), ThreadPoolExecutor(available_cores()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        results = pool.map(partial(_describe_problem, raw), sorted(listed))
        problems = [problem for problem in tqdm(results, total=len(listed), desc="checking", disable=None) if problem]
    if problems:
        raise PipelineError(f"{len(problems):,} of {len(listed):,} images cannot be used: {name_some(problems)}. Get them again")
    return len(masks)


def _describe_problem(raw: Path, image_id: str) -> str | None:
    """What is wrong with an image or its mask, or None."""
    path = image_path(image_id, raw)
    try:
        image = _decode(path, "JPEG")
        if image.mode != "RGB":
            raise ValueError(f"{image.mode}, not RGB")
        path = mask_path(image_id, raw)
        if path.exists():
            mask = _decode(path, "PNG")
            if mask.size != image.size:
                raise ValueError(f"{mask.width} x {mask.height} pixels, and its image {image.width} x {image.height}")
            if np.asarray(mask.convert("L")).max() <= 127:
                raise ValueError("it marks no lesion: no pixel is above 127")
    except ValueError as error:
        return f"{path.name} ({error})"
    return None


def _decode(path: Path, kind: str) -> Image.Image:
    """The decoded image; raises ValueError if it is none of that kind, too large, or broken."""
    content = path.read_bytes()  # outside the `try`: what fails here is the disk and not the image
    if (found := kind_of(content)) != f"a {kind}":
        raise ValueError(f"{found}, not a {kind} file" if found else f"not a {kind} file")
    try:
        return decode_picture(content, [kind], _load)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds for broken data; all become the caller's one
        raise ValueError(reason_of(error)) from None


def _load(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels, over the {MAX_PIXELS // 1_000_000} megapixels that are accepted"
        )
    image.load()
    return image
