"""JPEGs and zip archives, damaged: through `download`, which must refuse or bring them whole, and through `prepare`."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from skinlesion.artifacts.prepared import PREPARED, read_prepared
from skinlesion.artifacts.raw import RAW, image_path
from stages import download, prepare
from tests.conftest import WriteParams
from tests.data.download_cases import HEIGHT, WIDTH, encoded, huge_jpeg, jpeg, kaggle_files, mask, pack, write_files
from tests.properties.mutations import changed_bytes
from tests.properties.outcome import Property, message_of, refused_by_name

ONE = "ISIC_0000003"
SOURCE = Path("source")


def noise(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A picture of noise in any of Pillow's kinds and modes."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return encoded(Image.fromarray(pixels).convert(mode), kind, **options)


def with_segment(marker: int, content: bytes) -> bytes:
    """A JPEG with one more segment behind its first two bytes."""
    whole = jpeg(3)
    return whole[:2] + bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content + whole[2:]


EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter

PICTURES: tuple[bytes, ...] = (
    *(jpeg(3), jpeg(3, "L"), noise("JPEG", "CMYK"), noise("JPEG", progressive=True), noise("JPEG", subsampling=2)),
    *(noise("JPEG", exif=EXIF.tobytes()), noise("JPEG", icc_profile=b"nonsense"), noise("JPEG", quality=1)),
    *(noise("PNG"), noise("PNG", "I;16"), noise("GIF", "P"), noise("BMP"), noise("TIFF"), noise("WEBP"), mask()),
    *(huge_jpeg(), huge_jpeg(5001, 5000), huge_jpeg(65_535, 65_535), huge_jpeg(0, 0), huge_jpeg(1, 1), huge_jpeg(WIDTH, 0)),
    *(with_segment(0xE1, b"Exif\0\0" + b"MM\0*\xff\xff\xff\xff"), with_segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")),
    *(with_segment(0xE2, b"ICC_PROFILE\0\x05\x01x"), with_segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff")),
    *(with_segment(0xDD, b"\0\x01"), with_segment(0xC4, b"\0" * 3), with_segment(0xDB, b"\x10"), with_segment(0xEE, b"Adobe\0d")),
    *(b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"<svg/>", jpeg(3) + jpeg(4), jpeg(3) + pack({"a": b"b"}), bytes(5000)),
)
pictures = st.sampled_from(PICTURES) | st.sampled_from([PICTURES[index] for index in (0, 2, 3, 5)]).flatmap(changed_bytes)


def prepare_source(write_params: WriteParams) -> None:
    write_files(SOURCE, kaggle_files())
    write_params({"download.source": "local", "download.path": "source", "download.expect": "any"})


def clean(message: str | None) -> None:
    """Nothing half-written is there; what came goes, for the next example."""
    there = sorted(path.name for path in Path("data").iterdir())
    assert there == (["raw"] if message is None else []), there
    shutil.rmtree("data")


def judge_download(content: bytes) -> None:
    """An image that `download` takes can be prepared: its pixels are what its bytes say."""
    target = SOURCE / f"HAM10000_images_part_1/{ONE}.jpg"
    target.write_bytes(content)
    message = message_of(download.main)
    refused_by_name(message, ONE)
    if message is None:
        with Image.open(image_path(ONE)) as image:
            image.load()
            assert image.mode == "RGB"
        assert image_path(ONE).read_bytes() == content
        assert message_of(prepare.main) is None
        shutil.rmtree("data/prepared")
    clean(message)


def prepare_raw(write_params: WriteParams) -> None:
    files = {f"images/{path.rpartition('/')[2]}": c for path, c in kaggle_files(masks=False).items() if "part" in path}
    write_files(RAW, files)
    write_params({"prepare.size": 32, "prepare.color_constancy": "shades_of_gray"})
    prepare.main()


def judge_prepare(content: bytes) -> None:
    """What cannot be decoded is named, and the array of before stays; what can has its size in the index."""
    before = (PREPARED / "images.npy").read_bytes()
    image_path(ONE).write_bytes(content)
    message = message_of(prepare.main)
    refused_by_name(message, ONE)
    if message is not None:
        assert (PREPARED / "images.npy").read_bytes() == before
    assert read_prepared().images.shape == (10, 32, 32, 3)
    assert [path.name for path in Path("data").iterdir() if "partial" in path.name] == []


def judge_archive(layout: str, content: bytes) -> None:
    """A damaged archive is refused under its name, or what it holds is still checked image by image."""
    (SOURCE / "images.zip").write_bytes(content)
    message = message_of(download.main)
    refused_by_name(message, "images.zip", "ISIC_", "holds no images")
    clean(message)


def prepare_archive(write_params: WriteParams) -> None:
    prepare_source(write_params)
    for folder in SOURCE.glob("HAM10000_images*"):
        shutil.rmtree(folder)


ARCHIVE = pack({path: content for path, content in kaggle_files().items() if "images" in path})
# Damage where an archive says what it holds, which bytes drawn at random would hardly hit.
BEHIND = ARCHIVE.index(b"PK\x01\x02")
directories = changed_bytes(ARCHIVE[BEHIND:]).map(lambda directory: ARCHIVE[:BEHIND] + directory)

PROPERTIES = (
    Property("an image in download", prepare_source, pictures, judge_download, cost=3),
    Property("an image in prepare", prepare_raw, pictures, judge_prepare, cost=2),
    Property("an archive in download", prepare_archive, changed_bytes(ARCHIVE), partial(judge_archive, "any"), cost=4),
    Property("an archive's directory in download", prepare_archive, directories, partial(judge_archive, "directory"), cost=4),
)
