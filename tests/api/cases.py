"""What the tests of the API share: a small random classifier, served in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from api.application import create_app
from api.service import Service
from api.settings import Settings
from skinlesion.serving.predictor import Predictor
from tests.serving.predictor_cases import encoded, lesion_image

URL = "http://127.0.0.1"  # of whom an application is told that it is called
BODY_START = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}


@dataclass
class Served:
    """An application that runs, its state, and a client of it."""

    app: ASGIApp
    service: Service
    client: TestClient

    def predict(self, *files: bytes, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
        parts = [("files", (f"{number}.jpg", data)) for number, data in enumerate(files)]
        return self.client.post("/predict", files=parts, data=fields, headers=headers)

    def explain(self, data: bytes, fields: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        return self.client.post("/explain", files={"file": data}, data=fields, params=query)


@contextmanager
def serve(predictor: Predictor, *, warm: bool = True, **settings: Any) -> Iterator[Served]:
    """Run an application of a predictor; `warm` waits until it is ready."""
    app, service = create_app(Settings(**settings), predictor)
    with TestClient(app, base_url=URL) as client:
        while warm and client.get("/ready").status_code != 200:
            pass
        yield Served(app, service, client)


def image_file(seed: int = 0, **options: Any) -> bytes:
    """A JPEG that no warning is about."""
    return encoded(lesion_image(seed, **options), quality=95)


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer, which must have the status and be one."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == status and document["title"] and document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def kind_of(response: httpx.Response, status: int) -> str:
    """The kind of the problem of an answer."""
    return problem_of(response, status)["type"].removeprefix("/docs#")
