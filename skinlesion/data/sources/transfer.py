"""Download one large file over HTTP on a line that may be slow, cut or refused, and trust it only by its checksum."""

import logging
import re
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import InvalidHeader, MaxRetryError
from urllib3.util import Retry

from skinlesion.base.errors import PipelineError
from skinlesion.base.files import file_digest
from skinlesion.base.web import is_page, name_response, user_agent

logger = logging.getLogger(__name__)

TRIES = 8  # in a row that bring no further byte, before giving up; with the waits below about two minutes
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; doubled after each such try
LONGEST_RETRY_AFTER = 600  # seconds; what a server may ask for at most
# Counted by hand and not by requests, which would not see a body that is cut, nor go on within the file.
RETRY = Retry(TRIES - 1, backoff_factor=FIRST_WAIT, backoff_max=LONGEST_WAIT, retry_after_max=LONGEST_RETRY_AFTER)
TIMEOUT = (30.0, 60.0)  # seconds without a connection, without a byte
PIECE = 16 * 1024  # bytes; what a cut can cost, so that a slow line which is cut often still comes forward


class NotSentError(PipelineError):
    """The server answers, and not with the file that is published: it was refused, or other bytes came."""


class _Interrupted(Exception):
    """A try ended before the file did, and another may go on: why, the wait that the server asks for, whether Range works."""

    def __init__(self, cause: str, retry_after: float | None = None, *, range_works: bool = True) -> None:
        super().__init__(cause)
        self.retry_after = retry_after
        self.range_works = range_works


def fetch(url: str, target: Path, *, md5: str, size: int | None = None, way_out: str = "") -> None:
    """Download `url` to `target`, going on from `<target>.part` where an earlier try or run was cut.

    A target that is there and has the checksum is kept, without a request; a damaged one is deleted and downloaded again.
    Repeated with exponential back-off on cuts, stalls, HTTP 408, 429 and 5xx, for as long as tries bring further bytes; after
    `TRIES` in a row that bring none it gives up and keeps the partial file for the next run.

    Parameters
    ----------
    url : of the file.
    target : where it goes.
    md5 : hexadecimal checksum of the whole file.
    size : in bytes, if it is known.
    way_out : what else may help, a sentence for the messages of a server that refuses or sends nothing.

    Raises
    ------
    NotSentError
        Refused by the server, or not the bytes that the checksum promises (the file is deleted then).
    PipelineError
        No progress.
    """
    if target.exists():
        if file_digest(target, "md5") == md5:
            return
        logger.warning("%s is damaged: its MD5 is not %s; it is downloaded again", target, md5)
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    if size is not None and _length(partial) > size:
        partial.unlink()
    retry, range_works = RETRY, True
    with tqdm(total=size, initial=_length(partial), unit="B", unit_scale=True, desc=target.name, disable=None) as bar:
        while size is None or _length(partial) < size:
            before = _length(partial)
            try:
                _go_on(url, partial, size, range_works=range_works, bar=bar, way_out=way_out)
                break
            except _Interrupted as interruption:
                range_works = interruption.range_works
                try:
                    retry = RETRY if _length(partial) > before else retry.increment(url=url, error=interruption)
                except MaxRetryError:
                    raise PipelineError(
                        f"{target.name}: {TRIES} tries in a row brought nothing from {url} ({interruption}). The "
                        f"{_length(partial):,} bytes that are here are kept: run the same command again later to go on. "
                        f"{way_out}".rstrip()
                    ) from None
                _wait(interruption, retry, target.name, _length(partial))
    _verify(partial, target.name, md5)
    partial.replace(target)


