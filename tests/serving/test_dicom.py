"""DICOM files, made by pydicom itself: pictures are read, refusals say why, and no bomb is unpacked before its size is known."""

import builtins
import io
import logging
import zlib
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from skinlesion.serving.upload_checks import UploadError
from skinlesion.serving.uploads import MAX_BYTES, decode_upload
from tests.serving.predictor_cases import encoded, lesion_image, with_scans

IMAGE = lesion_image()
PIXELS = np.asarray(IMAGE)
NAME = "Doe^Jane"


def make_dicom(
    data: bytes = PIXELS.tobytes(), *, syntax: str = uid.ExplicitVRLittleEndian, without: tuple[str, ...] = (), **overrides: Any
) -> bytes:
    """A file of `PIXELS`, or of what `data` and the overrides of its header make of it."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.CTImageStorage, uid.generate_uid()
    dataset.PatientName, dataset.PatientAge, dataset.PatientSex = NAME, "070Y", "F"
    header = {"Rows": 70, "Columns": 90, "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    header |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    for name, value in (header | overrides).items():
        if name not in without:
            setattr(dataset, name, value)
    if "PixelData" not in without:
        dataset.PixelData = data
        dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def around(frame: bytes, **overrides: Any) -> bytes:
    """A file of a JPEG's bytes."""
    color = {"PhotometricInterpretation": "YBR_FULL_422"}
    return make_dicom(encapsulate([frame]), syntax=uid.JPEGBaseline8Bit, **color | overrides)


