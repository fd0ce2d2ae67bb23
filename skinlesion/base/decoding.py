"""What kind of file some bytes are, for messages; and pictures decoded whatever lies beside their pixels."""

import io
from collections.abc import Callable, Iterator
from typing import TypeVar

from PIL import Image

from skinlesion.base.errors import PipelineError

Result = TypeVar("Result")

# By their beginnings, the longest of those that share one first.
_KINDS = {
    b"\xff\xd8\xff": "a JPEG",
    b"\x89PNG\r\n\x1a\n": "a PNG",
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"II+\0": "a TIFF",
    b"MM\0+": "a TIFF",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive, or an Office file as .xlsx",
    b"\xd0\xcf\x11\xe0": "an old Office file as .xls",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
PICTURES = ("a JPEG", "a PNG", "a DICOM file")  # what can be read here
BEGINNING = 200  # bytes that tell the kind
_MARKUP = {b"<svg": "an SVG", b"<?xml": "an XML file", b"<!doctype": "an HTML page", b"<html": "an HTML page"}
# The chunks of a PNG and the segments of a JPEG that say what its pixels are or how they lie; all others only accompany them.
_OF_PNG = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
_JFIF, _EXIF, _ADOBE = (0xE0, b"JFIF\0", 16), (0xE1, b"Exif\0\0", 8), (0xEE, b"Adobe", 14)  # marker, beginning, least length


def kind_of(data: bytes) -> str | None:
    """The kind of a file that begins so, with an article; None where it is not known."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "a WebP"
    if data[4:8] == b"ftyp":
        return "a HEIC or AVIF image, or a video"
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        return "a BMP"
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if data[12:16] == b"CgBI":
        return "a PNG for iPhones alone"
    text = data[:BEGINNING].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    known = [kind for start, kind in _KINDS.items() if data.startswith(start)]
    return next(iter(known + [kind for start, kind in _MARKUP.items() if text.startswith(start)]), None)


def decode_picture(data: bytes, formats: list[str], use: Callable[[Image.Image], Result]) -> Result:
    """What `use` makes of the picture that Pillow opens as one of `formats`: the bytes must not choose among all decoders.

    Pillow gives a picture up for what accompanies it: a text or a profile that is damaged or unpacks to over a megabyte. So where
    that fails, it is tried once more without.

    Raises
    ------
    Exception
        What Pillow raises for broken pixels, of a dozen kinds, and what `use` raises.
    """
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            return use(image)
    except (PipelineError, MemoryError, Image.DecompressionBombError):
        raise
    except Exception:
        bare = b"".join(_essential_parts(data))
        if len(bare) == len(data):
            raise
    with Image.open(io.BytesIO(bare), formats=formats) as image:
        return use(image)


def _essential_parts(data: bytes) -> Iterator[bytes]:
    """The bytes of a JPEG or PNG without what only accompanies its pixels; those of any other file, and of what is cut, as is."""
    png = data[:8] == b"\x89PNG\r\n\x1a\n"
    position = 8 if png else 2
    yield data[:position]
    while png and position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] in _OF_PNG:
            yield data[position:end]
        position = end
    while data[:2] == b"\xff\xd8" and data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        part = data[position : position + 2 + max(length, 2)]
        position += len(part)
        accompanies = 0xE0 <= marker <= 0xEF or marker == 0xFE
        if not accompanies or any(marker == m and part[4:].startswith(s) and length >= n for m, s, n in (_JFIF, _EXIF, _ADOBE)):
            yield part
    yield data[position:]
