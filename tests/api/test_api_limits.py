"""What the API refuses before it looks at it, and what it takes when there is much to do."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest

from api import server
from api.application import create_app
from api.service import Service
from api.settings import Settings
from skinlesion.base.errors import PipelineError
from skinlesion.serving.predictor import Predictor
from skinlesion.serving.uploads import decode_upload
from tests.api.cases import BODY_START, MULTIPART, URL, image_file, kind_of, problem_of, serve
from tests.conftest import refuses

JPEG = image_file()


Ask = Callable[[httpx.AsyncClient, Service], Any]


def run_with(predictor: Predictor, ask: Ask, **settings: Any) -> Any:
    """Run a coroutine with a client of an application that is ready; no threads but the application's own."""

    async def run() -> Any:
        app, service = create_app(Settings(**{"rate_limit": 0} | settings), predictor)
        transport = httpx.ASGITransport(app)
        async with service.running(), httpx.AsyncClient(transport=transport, base_url=URL, timeout=30) as client:
            while not service.ready:
                await asyncio.sleep(0.01)
            return await ask(client, service)

    return asyncio.run(run())


def post(client: httpx.AsyncClient, *contents: bytes) -> Awaitable[httpx.Response]:
    return client.post("/predict", files=[("files", ("a.jpg", content)) for content in contents or [JPEG]])


class Slow:
    """A network that takes its time, and counts its passes."""

    def __init__(self, predictor: Predictor, seconds: float) -> None:
        self._network, self._seconds, self.passes = predictor.logits, seconds, []

    def __call__(self, squares: np.ndarray, patients: Any = None) -> np.ndarray:
        self.passes.append(len(squares))
        time.sleep(self._seconds)
        return self._network(squares, patients)


def test_requests_at_the_same_time_share_a_pass_and_get_their_own_answers(predictor: Predictor) -> None:
    images = [image_file(seed) for seed in range(12)]
    predictor.logits = slow = Slow(predictor, 0.03)

    async def ask(client: httpx.AsyncClient, service: Service) -> list[httpx.Response]:
        return await asyncio.gather(*(post(client, image) for image in images))

    together = run_with(predictor, ask, batch_wait_ms=20)
    assert sum(slow.passes) == 13 and len(slow.passes) <= 5  # the first of them to warm up
    alone = run_with(predictor, lambda client, service: post(client, *images), max_batch=1)
    for response, expected in zip(together, alone.json()["images"], strict=True):
        probabilities = response.json()["images"][0]["prediction"]["probabilities"]
        wanted = [each["probability"] for each in expected["prediction"]["probabilities"]]
        assert [each["probability"] for each in probabilities] == pytest.approx(wanted, abs=1e-5)
    assert max(slow.passes[-12:]) == 1


def test_an_image_waits_a_moment_for_others(predictor: Predictor) -> None:
    predictor.logits = slow = Slow(predictor, 0)

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        first = asyncio.create_task(post(client))
        await asyncio.sleep(0.2)
        await asyncio.gather(first, post(client))

    run_with(predictor, ask, batch_wait_ms=600)
    assert slow.passes == [1, 2]


def test_a_full_queue_and_too_many_requests_are_turned_away_at_once(predictor: Predictor) -> None:
    predictor.logits = Slow(predictor, 0.1)

    async def ask(client: httpx.AsyncClient, service: Service) -> list[httpx.Response]:
        return await asyncio.gather(*(post(client) for _ in range(8)))

    for limits in ({"max_requests": 3}, {"max_queue": 2, "max_files": 2, "max_batch": 1}):
        answers = run_with(predictor, ask, **limits)
        busy = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503} and len(busy) >= 4
        assert problem_of(busy[0], 503)["type"] == "/docs#busy" and busy[0].headers["retry-after"] == "1"


def test_an_answer_that_takes_too_long_is_a_problem_and_the_next_one_comes(predictor: Predictor) -> None:
    predictor.logits = slow = Slow(predictor, 0)

    async def ask(client: httpx.AsyncClient, service: Service) -> tuple[httpx.Response, httpx.Response, int]:
        slow._seconds = 0.4
        late, _ = await asyncio.gather(*(post(client) for _ in range(2)))
        slow._seconds = 0
        await asyncio.sleep(0.3)
        return late, await post(client), service.in_work

    late, next_one, in_work = run_with(predictor, ask, request_seconds=0.2, max_batch=1)
    assert len(slow.passes) == 3  # to warm up, the late one, the next one: not the one that waited and gave up
    assert kind_of(late, 504) == "time-limit"
    assert (next_one.status_code, in_work) == (200, 0)