def compressed(image: Image.Image = IMAGE, **overrides: Any) -> bytes:
    grey = {} if image.mode == "RGB" else {"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1}
    return around(encoded(image, quality=95), **grey | overrides)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_an_uncompressed_image_is_read_as_it_is(syntax: str) -> None:
    upload = decode_upload(make_dicom(syntax=syntax))
    assert upload.image.mode == "RGB" and upload.notes == ()
    np.testing.assert_array_equal(np.asarray(upload.image), PIXELS)
    planes = make_dicom(PIXELS.transpose(2, 0, 1).tobytes(), PlanarConfiguration=1)
    np.testing.assert_array_equal(np.asarray(decode_upload(planes).image), PIXELS)


def test_other_colours_become_rgb() -> None:
    ybr = np.asarray(IMAGE.convert("YCbCr"))
    read = np.asarray(decode_upload(make_dicom(ybr.tobytes(), PhotometricInterpretation="YBR_FULL")).image).astype(int)
    assert np.abs(read - PIXELS).max() <= 3
    grey = np.asarray(IMAGE.convert("L"))
    upload = decode_upload(make_dicom(grey.tobytes(), PhotometricInterpretation="MONOCHROME2", SamplesPerPixel=1))
    np.testing.assert_array_equal(np.asarray(upload.image)[..., 1], grey)
    assert "no colours" in upload.notes[0]


def test_a_jpeg_inside_is_the_jpeg_alone() -> None:
    alone = np.asarray(decode_upload(encoded(IMAGE, quality=95)).image).astype(int)
    inside = np.asarray(decode_upload(compressed()).image).astype(int)
    np.testing.assert_array_equal(inside, alone)
    assert "no colours" in decode_upload(compressed(IMAGE.convert("L"))).notes[0]


def deflated(size: int) -> bytes:
    """A file whose data set unpacks to `size` zeros."""
    whole = make_dicom(syntax=uid.DeflatedExplicitVRLittleEndian)
    header = 132 + 12 + int.from_bytes(whole[140:144], "little")  # preamble, the length of the file's own header, that header
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return whole[:header] + packer.compress(bytes(size)) + packer.flush()


def with_items(count: int) -> bytes:
    """A file with a sequence of empty items, without a length, before its image."""
    whole, rows = make_dicom(), b"\x28\x00\x02\x00US"  # the first element of the image's group
    items = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * count + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return whole[: whole.index(rows)] + items + whole[whole.index(rows) :]


def test_a_jpeg_inside_has_the_colours_that_its_header_says() -> None:
    planes = Image.merge("YCbCr", IMAGE.split())  # stored so: Pillow transforms no YCbCr, and nothing says that it is RGB
    stored = around(encoded(planes, quality=100, subsampling=0), PhotometricInterpretation="RGB")
    assert np.abs(np.asarray(decode_upload(stored).image).astype(int) - PIXELS).max() <= 6


def test_some_items_are_read(recwarn: pytest.WarningsRecorder) -> None:
    np.testing.assert_array_equal(np.asarray(decode_upload(with_items(900)).image), PIXELS)


REFUSED: dict[str, tuple[bytes, str, str]] = {
    "frames": (make_dicom(PIXELS.tobytes() * 2, NumberOfFrames=2), "animated", "2 frames"),
    "16 bits": (make_dicom(bytes(2 * PIXELS.size), BitsAllocated=16, BitsStored=12, HighBit=11), "bit-depth", "16 bits"),
    "signed": (make_dicom(PixelRepresentation=1), "bit-depth", "sign"),
    "huge": (make_dicom(Rows=60_000, Columns=60_000), "too-many-pixels", "60000 x 60000"),
    "small": (make_dicom(bytes(40 * 40 * 3), Rows=40, Columns=40), "too-small", "40 x 40"),
    **{
        kind: (make_dicom(PhotometricInterpretation=kind, SamplesPerPixel=1), "unsupported-type", "colours of a kind")
        for kind in ("MONOCHROME1", "PALETTE COLOR")
    },
    "run lengths": (make_dicom(encapsulate([b"0" * 64]), syntax=uid.RLELossless), "unsupported-type", "compressed in a way"),
    "deflated": (deflated(100), "unsupported-type", "compressed in a way"),
    "no image": (make_dicom(without=("PixelData",)), "unsupported-type", "holds no image"),
    "no size": (make_dicom(without=("Rows",)), "broken", "damaged"),
    "cut": (make_dicom()[:-100], "broken", "damaged"),
    "no pixels": (make_dicom(b""), "broken", "damaged"),
    "larger inside": (around(encoded(Image.new("RGB", (5200, 5200)))), "broken", "another size than its header"),
    "scans without end": (around(with_scans(IMAGE, 60)), "broken", "more than 50 scans"),
    "items without end": (with_items(400_000), "broken", "more than 1000 items"),
    "grey inside": (around(encoded(IMAGE.convert("L"))), "broken", "other colours than its header"),
    "PNG inside": (around(encoded(IMAGE, "PNG"), PhotometricInterpretation="RGB"), "broken", ""),
    "noise": (bytes(128) + b"DICM" + np.random.default_rng(0).bytes(3000), "broken", "damaged"),
    "nothing": (bytes(128) + b"DICM", "broken", "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_a_sentence(name: str) -> None:
    data, reason, message = REFUSED[name]
    with pytest.raises(UploadError) as raised:
        decode_upload(data)
    assert raised.value.reason in ((reason, "unsupported-type") if name in ("noise", "nothing") else (reason,))
    assert message in str(raised.value) or name in ("noise", "nothing")
    assert NAME not in str(raised.value)


def test_a_file_that_unpacks_to_gigabytes_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = deflated(1_000_000_000)
    assert len(bomb) < MAX_BYTES
    monkeypatch.setattr(zlib, "decompress", None)
    with pytest.raises(UploadError, match="compressed in a way"):
        decode_upload(bomb)


def test_nothing_of_the_patient_is_told(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    whole, odd = make_dicom(), make_dicom(PhotometricInterpretation=NAME)
    recwarn.clear()
    with caplog.at_level(logging.DEBUG):
        upload = decode_upload(whole)
        with pytest.raises(UploadError):
            decode_upload(odd)
    assert NAME not in caplog.text and not any(NAME in str(warning.message) for warning in recwarn)
    assert NAME not in repr(upload.image.info)


def test_without_pydicom_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "pydicom":
            raise ImportError(name)
        return real(name, *args, **options)

    whole = make_dicom()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UploadError, match="pip install pydicom") as raised:
        decode_upload(whole)
    assert raised.value.reason == "unsupported-type"
