"""Images that somebody hands in, decoded without trusting them: what is accepted, what is refused, and why.

`prepare` decodes what the pipeline downloaded; this decodes what anybody may send. An RGB JPEG gives the same pixels in both.
"""

import numpy as np
from PIL import Image

from skinlesion.artifacts.raw import MAX_PIXELS
from skinlesion.base.decoding import decode_picture, kind_of
from skinlesion.serving.upload_checks import NO_COLORS, Upload, UploadError, check_scans, check_shape

MAX_BYTES = 10_000_000  # of one file
FORMATS = ["JPEG", "PNG"]  # and DICOM where pydicom is installed
GREY = ("1", "L", "LA")
# What EXIF calls orientation, and what turns such an image upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What is meant to be an image, of which the bytes say what it is.
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".dcm")


def decode_upload(data: bytes) -> Upload:
    """Decode one file.

    Turned as its EXIF orientation says, which cameras write and viewers follow. A transparent image is laid on white. Of a file
    with several pictures, as phones write them for depth, the first counts; an animation is refused.

    Raises
    ------
    UploadError
        The file is empty, larger than `MAX_BYTES`, not a JPEG, PNG or (where pydicom is installed) DICOM, damaged, has more than
        `MAX_PIXELS` pixels or a side below `MIN_SIDE`, is an animation, CMYK, or has 16 bits a channel; or a JPEG has more than
        `MAX_SCANS` scans.
    """
    check_size(len(data))
    if data[128:132] == b"DICM":
        from skinlesion.serving.dicom import decode_dicom  # only for such files: it needs a package that need not be there

        return _checked(decode_dicom(data))
    check_scans(data)
    kind = kind_of(data)
    if kind not in ("a JPEG", "a PNG"):
        raise UploadError("unsupported-type", f"This is {kind or 'not an image of a known kind'}: send a JPEG or a PNG.")
    try:
        # The decoder is chosen by the bytes and among two: every further format is a further decoder that strangers feed.
        return decode_picture(data, FORMATS, lambda file: _checked(_decode(file, data)))
    except UploadError:
        raise
    except MemoryError:
        raise
    except Image.DecompressionBombError:  # of so many pixels Pillow does not even tell the size
        most = MAX_PIXELS // 1_000_000
        raise UploadError("too-many-pixels", f"The image has more than {most} megapixels: save it smaller.") from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds for broken data
        raise UploadError("broken", "The file is damaged or incomplete: export or copy it again.") from error


def check_size(size: int) -> None:
    """Refuse a file by its size in bytes, which can be done before it is read.

    Raises
    ------
    UploadError
        It is empty or larger than `MAX_BYTES`.
    """
    if size == 0:
        raise UploadError("empty", "The file is empty: export or copy it again.")
    if size > MAX_BYTES:
        raise UploadError("too-large", f"The file has {size / 1e6:.1f} MB, more than {MAX_BYTES // 1_000_000}: save it smaller.")


def _decode(file: Image.Image, data: bytes) -> Upload:
    """What Pillow opened, as an upright RGB image of 8 bits a channel. Its size is looked at before its pixels are."""
    check_shape(*file.size)
    # A MPO is a JPEG with further pictures behind it.
    if file.format == "PNG" and getattr(file, "is_animated", False):
        raise UploadError("animated", "This is an animation: send a still image.")
    if file.mode == "CMYK":
        raise UploadError("cmyk", "This image has printing colours (CMYK), whose look depends on a printer: save it as RGB.")
    if file.format == "PNG" and data[24] > 8:  # the bit depth in the header; Pillow would cut the lower bits off in silence
        raise UploadError("bit-depth", f"This image has {data[24]} bits a channel: save it with 8.")
    notes = []
    image: Image.Image = file
    palette = np.array(file.getpalette("RGB") if file.mode == "P" else [0, 0, 1]).reshape(-1, 3)
    if file.mode in GREY or (palette == palette[:, :1]).all():
        notes.append(NO_COLORS)
    # A damaged one is there too.
    there = b"ICC_PROFILE\0" in data or b"iCCP" in data[: data.find(b"IDAT")]
    profile = file.info.get("icc_profile") or (b"" if there else b"sRGB")
    if b"sRGB" not in profile.replace(b"\0", b""):  # its name is in one or two bytes a letter, by the profile's version
        notes.append("The image has a colour profile of its own, which is not applied: its colours may be taken for others.")
    if turn := TURNS.get(_orientation(file)):
        image = file.transpose(turn)
        notes.append("The image was turned upright, as its EXIF data say.")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.histogram()[255] < alpha.width * alpha.height:
            notes.append("Transparent parts of the image were filled with white.")
        # Pasted rather than composed, and below not converted where that only copies: a copy of 25 megapixels is 100 MB.
        filled = Image.new("RGB", image.size, "white")
        filled.paste(image, mask=alpha)
        image = filled
    image.load()  # a file reads its pixels when they are first looked at, and is closed before
    return Upload(image if image.mode == "RGB" else image.convert("RGB"), tuple(notes))


def _orientation(file: Image.Image) -> int:
    """As EXIF or XMP say; 1, which is upright, where they are damaged, as viewers do."""
    try:
        return int(file.getexif().get(0x0112, 1))
    except Exception:  # what is beside the pixels does not decide whether they are taken
        return 1


def _checked(upload: Upload) -> Upload:
    check_shape(*upload.image.size)
    return upload
