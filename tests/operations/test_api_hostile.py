"""Hostile files to the API as a process: an answer or a problem each, in little memory, and the API lives on."""

import struct
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from tests.api.cases import image_file
from tests.operations.api_process import Running, api_process
from tests.serving.predictor_cases import PNG_END as END
from tests.serving.predictor_cases import encoded, lesion_image, make_workspace, with_scans
from tests.serving.predictor_cases import png_header as header
from tests.serving.predictor_cases import png_of as png
from tests.serving.test_dicom import compressed, with_items

pytestmark = pytest.mark.operations

JPEG = image_file()
MOST_MEMORY = 300_000_000  # more than it had when ready: two images of 25 megapixels in work


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = make_workspace(tmp_path_factory.mktemp("served"))
    with api_process(root, tmp_path_factory.mktemp("process"), rate_limit=0) as one:
        assert one.predict(JPEG).status_code == 200
        one.before = one.peak_memory()
        yield one
        assert one.stop() == 0
        assert not any(line["level"] == "ERROR" for line in one.log())


def zeros(size: int) -> bytes:
    """Compressed zeros, a thousandth of their size."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)) + packer.flush()


def with_exif(content: bytes) -> bytes:
    segment = b"Exif\0\0" + content
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + JPEG[2:]


def exif_loop() -> bytes:
    """A directory whose next directory is itself, with an orientation that is none and a count that cannot be."""
    entry = struct.pack("<HHII", 0x0112, 3, 0xFFFFFFFF, 99) + struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + entry + struct.pack("<I", 8)


ROW = zlib.compress(bytes(1 + 3 * 100))
PIXELS = (b"IDAT", zlib.compress(bytes(301 * 100)))  # of 100 x 100
GIGABYTE = 1_000_000_000
FILES: dict[str, Callable[[], bytes]] = {
    "JPEG cut after the header": lambda: JPEG[:700],
    "JPEG cut in the last tenth": lambda: JPEG[: len(JPEG) * 9 // 10],
    "JPEG with noise inside": lambda: JPEG[:900] + np.random.default_rng(1).bytes(3000) + JPEG[3900:],
    "JPEG that says 65,535 x 65,535": lambda: JPEG.replace(struct.pack(">HH", 70, 90), b"\xff\xff\xff\xff"),
    "JPEG of 25 megapixels and 10,000 scans": lambda: with_scans(Image.new("L", (5000, 5000), 150), 10_000),
    "JPEG of 25 megapixels and 40 scans, which is taken": lambda: with_scans(Image.new("RGB", (5000, 5000), "tan"), 30),
    "PNG that says 2,000,000,000 x 1": lambda: png(header(2_000_000_000, 1), (b"IDAT", ROW), END),
    "PNG of 60,000 x 60,000 zeros": lambda: png(header(60_000, 60_000), (b"IDAT", zeros(100_000_000)), END),
    "PNG with more pixels than its size": lambda: png(header(100, 100), (b"IDAT", zeros(GIGABYTE)), END),
    "PNG with a text of a gigabyte": lambda: png(
        *(header(100, 100), (b"iTXt", b"a\0\1\0\0\0" + zeros(GIGABYTE)), (b"zTXt", b"a\0\0" + zeros(GIGABYTE)), PIXELS, END)
    ),
    "PNG with a colour profile of a gigabyte": lambda: png(header(100, 100), (b"iCCP", b"a\0\0" + zeros(GIGABYTE)), PIXELS, END),
    "PNG without pixels": lambda: png(header(100, 100), END),
    "PNG of size 0": lambda: png(header(0, 0), END),
    "PNG with a length beyond its end": lambda: png(header(100, 100))[:33] + b"\xff\xff\xff\xffIDAT",
    "GIF called JPEG": lambda: encoded(lesion_image(), "GIF"),
    "SVG with a script": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "XML that expands": lambda: b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa">]><a>&a;</a>',
    "JPEG and zip in one": lambda: JPEG + b"PK\x03\x04" + bytes(100),
    "PDF and JPEG in one": lambda: b"%PDF-1.7\n" + JPEG,
    "JPEG with EXIF that loops": lambda: with_exif(exif_loop()),
    "JPEG with EXIF of noise": lambda: with_exif(b"II*\0\x08\0\0\0" + np.random.default_rng(2).bytes(9000)),
    "JPEG with a colour profile of noise": lambda: encoded(lesion_image(), icc_profile=np.random.default_rng(3).bytes(100_000)),
    "PNG with a colour profile of noise": lambda: encoded(lesion_image(), "PNG", icc_profile=b"junk"),
    "DICOM of noise": lambda: bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000),
    "DICOM of nothing": lambda: bytes(128) + b"DICM",
    "DICOM of 400,000 items": lambda: with_items(400_000),
    "DICOM with a JPEG of 25 megapixels": lambda: compressed(Image.new("RGB", (5000, 5000), "tan"), Rows=5000, Columns=5000),
    "noise": lambda: np.random.default_rng(4).bytes(50_000),
    "25 megapixels": lambda: encoded(Image.new("RGB", (6250, 4000)), "PNG"),
    "25 megapixels with alpha": lambda: encoded(Image.new("RGBA", (6250, 4000)), "PNG"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_gets_an_answer_or_a_problem_in_little_time_and_memory(running: Running, name: str) -> None:
    data = FILES[name]()
    assert len(data) < 10_000_000
    started = time.monotonic()
    for route in ("/predict", "/explain"):
        response = running.predict(data, route=route)
        assert response.status_code in (200, 413, 415, 422), response.text
        if response.status_code != 200:
            assert response.headers["content-type"] == "application/problem+json" and response.json()["detail"]
    assert time.monotonic() - started < 15
    assert running.peak_memory() - running.before < MOST_MEMORY
    assert running.predict(JPEG).status_code == 200


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "C:\\Windows\\a.jpg", "ä😀\u202egpj.exe", "a;b=c", "a" * 3000, " ", '"', "%00", "a\r\nB: c"]
)
def test_no_name_of_a_file_does_any_harm(running: Running, name: str) -> None:
    response = running.predict(JPEG, name=name)
    assert response.status_code == 200 and len(response.json()["images"][0]["name"]) <= 200


def test_ten_thousand_parts_are_refused_at_the_limit(running: Running) -> None:
    response = running.predict(*[b"x"] * 10_000)
    assert response.status_code == 413 and response.json()["type"] == "/docs#too-many-files"


def test_the_log_repeats_nothing_of_a_file(running: Running) -> None:
    running.predict(b"secret bytes", name="secret name.jpg")
    assert "secret" not in running.log_file.read_text(encoding="utf-8")
    line = running.log()[-1]
    assert (line["route"], line["level"], len(line["id"])) == ("/predict", "INFO", 32)
    assert line.keys() == {"time", "level", "logger", "message", "id", "client", "method", "route", "status", "ms"}
