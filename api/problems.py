"""What can go wrong with a request: the kinds of problems, as RFC 9457 defines them (`application/problem+json`)."""

import json
from typing import Any, NamedTuple

from asgi_correlation_id import correlation_id
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
FAILED = "The server failed; its log has the details under the request id."  # all that an answer says about our own errors


class Kind(NamedTuple):
    """A kind of problem: its HTTP status, and what it means, in words that are always the same."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    # Of the request.
    "malformed": Kind(400, "The request is not what its headers say"),
    "unauthorized": Kind(401, "This needs the API key"),
    "foreign-origin": Kind(403, "Pages of this origin may not call the API"),
    "not-found": Kind(404, "There is nothing at this address"),
    "method-not-allowed": Kind(405, "This address takes another method"),
    "body-too-large": Kind(413, "The request is too large"),
    "too-many-files": Kind(413, "The request has too many files or fields"),
    "not-multipart": Kind(415, "The body is not multipart/form-data"),
    "wrong-host": Kind(421, "This is not a name of the server"),
    "invalid": Kind(422, "A field or parameter is not valid"),
    "refused": Kind(422, "No file of the request could be used"),
    "too-many-requests": Kind(429, "Too many requests from this client"),
    # Of the server.
    "internal": Kind(500, "The server failed"),
    "busy": Kind(503, "The server has too much to do"),
    "not-ready": Kind(503, "The server is starting or stopping"),
    "time-limit": Kind(504, "The answer took too long"),
    # Of one file: the reasons of `skinlesion.serving.uploads`.
    "empty": Kind(422, "The file is empty"),
    "broken": Kind(422, "The file is damaged"),
    "too-small": Kind(422, "The image is too small"),
    "too-large": Kind(413, "The file is too large"),
    "too-many-pixels": Kind(413, "The image has too many pixels"),
    "unsupported-type": Kind(415, "The type of the file is not accepted"),
    "animated": Kind(415, "The file holds more than a still image"),
    "cmyk": Kind(415, "The image has printing colours"),
    "bit-depth": Kind(415, "The image has more than 8 bits a channel"),
}


class Problem(Exception):
    """A request that is answered by a problem.

    kind : a key of `KINDS`. detail : a sentence for people: what is wrong with this request, and the way out.
    headers : of the answer. extra : further members of the document.
    """

    def __init__(self, kind: str, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.headers, self.extra = kind, detail, headers or {}, extra
        self.status = KINDS[kind].status

    def document(self) -> dict[str, Any]:
        """The problem as JSON; its `type` leads to the page of the documentation."""
        title = KINDS[self.kind].title
        return {"type": f"/docs#{self.kind}", "title": title, "status": self.status, "detail": self.detail} | self.extra


def body_too_large() -> Problem:
    """The problem of a request with too many bytes."""
    return Problem("body-too-large", "The request is larger than all its files may be: send fewer or smaller files.")


def of_refusals(problems: list[Problem], files: list[dict[str, Any]]) -> Problem:
    """The problem of a request none of whose files could be used: the one that all files share, or else `refused`.

    files : the entry of each file in the answer.
    """
    kinds = {problem.kind for problem in problems}
    detail = problems[0].detail if len(problems) == 1 else "None of the files could be used; `images` has the reason for each."
    return Problem(kinds.pop() if len(kinds) == 1 else "refused", detail, images=files)


def respond(problem: Problem) -> Response:
    """The answer to the request in work, which has the problem."""
    body = json.dumps(problem.document() | {"request_id": correlation_id.get()}, ensure_ascii=False)
    return Response(body, problem.status, problem.headers, MEDIA_TYPE)
