"""Whom the API lets in: clients that send slowly, pages of other origins, and names that are not its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from api.application import create_app
from api.limits import Shares
from api.settings import Settings
from skinlesion.serving.predictor import Predictor, load_predictor
from tests.api.cases import BODY_START, MULTIPART, URL, Served, image_file, kind_of, problem_of, serve
from tests.serving.predictor_cases import make_workspace

JPEG = image_file()
KEY = "0123456789abcdef"
GOOD, BAD = "https://a.example", "https://c.example"


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_predictor(make_workspace(tmp_path_factory.mktemp("served")), device="cpu")


@pytest.fixture(scope="module")
def served(predictor: Predictor) -> Iterator[Served]:
    with serve(predictor, rate_limit=0) as one:
        yield one


def beside_slow_bodies(predictor: Predictor, start: bytes, **settings: Any) -> tuple[list[int], int, httpx.Response, int]:
    """What one client gets for bodies that do not end, and, while they come, another for a whole one: statuses and bytes held."""

    async def run() -> Any:
        app, service = create_app(Settings(rate_limit=0, **settings), predictor)
        release = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield start
            await release.wait()
            yield b"\r\n--x--\r\n"

        def client(address: str) -> httpx.AsyncClient:
            return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url=URL, timeout=30)

        async with service.running(), client("10.0.0.1") as slow, client("10.0.0.2") as other:
            while not service.ready:
                await asyncio.sleep(0.01)
            asked = [asyncio.create_task(slow.post("/predict", content=body(), headers=MULTIPART)) for _ in range(4)]
            await asyncio.sleep(0.1)
            in_work = service.in_work
            answer = await other.post("/predict", files={"files": JPEG})
            release.set()
            statuses = [each.status_code for each in await asyncio.gather(*asked)]
            return statuses, in_work, answer, service.in_work + service.bodies.taken

    return asyncio.run(run())


def test_bodies_that_come_slowly_keep_nobody_else_out(predictor: Predictor) -> None:
    statuses, in_work, answer, left = beside_slow_bodies(predictor, BODY_START + JPEG, max_requests=4)
    assert (in_work, answer.status_code, left) == (0, 200, 0)
    assert statuses == [200] * 4


def test_of_bytes_on_their_way_a_client_has_its_share(predictor: Predictor) -> None:
    big = {"max_requests": 4, "max_body_bytes": 20_000, "max_file_bytes": 15_000}
    statuses, _, answer, left = beside_slow_bodies(predictor, BODY_START + JPEG + bytes(15_000 - len(JPEG)), **big)
    assert answer.status_code == 200 and left == 0
    assert sorted(statuses) == [200, 200, 503, 503]


def test_shares_are_for_all_and_for_one() -> None:
    shares = Shares(10, most=6)
    assert shares.take("a", 6) and not shares.take("a", 1) and shares.take("b", 4)
    assert not shares.take("c", 1)
    shares.give_back("a", 6)
    assert shares.take("c", 6) and shares._by_client == {"b": 4, "c": 6}


def test_pages_that_are_named_may_call_and_read_every_answer(predictor: Predictor) -> None:
    preflight = {"origin": GOOD, "access-control-request-method": "POST"}
    with serve(predictor, cors_origins=f"{GOOD}, https://b.example", api_key=KEY, rate_limit=3) as served:
        allowed = served.client.options("/predict", headers=preflight)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, GOOD)
        for wrong in ({"origin": BAD}, {"access-control-request-method": "DELETE"}):
            assert kind_of(served.client.options("/predict", headers=preflight | wrong), 403) == "foreign-origin"
        statuses = []
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Bearer {KEY}"}, {}):
            answer = served.client.get("/model", headers=headers | {"origin": GOOD})
            assert answer.headers["access-control-allow-origin"] == GOOD
            statuses.append(answer.status_code)
        assert statuses == [401, 401, 200, 429]


@pytest.mark.parametrize("origin", [BAD, "null", "http://127.0.0.1:9", "file://127.0.0.1", "http://127.0.0.1.evil.example", ""])
def test_a_page_of_others_makes_no_work(served: Served, origin: str) -> None:
    assert kind_of(served.predict(JPEG, headers={"origin": origin}), 403) == "foreign-origin"


def test_its_own_pages_and_programs_are_let_in(served: Served) -> None:
    assert served.predict(JPEG).status_code == 200
    assert served.predict(JPEG, headers={"origin": "http://localhost:8000", "host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "good", "bad"),
    [
        (
            {},
            ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "[::1]"),
            ("evil.example", "localhost.evil.example:80"),
        ),
        ({"host": "0.0.0.0"}, ("any.example", "10.0.0.1:8000"), ()),
        ({"host": "0.0.0.0", "hosts": "A.example, b.example"}, ("a.example:80", "b.example"), ("localhost", "c.example")),
    ],
    ids=["loopback", "open", "named"],
)
def test_it_is_called_by_its_names(
    predictor: Predictor, settings: dict[str, str], good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    with serve(predictor, rate_limit=0, **settings) as served:
        for name in good:
            assert served.client.get("/model", headers={"host": name}).status_code == 200, name
        for name in bad:
            same = {"host": name, "origin": f"http://{name}"}
            assert kind_of(served.predict(JPEG, headers=same), 421) == "wrong-host"
            assert served.client.get("/ready", headers={"host": name}).status_code == 200  # a probe calls it by its address


def test_a_wrong_key_is_told_from_none(predictor: Predictor) -> None:
    with serve(predictor, api_key=KEY) as served:
        none, wrong = served.client.get("/model"), served.client.get("/model", headers={"authorization": "Bearer 0123"})
        assert problem_of(none, 401)["detail"].startswith("The request has no API key: send")
        assert problem_of(wrong, 401)["detail"].startswith("The API key of the request is not the server's: send")
