"""Files that anybody may hand in: what is decoded to which pixels, what is refused, and what the sender reads."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from skinlesion.data.preparing import Prepared, prepare_image
from skinlesion.serving import uploads
from skinlesion.serving.upload_checks import UploadError
from skinlesion.serving.uploads import decode_upload
from tests.serving.predictor_cases import PNG_END, chunk, encoded, lesion_image, png_header, png_of, with_scans


def png(width: int, height: int, depth: int, color: int, pixels: bytes | None = None) -> bytes:
    """A PNG of any header, its pixels zero if not given."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    rows = pixels if pixels is not None else bytes(height * (1 + width * channels * depth // 8))
    return png_of(png_header(width, height, depth, color), (b"IDAT", zlib.compress(rows)), PNG_END)


@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 60, "subsampling": 2}, {"progressive": True}])
def test_a_jpeg_has_the_pixels_that_prepare_sees(tmp_path: Any, options: dict[str, Any]) -> None:
    data = encoded(lesion_image(), **options)
    (tmp_path / "image.jpg").write_bytes(data)
    prepared = prepare_image(tmp_path / "image.jpg", size=70, fit="crop", color_constancy="none")
    assert isinstance(prepared, Prepared)
    upload = decode_upload(data)
    middle = np.asarray(upload.image.resize((70, 70), Image.Resampling.BILINEAR, box=(10, 0, 80, 70)))
    np.testing.assert_array_equal(middle, prepared.pixels)
    assert upload.notes == ()


def test_a_png_keeps_its_pixels() -> None:
    image = lesion_image(1)
    np.testing.assert_array_equal(np.asarray(decode_upload(encoded(image, "PNG")).image), np.asarray(image))
    palette = image.convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(np.asarray(decode_upload(encoded(palette, "PNG")).image), np.asarray(palette.convert("RGB")))


