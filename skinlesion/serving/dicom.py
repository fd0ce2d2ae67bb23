"""DICOM files that somebody hands in: one frame of 8 bits, read by pydicom where it is installed.

Of the header, only what says how the pixels lie is looked at: nothing of a patient is read, logged or answered.
"""

import io
import logging
import warnings
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from skinlesion.serving.upload_checks import NO_COLORS, Upload, UploadError, check_scans, check_shape

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

GREYS = "MONOCHROME2"
COLORS = ("RGB", "YBR_FULL", "YBR_FULL_422", GREYS)
JPEG = "1.2.840.10008.1.2.4.50"  # baseline; JPEG 2000 would be one more decoder that strangers feed
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", JPEG)  # implicit and explicit little endian
# All that is looked at.
TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ExtendedOffsetTable"),
    "ExtendedOffsetTableLengths",
)
# Each item of a sequence becomes an object, and 3 MB can have 400,000. Pixels have these four bytes by chance, but rarely.
ITEM, MAX_ITEMS = b"\xfe\xff\x00\xe0", 1000
COMPRESSED = "This DICOM file is compressed in a way that is not read here: export it uncompressed, or as a JPEG or a PNG."


class _InPieces(io.BytesIO):
    """A file that cannot be read whole, which pydicom does to unpack a deflated one before anything of its size is known."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise UploadError("unsupported-type", COMPRESSED)
        return super().read(size)


def decode_dicom(data: bytes) -> Upload:
    """Decode a DICOM file of at most `skinlesion.serving.uploads.MAX_BYTES` bytes.

    Accepted are images of one frame and 8 bits a channel, RGB, YBR or MONOCHROME2, uncompressed or baseline JPEG. Sizes are
    checked by the header, and by that of the compressed frame, before a pixel is decoded.

    Raises
    ------
    UploadError
        pydicom is not installed, the file is damaged, or it holds something else.
    """
    try:
        import pydicom
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        message = "This is a DICOM file, which is read where pydicom is installed (pip install pydicom): send a JPEG or a PNG."
        raise UploadError("unsupported-type", message) from None
    _keep_quiet()
    if data.count(ITEM) > MAX_ITEMS:
        raise UploadError(
            "broken", f"This DICOM file has more than {MAX_ITEMS} items of sequences: export it again, or as a JPEG."
        )
    try:
        dataset = pydicom.dcmread(_InPieces(data), specific_tags=list(TAGS))
        _check_header(dataset)
        if dataset.file_meta.TransferSyntaxUID == JPEG:
            image = _decode_frame(dataset)
        else:
            image = Image.fromarray(np.ascontiguousarray(pixel_array(dataset), dtype=np.uint8))
    except (UploadError, MemoryError):
        raise
    except Exception as error:  # what pydicom raises for a broken file is listed nowhere
        raise UploadError("broken", "The DICOM file is damaged or incomplete: export or copy it again.") from error
    return Upload(image if image.mode == "RGB" else image.convert("RGB"), (NO_COLORS,) if image.mode == "L" else ())


@cache
def _keep_quiet() -> None:
    """Keep pydicom's words out of the log: they repeat what stands in a header. For good, as threads share what is silenced."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom|skinlesion\.serving\.dicom")


def _check_header(dataset: "FileDataset") -> None:
    """Refuse, by its header, a file that is not a still image of 8 bits, or is too large."""
    if dataset.file_meta.TransferSyntaxUID not in SYNTAXES:
        raise UploadError("unsupported-type", COMPRESSED)
    if "PixelData" not in dataset:
        raise UploadError("unsupported-type", "This DICOM file holds no image: send the image itself.")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UploadError("animated", f"This DICOM file has {frames} frames: send one of them.")
    check_shape(int(dataset.Columns), int(dataset.Rows))
    bits = max(int(dataset.BitsAllocated), int(dataset.BitsStored))
    if bits != 8 or int(dataset.get("PixelRepresentation") or 0) != 0:
        raise UploadError("bit-depth", f"This image has {bits} bits a channel, or a sign: export it with 8, without one.")
    color = str(dataset.PhotometricInterpretation)
    if color not in COLORS or int(dataset.SamplesPerPixel) != (1 if color == GREYS else 3):
        raise UploadError(
            "unsupported-type", f"This DICOM file has colours of a kind that is not read: export it as {', '.join(COLORS)}."
        )


def _decode_frame(dataset: "FileDataset") -> Image.Image:
    """The compressed frame, L or RGB; refused if it is not a JPEG of the size and colours that the header says.

    By Pillow, in whose hands an image is once in memory; pydicom has copies of it while it changes the colours.
    """
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    check_scans(frame)
    with Image.open(io.BytesIO(frame), formats=["JPEG"]) as picture:
        if picture.size != (int(dataset.Columns), int(dataset.Rows)):
            raise UploadError("broken", "The image in this DICOM file has another size than its header says: export it again.")
        if picture.mode != ("L" if dataset.PhotometricInterpretation == GREYS else "RGB"):
            raise UploadError("broken", "The image in this DICOM file has other colours than its header says: export it again.")
        if dataset.PhotometricInterpretation == "RGB" and "adobe_transform" not in picture.info:
            # Nothing in the JPEG says that its colours are RGB, and Pillow would take them for YCbCr: they are left as they are.
            picture.draft("YCbCr", picture.size)
            return Image.frombytes("RGB", picture.size, picture.tobytes())
        picture.load()
        return picture
