"""A small source in Kaggle's layout, drawn here, and the ways to pack it; shared by the tests of `download`."""

import hashlib
import io
import shutil
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from skinlesion.data.sources.dataverse import FILES, RemoteFile
from skinlesion.diagnoses import CLASSES
from tests.data.scripted_server import Scripted

Content = dict[str, bytes]
WIDTH, HEIGHT = 40, 30


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a picture in a format of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(seed: int, mode: str = "RGB") -> bytes:
    """A whole JPEG of `WIDTH` x `HEIGHT` noise."""
    shape = (HEIGHT, WIDTH, 3) if mode == "RGB" else (HEIGHT, WIDTH)
    return encoded(Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode), "JPEG")


def mask(width: int = WIDTH, height: int = HEIGHT, value: int = 255) -> bytes:
    """A PNG with a bright rectangle in it."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[5:20, 5:20] = value
    return encoded(Image.fromarray(pixels), "PNG")


def huge_jpeg(width: int = 10_000, height: int = 10_000) -> bytes:
    """A few hundred bytes whose header claims `width` x `height` pixels."""
    content = jpeg(0)
    frame = content.index(b"\xff\xc0")  # start of frame: length (2), precision (1), height (2), width (2)
    return content[: frame + 5] + struct.pack(">HH", height, width) + content[frame + 9 :]


def huge_png(width: int = 10_000, height: int = 10_000) -> bytes:
    """A mask whose header claims `width` x `height` pixels, with the right checksum."""
    content = mask()
    header = content[12:16] + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def table() -> pd.DataFrame:
    """Ten images of nine lesions, every diagnosis, one age missing, one 0."""
    dx = [*CLASSES, "nv", "nv", "mel"]
    return pd.DataFrame(
        {
            "lesion_id": [f"HAM_{number:07d}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 8, 9)],
            "image_id": [f"ISIC_{number:07d}" for number in range(10)],
            "dx": dx,
            "dx_type": ["histo"] * 6 + ["follow_up"] * 4,
            "age": ["80.0", "", "0.0", "45.0", "50.0", "NaN", "60.0", "35.0", "35.0", "70.0"],
            "sex": ["male", "female", "unknown"] * 3 + ["male"],
            "localization": ["scalp"] * 9 + ["unknown"],
        }
    )


def kaggle_files(*, masks: bool = True) -> dict[str, bytes]:
    """Relative path to content, in the layout of the Kaggle mirror."""
    files = {"HAM10000_metadata.csv": table().to_csv(index=False, lineterminator="\n").encode()}
    for number, image_id in enumerate(table()["image_id"]):
        files[f"HAM10000_images_part_{1 + number // 5}/{image_id}.jpg"] = jpeg(number)
        if masks:
            files[f"HAM10000_segmentations/{image_id}_segmentation.png"] = mask()
    return files


def dataverse_files() -> dict[str, bytes]:
    """The four files of HAM10000 on Dataverse, by name, small."""
    files = kaggle_files()
    parts = {"segmentations_lesion_tschandl": "segm", "images_part_1": "part_1", "images_part_2": "part_2"}
    zips = {f"HAM10000_{name}.zip": pack({path: c for path, c in files.items() if part in path}) for name, part in parts.items()}
    return {"HAM10000_metadata": table().assign(dataset="rosendahl").to_csv(index=False).encode(), **zips}


def publish(contents: Mapping[str, bytes], server: Scripted) -> tuple[RemoteFile, ...]:
    """Put files on a server in the place of Dataverse's; returns them as `dataverse.FILES`, with checksums of these."""
    server.files |= {f"/{file.number}{file.query}": contents[file.name] for file in FILES}
    sizes = {file.name: file.size and len(contents[file.name]) for file in FILES}
    digests = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in contents.items()}
    return tuple(replace(file, md5=digests[file.name], size=sizes[file.name]) for file in FILES)


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack(files: Mapping[str, bytes]) -> bytes:
    """The files as a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
