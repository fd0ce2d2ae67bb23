"""`skinlesion.data.sources.transfer.fetch` against a server that cuts, lies, refuses and stalls."""

import errno
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from skinlesion.data.sources import transfer
from skinlesion.data.sources.transfer import fetch
from tests.conftest import refuses
from tests.data.scripted_server import Answer, Scripted, serve

CONTENT = hashlib.shake_128(b"an archive").digest(100_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(transfer, "PIECE", 1000)
    with serve() as scripted:
        scripted.files["/file"] = CONTENT
        yield scripted


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of waiting, the seconds are noted here."""
    seconds: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", seconds.append)
    return seconds


def get(server: Scripted, target: Path, size: int | None = len(CONTENT)) -> bytes:
    fetch(f"{server.url}/file", target, md5=MD5, size=size)
    assert not target.with_name("file.part").exists()
    return target.read_bytes()


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_cut_download_goes_on_where_it_stopped(server: Scripted, waits: list[float], tmp_path: Path, size: int | None) -> None:
    server.answers = [Answer(cut_after=40_000), Answer(cut_after=25_000)]
    assert get(server, tmp_path / "sub" / "file", size) == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=40000-", "bytes=65000-"]
    assert waits == [1.0, 1.0]  # both tries brought something


def test_an_earlier_run_is_continued_and_a_finished_file_not_asked_for_again(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:99_000])
    assert get(server, tmp_path / "file") == CONTENT
    assert get(server, tmp_path / "file") == CONTENT
    assert server.asked == [("/file", "bytes=99000-")]


@pytest.mark.parametrize(("size", "requests"), [(len(CONTENT), 0), (None, 1)])
def test_a_partial_that_is_already_complete(server: Scripted, tmp_path: Path, size: int | None, requests: int) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert get(server, tmp_path / "file", size) == CONTENT  # without a known size the server answers 416
    assert len(server.asked) == requests


def test_a_partial_that_is_too_long_is_begun_anew(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    assert get(server, tmp_path / "file") == CONTENT
    assert server.asked == [("/file", None)]


@pytest.mark.parametrize(
    "bad",
    [
        Answer(ignore_range=True, cut_after=30_000),  # cut before it came to anything new: what is here stays
        Answer(ignore_range=True),
        Answer(content_range="bytes 0-99999/100000", whole=True),
        Answer(content_range="nonsense"),
        Answer(content_range="bytes 50000-99999/99"),
        Answer(status=416),
    ],
)
def test_a_server_that_does_not_resume_properly(server: Scripted, waits: list[float], tmp_path: Path, bad: Answer) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:50_000])
    server.answers = [bad]
    assert get(server, tmp_path / "file") == CONTENT


def test_a_server_that_cannot_send_parts_is_asked_for_the_whole(server: Scripted, waits: list[float], tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:50_000])
    server.always = Answer(content_range="nonsense")
    assert get(server, tmp_path / "file") == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=50000-", None]


def test_a_server_that_ignores_range_and_cuts_later_each_time(server: Scripted, waits: list[float], tmp_path: Path) -> None:
    server.answers = [Answer(ignore_range=True, cut_after=number * 9_000) for number in range(1, 12)]
    assert get(server, tmp_path / "file") == CONTENT


@pytest.mark.parametrize(
    "bad",
    [
        Answer(status=503),
        Answer(status=429),
        Answer(headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<p>Maintenance</p>", chunked=True),
        Answer(announced=12, cut_after=12),
        Answer(announced=100_007),
    ],
)
def test_what_is_tried_again_with_growing_waits(server: Scripted, waits: list[float], tmp_path: Path, bad: Answer) -> None:
    server.answers = [bad, bad, bad]
    assert get(server, tmp_path / "file") == CONTENT
    assert waits == [1.0, 2.0, 4.0]


def test_retry_after_is_honoured_within_bounds(server: Scripted, waits: list[float], tmp_path: Path) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for value in ("0", "7", "86400", later, "soon"):
        server.answers.append(Answer(status=429, headers={"Retry-After": value}))
    assert get(server, tmp_path / "file") == CONTENT
    assert waits[:3] == [0.0, 7.0, 600.0]
    assert 80 <= waits[3] <= 91
    assert waits[4] == 16.0  # the fifth failure, nothing usable asked for


def test_many_cuts_with_progress_are_no_reason_to_give_up(server: Scripted, waits: list[float], tmp_path: Path) -> None:
    server.answers = [Answer(cut_after=2_000)] * 45
    assert get(server, tmp_path / "file") == CONTENT
    assert len(server.asked) == 46 > transfer.TRIES


def test_without_progress_it_gives_up_and_keeps_the_partial(server: Scripted, waits: list[float], tmp_path: Path) -> None:
    server.answers = [Answer(cut_after=5_000)]
    server.always = Answer(status=503)
    refuses(r"file: 8 tries in a row brought nothing .*HTTP 503.*5,000 bytes .* are kept", get, server, tmp_path / "file")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:5_000]
    assert waits == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]


def test_a_server_that_cannot_be_reached(waits: list[float], tmp_path: Path) -> None:
    address = "http://127.0.0.1:9/file"
    refuses(rf"brought nothing from {address} \(ConnectionError", fetch, address, tmp_path / "file", md5=MD5)


def test_stall_is_cut_and_resumed(server: Scripted, waits: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the server's silence needs the real clock
    monkeypatch.setattr(transfer, "TIMEOUT", (5.0, 0.1))
    monkeypatch.setattr(transfer, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(transfer, "PIECE", 1000)
    server.answers = [Answer(stall=0.4)]
    assert get(server, tmp_path / "file") == CONTENT
    assert server.asked[1] == ("/file", "bytes=99000-")  # what had not filled a piece is lost, no more


@pytest.mark.parametrize(("status", "reason"), [(404, "no such file"), (403, "refused"), (401, "account"), (400, "Bad Request")])
def test_a_refusal_is_final(server: Scripted, tmp_path: Path, status: int, reason: str) -> None:
    server.always = Answer(status=status)
    refuses(rf"/file cannot be downloaded: HTTP {status} \(.*{reason}", get, server, tmp_path / "file")
    assert len(server.asked) == 1


def test_wrong_bytes_are_deleted(server: Scripted, tmp_path: Path) -> None:
    server.files["/file"] = CONTENT[:-1] + b"!"
    refuses(rf"file has the MD5 [0-9a-f]{{32}}, and {MD5} is published.*was deleted", get, server, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_file_damaged_since_is_downloaded_again(server: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"damaged")
    assert get(server, tmp_path / "file") == CONTENT
    assert server.asked == [("/file", None)] and "file is damaged: its MD5 is not" in caplog.text


def test_more_bytes_than_published_stop_the_download(server: Scripted, tmp_path: Path) -> None:
    server.always = Answer(body=CONTENT + CONTENT, chunked=True)
    refuses("sends more than the 100,000 bytes", get, server, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_reason_to_try_again(server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = iter([CONTENT[:3000]])

    def full(*arguments: object) -> Iterator[bytes]:
        yield from pieces
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "_from_byte", full)
    with pytest.raises(OSError, match="No space left"):
        get(server, tmp_path / "file")
    assert len(server.asked) == 1
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:3000]  # for the next run
    monkeypatch.undo()
    assert get(server, tmp_path / "file") == CONTENT