def test_abandoned_images_count_and_a_stuck_server_is_not_ready(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr("api.service.available_cores", lambda: 2)
    monkeypatch.setattr("api.service.decode_upload", lambda data: release.wait(10) and decode_upload(data))

    async def ask(client: httpx.AsyncClient, service: Service) -> Any:
        late = await post(client)
        assert (await client.get("/ready")).status_code == 200  # one of two decoders is free
        late_too = await client.post("/explain", files={"file": JPEG})
        await asyncio.sleep(0.25)
        ready, refused, in_work = await client.get("/ready"), await post(client), service.in_work
        release.set()
        await asyncio.sleep(0.1)
        return (late, late_too), ready, refused, in_work, await post(client), service.in_work

    late, ready, refused, in_work, after, left = run_with(predictor, ask, max_requests=2, request_seconds=0.2)
    assert [kind_of(each, 504) for each in late] == ["time-limit"] * 2
    assert "stuck" in problem_of(ready, 503)["detail"] and kind_of(refused, 503) == "busy" and in_work == 2
    assert (after.status_code, left) == (200, 0)


def test_heat_maps_that_nobody_waits_for_still_count(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(predictor.explainer, "explain", lambda *args, **options: release.wait(10) and np.zeros((70, 90)))

    async def ask(client: httpx.AsyncClient, service: Service) -> tuple[list[httpx.Response], httpx.Response]:
        first = await client.post("/explain?diagnosis=mel", files={"file": JPEG})
        second = await client.post("/explain?diagnosis=mel", files={"file": JPEG})
        release.set()
        await asyncio.sleep(0.1)
        return [first, second], await client.post("/explain?diagnosis=mel", files={"file": JPEG})

    (late, refused), after = run_with(predictor, ask, max_explanations=1, request_seconds=0.3)
    assert kind_of(late, 504) == "time-limit" and kind_of(refused, 503) == "busy"
    assert after.status_code == 200


def test_a_network_that_fails_fails_its_requests_and_not_the_worker(predictor: Predictor) -> None:
    network, broken = predictor.logits, [False]

    def sometimes(squares: np.ndarray, patients: Any = None) -> np.ndarray:
        if broken[0]:
            raise PipelineError("a logit is not finite")
        return network(squares, patients)

    predictor.logits = sometimes

    async def ask(client: httpx.AsyncClient, service: Service) -> list[httpx.Response]:
        answers = []
        for broken[0] in (True, False):
            answers.append(await post(client))
        assert service.ready
        return answers

    failed, answered = run_with(predictor, ask)
    assert kind_of(failed, 500) == "internal" and answered.status_code == 200


def test_sizes_and_counts_are_held_before_anything_is_decoded(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"max_files": 2, "max_file_bytes": len(JPEG), "rate_limit": 0}
    with serve(predictor, **limits) as served:
        one_too_large = served.predict(JPEG, JPEG + b"\0").json()["images"]
        assert one_too_large[0]["prediction"] and one_too_large[1]["problem"]["type"] == "/docs#too-large"
        monkeypatch.setattr("api.service.decode_upload", None)
        assert kind_of(served.predict(JPEG + b"\0"), 413) == "too-large"
        assert kind_of(served.predict(b"a", b"b", b"c"), 413) == "too-many-files"
        assert kind_of(served.predict(bytes(1_100_000)), 413) == "body-too-large"
        many = b"".join(b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n' % number for number in range(9))
        assert kind_of(served.client.post("/predict", content=many, headers=MULTIPART), 413) == "too-many-files"
        headers = b"--x\r\n" + b"A: b\r\n" * 100
        assert kind_of(served.client.post("/predict", content=headers, headers=MULTIPART), 400) == "malformed"


def body_of(predictor: Predictor, chunks: Callable[[], AsyncIterator[bytes]], **settings: Any) -> tuple[httpx.Response, int]:
    """The answer to a body that comes in pieces without a length, and how many bytes of it were taken."""
    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in chunks():
            taken += len(chunk)
            yield chunk

    response = run_with(predictor, lambda client, _: client.post("/predict", content=counted(), headers=MULTIPART), **settings)
    return response, taken


def test_a_body_without_end_is_cut_off(predictor: Predictor) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield BODY_START
        while True:
            yield bytes(10_000)

    response, taken = body_of(predictor, endless, max_files=1, max_file_bytes=100_000)
    assert kind_of(response, 413) == "body-too-large" and taken < 1_200_000


def test_no_byte_of_a_file_is_written_to_a_disk(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", None)  # to which a spooled file moves
    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", None)
    with serve(predictor, rate_limit=0) as served:
        images = served.predict(JPEG, bytes(9_000_000)).json()["images"]
    assert images[0]["prediction"] and images[1]["problem"]["type"] == "/docs#unsupported-type"


def test_a_body_that_ends_early_is_no_request(predictor: Predictor) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield BODY_START + JPEG

    assert kind_of(body_of(predictor, cut)[0], 400) == "malformed"


def test_ready_is_after_the_first_pass_and_before_the_stop(predictor: Predictor) -> None:
    predictor.logits = Slow(predictor, 0.2)
    with serve(predictor, warm=False) as served:
        assert problem_of(served.client.get("/ready"), 503)["detail"] == "The server is starting."
        assert served.client.get("/health").status_code == 200
        while served.client.get("/ready").status_code != 200:
            time.sleep(0.02)
        served.service.draining = True
        response = served.client.get("/ready")
        assert problem_of(response, 503)["detail"] == "The server is stopping." and response.headers["connection"] == "close"
        assert served.predict(JPEG).status_code == 200


def test_a_model_that_fails_at_the_start_ends_the_server(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> np.ndarray:
        raise PipelineError("a logit is not finite")

    predictor.logits = broken
    monkeypatch.setattr(server, "load_predictor", lambda *_, **__: predictor)
    for name in ("log_as_json", "keep_freed_memory"):  # which would change this process for good
        monkeypatch.setattr(server, name, lambda: None)
    monkeypatch.setenv("SKINLESION_PORT", "0")
    refuses(r"cannot be served, as it failed on a black image: a logit is not finite$", server.main)
