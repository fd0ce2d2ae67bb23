"""A multipart body, read as it arrives and in memory alone: what is beyond a limit is refused or dropped, never kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from api.problems import Problem
from skinlesion.base.errors import brief, suggest

MAX_FIELD_BYTES = 1000
LONGEST_NAME = 200  # characters of a file's name that an answer repeats


class Limits(NamedTuple):
    """What a body may have: files, bytes a file, bytes altogether, and seconds to arrive."""

    files: int
    file_bytes: int
    body_bytes: int
    seconds: float


@dataclass
class SentFile:
    """A file of a request.

    name : as its sender calls it, cut; for the answer alone, it leads nowhere. size : bytes that were sent.
    data : the bytes; not all of them where there are more than the limit.
    """

    name: str
    size: int = 0
    data: bytearray = field(default_factory=bytearray)


@dataclass
class Form:
    """The parts of a body: files in their order, and fields by name."""

    files: list[SentFile] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


async def read_form(
    receive: Receive, headers: dict[bytes, bytes], limits: Limits, *, file_field: str, fields: Sequence[str]
) -> Form:
    """Read the body of a request.

    headers : of the request, names in lower case. file_field : name of the parts that are files. fields : names of the others.

    Raises
    ------
    Problem
        The body is no multipart/form-data, damaged, larger than the limits, or too slow; or a part is not known.
    ClientDisconnect
        The client went away.
    """
    kind, options = parse_options_header(headers.get(b"content-type", b""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(
            "not-multipart", f"Send the image as multipart/form-data with a boundary, as `curl -F {file_field}=@image.jpg` does."
        )
    reader = _Reader(limits, file_field, fields)
    try:
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        async with asyncio.timeout(limits.seconds):
            async for chunk in _chunks(receive, headers, limits.body_bytes):
                parser.write(chunk)
        parser.finalize()
    except TimeoutError:
        raise Problem("body-too-slow", f"The body had not arrived after {limits.seconds:g} seconds: send it again.") from None
    except FormParserError:
        raise Problem("malformed", "The body is no whole multipart/form-data: send it again.") from None
    if not reader.ended:
        raise Problem("malformed", "The body ends before its last boundary: send it again.")
    return reader.form


async def _chunks(receive: Receive, headers: dict[bytes, bytes], most: int) -> AsyncIterator[bytes]:
    """The body piece by piece; refused by the length that the headers say, or once more has come."""
    too_large = Problem("body-too-large", f"The request has more than {most / 1e6:g} MB: send fewer or smaller files.")
    said = headers.get(b"content-length", b"")
    if said.isdigit() and int(said[:20]) > most:
        raise too_large
    received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        received += len(chunk)
        if received > most:
            raise too_large
        yield chunk
        if not message.get("more_body", False):
            return


class _Reader:
    """Makes a form of what the parser calls out."""

    def __init__(self, limits: Limits, file_field: str, fields: Sequence[str]) -> None:
        self.form, self.ended = Form(), False
        self._limits, self._file_field, self._fields = limits, file_field, fields
        self._header_name, self._header_value, self._disposition = b"", b"", b""
        self._file: SentFile | None = None
        self._field, self._value = "", bytearray()

    def callbacks(self) -> dict[str, object]:
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "headers_finished", "end")
        return {f"on_{name}": getattr(self, f"_on_{name}") for name in names}

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name, self._header_value = b"", b""

    def _on_headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        name = options.get(b"name", b"").decode(errors="replace")
        if b"filename" in options:
            self._begin_file(name, options[b"filename"].decode(errors="replace"))
        else:
            self._begin_field(name)

    def _begin_file(self, name: str, filename: str) -> None:
        if name != self._file_field:
            raise Problem("invalid", f"The part {brief(name)} is a file: files are sent under the name '{self._file_field}'.")
        if len(self.form.files) == self._limits.files:
            raise Problem(
                "too-many-files", f"The request has more than {self._limits.files} file(s): send them in several requests."
            )
        self._file = SentFile(filename[:LONGEST_NAME])
        self.form.files.append(self._file)

    def _begin_field(self, name: str) -> None:
        if name == self._file_field:
            raise Problem("invalid", f"'{name}' has no file name: send it as a file, as `curl -F {name}=@image.jpg` does.")
        if name not in self._fields:
            known = (self._file_field, *self._fields)
            near = suggest(name, known)
            raise Problem("invalid", f"There is no field {brief(name)}{near}; known: {', '.join(known)}.")
        if name in self.form.fields:
            raise Problem("invalid", f"The field '{name}' is there twice: send it once, it holds for all files.")
        self._file, self._field, self._value = None, name, bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            if len(self._value) + end - start > MAX_FIELD_BYTES:
                raise Problem("invalid", f"The field '{self._field}' has more than {MAX_FIELD_BYTES} bytes.")
            self._value += data[start:end]
            return
        self._file.size += end - start
        if self._file.size <= self._limits.file_bytes:
            self._file.data += data[start:end]
        else:
            self._file.data.clear()

    def _on_part_end(self) -> None:
        if self._file is None:
            try:
                self.form.fields[self._field] = self._value.decode()
            except UnicodeDecodeError:
                raise Problem("invalid", f"The field '{self._field}' is no UTF-8.") from None

    def _on_end(self) -> None:
        self.ended = True