def test_orientation_is_followed_and_said() -> None:
    image = lesion_image()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees with the clock
    upload = decode_upload(encoded(image, "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(upload.image), np.asarray(image.transpose(Image.Transpose.ROTATE_270)))
    assert upload.notes == ("The image was turned upright, as its EXIF data say.",)
    for upright in (0, 1, 99):
        exif[0x0112] = upright
        assert decode_upload(encoded(image, exif=exif)).notes == ()


def test_transparency_becomes_white_and_is_said() -> None:
    image = lesion_image().convert("RGBA")
    assert decode_upload(encoded(image, "PNG")).notes == ()  # opaque
    image.putalpha(Image.new("L", image.size, 255))
    image.paste((10, 20, 30, 0), (0, 0, 20, 20))
    upload = decode_upload(encoded(image, "PNG"))
    assert upload.image.getpixel((5, 5)) == (255, 255, 255)
    assert upload.image.getpixel((60, 40)) == image.getpixel((60, 40))[:3]  # type: ignore[index]
    assert upload.notes == ("Transparent parts of the image were filled with white.",)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P"])
def test_a_grey_image_is_taken_with_a_note(mode: str) -> None:
    grey = lesion_image().convert("L")
    upload = decode_upload(encoded(grey.convert("RGB").quantize(8) if mode == "P" else grey.convert(mode), "PNG"))
    assert upload.image.mode == "RGB" and "has no colours" in upload.notes[0]
    assert decode_upload(encoded(lesion_image().quantize(8), "PNG")).notes == ()


def test_a_colour_profile_is_mentioned() -> None:
    assert "colour profile" in decode_upload(encoded(lesion_image(), icc_profile=b"Display P3")).notes[0]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode_upload(encoded(lesion_image(), icc_profile=srgb)).notes == ()


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


PHOTO, DRAWING = encoded(lesion_image()), encoded(lesion_image(), "PNG")
LARGE = zlib.compress(bytes(3_000_000))
# Whole pixels with something beside them that Pillow does not take.
BESIDE: dict[str, bytes] = {
    **{
        name: DRAWING[:33] + chunks + DRAWING[33:]
        for name, chunks in {
            "large text": chunk(b"zTXt", b"a\0\0" + LARGE),
            "large XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
            "large profile": chunk(b"iCCP", b"a\0\0" + LARGE),
            "much text": b"".join(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) for _ in range(70)),
            "text with a wrong checksum": chunk(b"tEXt", b"a\0b")[:-1] + b"?",
            "profile of an unknown method": chunk(b"iCCP", b"a\0\7abc"),
            "damaged EXIF": chunk(b"eXIf", b"garbage"),
            "short gamma": chunk(b"gAMA", b"a"),
        }.items()
    },
    "large text at the end": DRAWING[:-12] + chunk(b"zTXt", b"a\0\0" + LARGE) + DRAWING[-12:],
    **{
        f"JPEG, {name}": PHOTO[:2] + data + PHOTO[20:]
        for name, data in {
            "short JFIF": segment(0xE0, b"JFIF\0\1"),
            "short profile": PHOTO[2:20] + segment(0xE2, b"ICC_PROFILE\0"),
            "short Adobe": PHOTO[2:20] + segment(0xEE, b"Adobe"),
            "large profile": PHOTO[2:20] + b"".join(
                segment(0xE2, b"ICC_PROFILE\0" + bytes([part, 40]) + bytes(65_000)) for part in range(1, 41)
            ),
            "damaged EXIF": PHOTO[2:20] + segment(0xE1, b"Exif\0\0garbage"),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_the_pixels_does_not_decide(name: str) -> None:
    upload, plain = decode_upload(BESIDE[name]), decode_upload(PHOTO if name.startswith("JPEG") else DRAWING)
    assert upload.image.tobytes() == plain.image.tobytes()
    assert [note[:30] for note in upload.notes] == (["The image has a colour profile"] if "profile" in name else [])


def test_a_picture_with_a_large_text_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(lesion_image(), "PNG", exif=exif)
    upload = decode_upload(data[:33] + chunk(b"zTXt", b"a\0\0" + LARGE) + data[33:])
    assert upload.image.tobytes() == lesion_image().transpose(Image.Transpose.ROTATE_180).tobytes()


def test_of_a_phones_picture_with_depth_the_first_counts() -> None:
    image = lesion_image()
    data = encoded(image, "MPO", save_all=True, append_images=[lesion_image(5)])
    assert decode_upload(data).image.size == image.size


ANIMATION = encoded(lesion_image(), "PNG", save_all=True, append_images=[lesion_image(1)])
GIF = encoded(lesion_image(), "GIF")


@pytest.mark.parametrize(
    ("data", "reason", "sentence"),
    [
        (b"", "empty", "The file is empty"),
        (b"x" * (uploads.MAX_BYTES + 1), "too-large", "The file has 10.0 MB, more than 10: save it smaller."),
        (GIF, "unsupported-type", "This is a GIF: send a JPEG or a PNG."),
        *((encoded(lesion_image(), kind), "unsupported-type", f"This is a {kind}: send") for kind in ("TIFF", "WebP", "BMP")),
        (b"%PDF-1.7\n", "unsupported-type", "This is a PDF: send"),
        (b"\0\0\0\x18ftypheic" + bytes(90), "unsupported-type", "This is a HEIC or AVIF image, or a video: send"),
        (b"age,sex\n50,male\n", "unsupported-type", "This is not an image of a known kind: send"),
        (b"\n<!DOCTYPE html><html>", "unsupported-type", "This is an HTML page: send"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported-type", "This is a JPEG XL: send"),
        (DRAWING[:8] + chunk(b"CgBI", b"abcd") + DRAWING[8:], "unsupported-type", "This is a PNG for iPhones alone: send"),
        (b"II+\0" + bytes(90), "unsupported-type", "This is a TIFF: send"),
        (PHOTO.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "bit-depth", "This image has 12 bits a channel: save"),
        (PHOTO.replace(b"\xff\xc0", b"\xff\xc3"), "unsupported-type", "This is a lossless JPEG"),
        (PHOTO.replace(b"\xff\xc0", b"\xff\xf7"), "unsupported-type", "This is a lossless JPEG"),
        (encoded(lesion_image())[:1500], "broken", "The file is damaged or incomplete"),
        (encoded(lesion_image(), "PNG")[:3000], "broken", "The file is damaged or incomplete"),
        (png(90, 70, 8, 2, b"nothing like so many rows"), "broken", "The file is damaged or incomplete"),
        (png(60_000, 60_000, 8, 2, b""), "too-many-pixels", "The image has more than 25 megapixels"),
        (png(5001, 5000, 8, 2, b""), "too-many-pixels", "5001 x 5000 pixels, more than 25 megapixels: save it smaller."),
        (encoded(lesion_image(width=49)), "too-small", "has 49 x 70 pixels; each side must have 50: send the original."),
        (ANIMATION, "animated", "This is an animation: send a still image."),
        (encoded(lesion_image().convert("CMYK")), "cmyk", "printing colours (CMYK)"),
        *((png(90, 70, 16, color), "bit-depth", "This image has 16 bits a channel: save it with 8.") for color in (2, 0, 6)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused_says_why(data: bytes, reason: str, sentence: str) -> None:
    with pytest.raises(UploadError) as refused:
        decode_upload(data)
    assert refused.value.reason == reason and sentence in str(refused.value)


GREY = Image.new("L", (90, 70), 150)
HIDDEN = b"\xff\xe1\x00\x08Exif\0\0"


@pytest.mark.parametrize(
    "data",
    [
        with_scans(GREY, 60),
        with_scans(GREY, 60).replace(b"\xff\xda", b"\xff\xff\xda"),
        with_scans(GREY, 60).replace(b"\xff\xda", HIDDEN + b"\xff\xda"),
        with_scans(GREY, 60).replace(b"\xff\xda", b"\xff\x02\xff\xff\xff\xda"),
        encoded(GREY)[:2] + HIDDEN * 3000 + encoded(GREY)[2:],
    ],
    ids=["plain", "filled", "between", "behind a marker that is none", "segments"],
)
def test_a_jpeg_of_scans_without_end_is_not_decoded(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(UploadError, match="This JPEG has more than 50 scans") as refused:
        decode_upload(data)
    assert refused.value.reason == "broken"


def test_scans_that_are_few_or_inside_a_segment_are_taken() -> None:
    assert decode_upload(encoded(lesion_image(), progressive=True)).notes == ()
    assert decode_upload(with_scans(GREY, 30)).image.size == GREY.size
    comment = b"\xff\xfe" + struct.pack(">H", 1002) + b"\xff\xda\0\2" * 250
    data = encoded(lesion_image())
    assert decode_upload(data[:2] + comment + data[2:]).notes == ()
    assert decode_upload(data + b"\xff\xda" * 100).notes == ()  # behind the end, as a phone's further pictures are


def test_the_smallest_and_largest_are_taken() -> None:
    assert decode_upload(encoded(lesion_image(width=50, height=50))).image.size == (50, 50)
    assert decode_upload(png(5000, 5000, 8, 0)).image.size == (5000, 5000)


def test_no_cut_and_no_flipped_byte_gives_anything_but_an_image_or_a_sentence() -> None:
    generator = np.random.default_rng(0)
    for data in (encoded(lesion_image()), encoded(lesion_image(), "PNG")):
        for _ in range(150):
            changed = bytearray(data)
            for place in generator.integers(0, len(data), 3):
                changed[place] = generator.integers(0, 256)
            cut = bytes(changed[: generator.integers(1, len(data) + 1)])
            try:
                assert decode_upload(cut).image.mode == "RGB"
            except UploadError as error:
                assert str(error).endswith(".") and "\n" not in str(error)
