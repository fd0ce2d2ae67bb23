"""What is checked of a file that somebody hands in before its pixels are decoded, and how a file is refused."""

import re
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from skinlesion.artifacts.raw import MAX_PIXELS
from skinlesion.base.errors import PipelineError

MIN_SIDE = 50  # pixels of the shorter side; below, nothing of a lesion's structure is left
# Of a JPEG. A progressive one has about 10 scans, for each of which the decoder goes over all pixels; 100 kB can ask for that
# thousands of times. Segments are those of its colour profile (255), EXIF, tables and scans.
MAX_SCANS, MAX_SEGMENTS = 50, 2000
NO_COLORS = "The image has no colours, and colour is evidence that the classifier needs."  # a note

Reason = Literal[
    "empty", "too-large", "unsupported-type", "broken", "too-many-pixels", "too-small", "animated", "cmyk", "bit-depth"
]

# Beginnings of a frame: all that the decoder knows, and all that are lossless, which it does not.
_FRAMES, _LOSSLESS = (0xC0, 0xC1, 0xC2, 0xC5, 0xC6, 0xC9, 0xCA, 0xCD, 0xCE), (0xC3, 0xC7, 0xCB, 0xCF, 0xF7)
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not the zeros and restarts that belong to the pixels


class UploadError(PipelineError):
    """A file that is refused. `reason` is a word for programs; the message is a sentence for people, without the file's name."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Upload:
    """A decoded image.

    image : RGB, 8 bits a channel, upright.
    notes : sentences on what was done to it that its sender might not expect.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def check_shape(width: int, height: int) -> None:
    """Refuse an image by its sides in pixels."""
    if width * height > MAX_PIXELS:
        most = MAX_PIXELS // 1_000_000
        raise UploadError(
            "too-many-pixels", f"The image has {width} x {height} pixels, more than {most} megapixels: save it smaller."
        )
    if min(width, height) < MIN_SIDE:
        raise UploadError(
            "too-small", f"The image has {width} x {height} pixels; each side must have {MIN_SIDE}: send the original."
        )


def check_scans(data: bytes) -> None:
    """Refuse a JPEG by its kind, scans and segments, before they are decoded. Files that are not JPEGs are accepted unchecked.

    Segments are told apart as libjpeg does (jdmarker.c): by their lengths, and what is between them is skipped. Of markers below
    0xC0, which it may skip as bytes of pixels, no length is believed, as a scan could hide behind one.

    Raises
    ------
    UploadError
        It has more than `MAX_SCANS` scans or `MAX_SEGMENTS` segments, is lossless, or has more than 8 bits a channel.
    """
    if data[:2] != b"\xff\xd8":
        return
    position, scans, segments = 2, 0, 0
    while found := _MARKER.search(data, position):
        kind, position = data[found.start() + 1], found.end()
        if kind in (0xD8, 0xD9):  # the end, or a second beginning, which is an error to libjpeg
            return
        segments += 1
        scans += kind == 0xDA
        if scans > MAX_SCANS or segments > MAX_SEGMENTS:
            raise UploadError("broken", f"This JPEG has more than {MAX_SCANS} scans or {MAX_SEGMENTS} segments: save it anew.")
        if kind in _LOSSLESS:
            raise UploadError("unsupported-type", "This is a lossless JPEG, which is not read here: send a usual JPEG or a PNG.")
        if kind in _FRAMES and (bits := data[position + 2 : position + 3]) > b"\x08":
            raise UploadError("bit-depth", f"This image has {bits[0]} bits a channel: save it with 8.")
        if kind >= 0xC0:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
