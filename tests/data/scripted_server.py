"""An HTTP server on this machine that behaves well, or as badly as a test tells it to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from skinlesion.base.web import user_agent

FORBIDDEN = b"<html><head><title>403 Forbidden</title></head><body><h1>Forbidden</h1></body></html>"


@dataclass
class Answer:
    """How one request is answered; the defaults are those of an honest server."""

    status: int | None = None  # an error status, sent without the file
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body after which the connection is closed
    ignore_range: bool = False
    content_range: str | None = None  # sent instead of the right one
    whole: bool = False  # a part was asked for, and the whole file comes under status 206
    announced: int | None = None  # Content-Length instead of the right one
    chunked: bool = False  # no Content-Length at all: the body ends where the connection does
    body: bytes | None = None  # sent instead of the file, or under an error status
    stall: float = 0.0  # seconds of silence before the last byte


@dataclass
class Scripted:
    """The server's address, what it has, what was asked (path and Range), and the answers that are still to come."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    always: Answer = field(default_factory=Answer)  # once `answers` is used up


@contextmanager
def serve() -> Iterator[Scripted]:
    """Run the server for the length of the block, in which no proxy stands between; only clients with our name are served."""
    scripted = Scripted()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            scripted.asked.append((self.path, asked))
            answer = scripted.answers.pop(0) if scripted.answers else scripted.always
            if self.headers["User-Agent"] != user_agent():  # as Harvard's firewall does with the names of libraries
                answer = Answer(status=403, body=FORBIDDEN, headers={"Content-Type": "text/html"})
            content = scripted.files.get(self.path)
            if content is None or answer.status is not None:
                self._reply(answer.status or 404, answer.body or b"", answer)
                return
            content = content if answer.body is None else answer.body
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and not answer.ignore_range else None
            if start is None:
                self._reply(200, content, answer)
            elif start >= len(content):
                self._reply(416, b"", answer)
            else:
                part = answer.content_range or f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._reply(206, content if answer.whole else content[start:], answer, content_range=part)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def _reply(self, status: int, body: bytes, answer: Answer, content_range: str | None = None) -> None:
            self.send_response(status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if content_range:
                self.send_header("Content-Range", content_range)
            if not answer.chunked:
                self.send_header("Content-Length", str(len(body) if answer.announced is None else answer.announced))
            self.end_headers()
            sent = body if answer.cut_after is None else body[: answer.cut_after]
            if answer.stall:
                self.wfile.write(sent[:-1])
                self.wfile.flush()
                time.sleep(answer.stall)
                sent = sent[-1:]
            self.wfile.write(sent)

        def log_message(self, *arguments: object) -> None:
            """Keep the tests' output free of access logs."""

    with pytest.MonkeyPatch.context() as patch, ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        scripted.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield scripted
        finally:
            server.shutdown()
            thread.join()