def _go_on(url: str, partial: Path, size: int | None, *, range_works: bool, bar: tqdm, way_out: str) -> None:
    """One request: append to `partial` what it lacks. Returns when the file has ended, raises `_Interrupted` otherwise."""
    have = _length(partial)
    start = have if range_works else 0
    # A compressed body would be counted in other bytes than those of the file.
    headers = {"Accept-Encoding": "identity", "User-Agent": user_agent()} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            status, pieces = response.status_code, response.iter_content(PIECE)
            if status == 416 and size is None:
                return  # nothing is left to send; the checksum decides
            first = next(pieces, b"") if status == 200 else b""  # a part of a file may well begin as a page does
            pieces = chain([first], pieces)
            if status != 416 and (status not in (200, 206) or is_page(first, response.headers.get("Content-Type"))):
                raise _not_the_file(response, pieces, way_out)
            start = _first_byte(response, start, size)
            with partial.open("ab") as file:
                for piece in _from_byte(pieces, have - start):
                    file.write(piece)
                    have += len(piece)
                    bar.update(len(piece))
                    if size is not None and have > size:
                        break
    except requests.RequestException as error:
        raise _Interrupted(f"{type(error).__name__}: {error}") from None
    if size is not None and have > size:
        partial.unlink()
        raise PipelineError(f"{url} sends more than the {size:,} bytes that are published; what had come was deleted")
    if size is not None and have < size:
        raise _Interrupted(f"it ended after {have:,} of {size:,} bytes")


def _not_the_file(response: requests.Response, pieces: Iterable[bytes], way_out: str) -> _Interrupted | NotSentError:
    """The error for an answer without the file, by which it is asked for again or not."""
    what, lasting = name_response(response, pieces)
    if not lasting:
        return _Interrupted(what, _retry_after(response))
    return NotSentError(f"{response.url.split('?')[0]} cannot be downloaded: {what}. {way_out}".rstrip())


def _first_byte(response: requests.Response, asked: int, size: int | None) -> int:
    """Which byte of the file the body starts with; raises if it is no part that can be used."""
    status = response.status_code
    if status == 416:
        raise _Interrupted(f"HTTP 416 for byte {asked:,}", range_works=False)
    total = response.headers.get("Content-Length") if status == 200 else None
    if status == 206:
        content_range = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)", response.headers.get("Content-Range", ""))
        if content_range is None or int(content_range[1]) != asked:
            raise _Interrupted(f"another part than that from byte {asked:,} came", range_works=False)
        total = content_range[2]
    if size is not None and total is not None and total.isdecimal() and int(total) != size:
        raise _Interrupted(f"the server announces {int(total):,} bytes, and {size:,} are published")
    return asked if status == 206 else 0


def _from_byte(pieces: Iterable[bytes], skip: int) -> Iterator[bytes]:
    """The body in pieces, without its first `skip` bytes: a server that ignores Range sends again what is already here."""
    for piece in pieces:
        if skip < len(piece):
            yield piece[skip:]
        skip = max(0, skip - len(piece))


def _wait(interruption: _Interrupted, retry: Retry, name: str, have: int) -> None:
    """Sleep for as long as the server asks, or twice as long as before the last try, and say so."""
    asked = interruption.retry_after
    seconds = max(FIRST_WAIT, retry.get_backoff_time()) if asked is None else asked
    logger.warning("%s: %s; %s bytes are here, going on in %.0f s", name, interruption, f"{have:,}", seconds)
    time.sleep(seconds)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait, at most `LONGEST_RETRY_AFTER`; None where it asks for none that can be read."""
    try:
        return RETRY.get_retry_after(response.raw)
    except (InvalidHeader, ValueError, OverflowError):  # the last two of dates and numbers that Python cannot hold
        return None


def _verify(path: Path, name: str, md5: str) -> None:
    """Delete the file and raise if its MD5 is another."""
    if (found := file_digest(path, "md5")) != md5:
        path.unlink()
        raise NotSentError(
            f"{name} has the MD5 {found}, and {md5} is published: it was damaged on the way or changed. It was deleted; run "
            "the same command again to download it anew"
        )


def _length(path: Path) -> int:
    """Bytes of a file, 0 if it is not there."""
    return path.stat().st_size if path.exists() else 0
