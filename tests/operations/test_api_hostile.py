"""Hostile files and requests to the API as a process: an answer or a problem each, in little memory, and the API lives on."""

from __future__ import annotations

import re
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.api.cases import image_file
from tests.operations.api_process import Running, api_process, send_raw
from tests.serving.predictor_cases import encoded, lesion_image, make_workspace, with_scans
from tests.serving.test_dicom import compressed, with_items

pytestmark = pytest.mark.operations

JPEG = image_file()
SETTINGS = {
    "rate_limit": 0,
    "head_seconds": 1,
    "body_seconds": 2,
    "max_connections": 40,
    "max_client_connections": 20,
    "max_body_bytes": 12_000_000,
    "request_seconds": 8,
}
MOST_MEMORY = 300_000_000  # more than it had when ready: two images of 25 megapixels in work


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = make_workspace(tmp_path_factory.mktemp("served"))
    with api_process(root, tmp_path_factory.mktemp("process"), **SETTINGS) as one:
        assert predict(one, JPEG).status_code == 200
        one.before = one.peak_memory()
        yield one
        assert one.stop() == 0
        assert not any(line["level"] == "error" for line in one.log())


def predict(running: Running, *files: bytes, name: str = "a.jpg", route: str = "/predict") -> httpx.Response:
    field = "file" if route == "/explain" else "files"
    return httpx.post(running.url + route, files=[(field, (name, data)) for data in files], timeout=60)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, each with its right checksum."""
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def header(width: int, height: int, depth: int = 8, color: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)


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


def dicom_junk() -> bytes:
    return bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000)


END = (b"IEND", b"")
ROW = zlib.compress(bytes(1 + 3 * 100))
FILES: dict[str, Callable[[], bytes]] = {
    "JPEG cut after the header": lambda: JPEG[:700],
    "JPEG cut in the last tenth": lambda: JPEG[: len(JPEG) * 9 // 10],
    "JPEG with noise inside": lambda: JPEG[:900] + np.random.default_rng(1).bytes(3000) + JPEG[3900:],
    "JPEG that says 65,535 x 65,535": lambda: JPEG.replace(struct.pack(">HH", 70, 90), b"\xff\xff\xff\xff"),
    "JPEG of 25 megapixels and 10,000 scans": lambda: with_scans(Image.new("L", (5000, 5000), 150), 10_000),
    "JPEG of 25 megapixels and 40 scans, which is taken": lambda: with_scans(Image.new("RGB", (5000, 5000), "tan"), 30),
    "PNG that says 2,000,000,000 x 1": lambda: png(header(2_000_000_000, 1), (b"IDAT", ROW), END),
    "PNG of 60,000 x 60,000 zeros": lambda: png(header(60_000, 60_000), (b"IDAT", zeros(100_000_000)), END),
    "PNG with more pixels than its size": lambda: png(header(100, 100), (b"IDAT", zeros(1_000_000_000)), END),
    "PNG with a text of a gigabyte": lambda: png(
        header(100, 100),
        (b"iTXt", b"a\0\1\0\0\0" + zeros(1_000_000_000)),
        (b"zTXt", b"a\0\0" + zeros(1_000_000_000)),
        (b"IDAT", zlib.compress(bytes(301 * 100))),
        END,
    ),
    "PNG with a colour profile of a gigabyte": lambda: png(
        header(100, 100), (b"iCCP", b"a\0\0" + zeros(1_000_000_000)), (b"IDAT", zlib.compress(bytes(301 * 100))), END
    ),
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
    "DICOM of noise": dicom_junk,
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
        response = predict(running, data, route=route)
        assert response.status_code in (200, 413, 415, 422), response.text
        if response.status_code != 200:
            assert response.headers["content-type"] == "application/problem+json" and response.json()["detail"]
    assert time.monotonic() - started < 15
    assert running.peak_memory() - running.before < MOST_MEMORY
    assert predict(running, JPEG).status_code == 200


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "C:\\Windows\\a.jpg", "ä😀\u202egpj.exe", "a;b=c", "a" * 3000, " ", '"', "%00", "a\r\nB: c"]
)
def test_no_name_of_a_file_does_any_harm(running: Running, name: str) -> None:
    response = predict(running, JPEG, name=name)
    assert response.status_code == 200 and len(response.json()["images"][0]["name"]) <= 200


def request(headers: bytes, body: bytes = b"") -> bytes:
    return (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        + headers
        + b"\r\n"
        + body
    )


PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def test_ten_thousand_parts_are_refused_at_the_limit(running: Running) -> None:
    many = [("files", (f"{number}.jpg", b"x")) for number in range(10_000)]
    response = httpx.post(f"{running.url}/predict", files=many, timeout=30)
    assert response.status_code == 413 and response.json()["type"] == "/docs#too-many-files"


def test_a_chunked_body_without_end_is_cut_off(running: Running) -> None:
    sent = [0]

    def endless() -> Iterator[bytes]:
        yield request(b"Transfer-Encoding: chunked\r\n")
        yield b"%x\r\n%s\r\n" % (len(PART), PART)
        while True:
            sent[0] += 100_000
            yield b"%x\r\n%s\r\n" % (100_000, bytes(100_000))

    assert status_of(send_raw(running.port, endless())) == 413
    assert sent[0] < 40_000_000


def test_a_body_or_a_header_that_trickles_is_cut_off(running: Running) -> None:
    def trickle(head: bytes) -> Iterator[bytes]:
        yield head
        for _ in range(60):
            yield b"a"

    started = time.monotonic()
    body = send_raw(running.port, trickle(request(b"Content-Length: 1000\r\n", PART)), pause=0.2)
    assert status_of(body) == 408
    assert send_raw(running.port, trickle(b"GET / HTTP/1.1\r\nA: "), pause=0.2) == b""
    assert send_raw(running.port, [b""]) == b""  # says nothing at all
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (b"Content-Length: 99999999999\r\n", PART, 413),
        (b"Content-Length: 99999999999999999999999\r\n", PART, 400),  # h11 takes twenty digits
        (b"Content-Length: 10\r\nConnection: close\r\n", PART + JPEG, 400),  # cut in the middle of a part
        (b"Content-Length: -1\r\n", b"", 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello", 400),
        (b"Transfer-Encoding: chunked\r\nConnection: close\r\n", b"zz\r\n", 400),
        (b"A: " + b"b" * 40_000 + b"\r\n", b"", 400),
        (b"Content-Length: 10000000\r\nExpect: 100-continue\r\nContent-Type: text/plain\r\nConnection: close\r\n", b"", 415),
    ],
)
def test_a_length_or_header_that_is_not_true_is_a_problem(running: Running, headers: bytes, body: bytes, status: int) -> None:
    answer = send_raw(running.port, [request(headers, body)])
    assert status_of(answer) == status
    assert b"application/problem+json" in answer
    assert predict(running, JPEG).status_code == 200


def test_a_client_that_goes_away_leaves_nothing_behind(running: Running) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(request(b"Content-Length: 100000\r\n", PART))
    assert predict(running, JPEG).status_code == 200
    text = httpx.get(f"{running.url}/metrics").text
    assert "skinlesion_requests_in_work 0.0" in text and "skinlesion_queued_images 0.0" in text


def closed(running: Running, reason: str) -> float:
    """How many connections were closed for a reason so far."""
    text = httpx.get(f"{running.url}/metrics").text
    found = re.search(rf'^skinlesion_connections_closed_total{{reason="{reason}"}} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found else 0


@contextmanager
def many_connections(running: Running, count: int, *, first: int) -> Iterator[list[socket.socket]]:
    """Connections from 127.0.0.x, `first` and on, of ten each."""
    with ExitStack() as stack:
        addresses = [f"127.0.0.{first + number // 10}" for number in range(count)]
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), source_address=(address, 0)))
            for address in addresses
        ]


def test_more_connections_than_the_limit_are_closed_and_the_others_served(running: Running) -> None:
    before = {reason: closed(running, reason) for reason in ("too-many", "too-many-of-client", "slow-head")}
    with many_connections(running, 60, first=2):
        time.sleep(1.5)  # those within the limit have said nothing for longer than headers may take
        assert predict(running, JPEG).status_code == 200
    with many_connections(running, 10, first=2), ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), source_address=("127.0.0.9", 0)))
        assert predict(running, JPEG).status_code == 200
    after = {reason: closed(running, reason) - count for reason, count in before.items()}
    assert after["too-many"] >= 20 and after["too-many-of-client"] == 10 and after["slow-head"] >= 39


def test_a_client_that_does_not_read_is_cut_off(running: Running) -> None:
    before = closed(running, "unread")
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", running.port))
            connection.settimeout(0.5)
            with suppress(TimeoutError):
                connection.sendall(b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000)
        until = time.monotonic() + 4 * SETTINGS["request_seconds"]
        while closed(running, "unread") < before + 10 and time.monotonic() < until:
            time.sleep(0.2)
        assert closed(running, "unread") == before + 10
    assert predict(running, JPEG).status_code == 200


def test_what_a_client_makes_uvicorn_say_is_not_in_the_log_and_has_an_id(running: Running) -> None:
    before = closed(running, "malformed")
    answer = send_raw(running.port, [b"GET / HTTP/1.1\r\nbad header\r\n\r\n"])
    assert status_of(answer) == 400 and re.search(rb"x-request-id: [0-9a-f]{32}\r\n", answer)
    assert closed(running, "malformed") == before + 1
    upgrade = b"GET /health HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n"
    assert status_of(send_raw(running.port, [upgrade])) == 200
    assert not any(line["logger"].startswith("uvicorn") for line in running.log())


def test_the_log_repeats_nothing_of_a_file(running: Running) -> None:
    predict(running, b"secret bytes", name="secret name.jpg")
    assert "secret" not in running.log_file.read_text(encoding="utf-8")
    assert running.log()[-1]["route"] == "/predict"
