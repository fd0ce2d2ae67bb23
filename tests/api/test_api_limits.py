"""What the API refuses before it looks at it, and what it takes when there is much to do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api import server
from api.application import create_app
from api.limits import MAX_CLIENTS, RateLimit, client_of
from api.multipart import Limits, read_form
from api.service import Service
from api.settings import PREFIX, Settings, read_settings
from skinlesion.base.errors import PipelineError
from skinlesion.serving.predictor import Predictor, load_predictor
from skinlesion.serving.uploads import decode_upload
from tests.api.cases import BODY_START, MULTIPART, URL, image_file, kind_of, problem_of, serve
from tests.conftest import ROOT
from tests.serving.predictor_cases import make_workspace

JPEG = image_file()
KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_predictor(make_workspace(tmp_path_factory.mktemp("served")), device="cpu")


@pytest.fixture
def predictor(loaded: Predictor) -> Iterator[Predictor]:
    """The predictor, whose methods a test may replace."""
    yield loaded
    vars(loaded).pop("logits", None)


Ask = Callable[[httpx.AsyncClient, Service], Any]


def run_with(predictor: Predictor, ask: Ask, **settings: Any) -> Any:
    """Run a coroutine with a client of an application that is ready; no threads but the application's own."""

    async def run() -> Any:
        short = {"rate_limit": 0, "body_seconds": settings.get("request_seconds", 20)}
        app, service = create_app(Settings(**short | settings), predictor)
        transport = httpx.ASGITransport(app)
        async with service.running(), httpx.AsyncClient(transport=transport, base_url=URL, timeout=30) as client:
            while not service.ready:
                await asyncio.sleep(0.01)
            return await ask(client, service)

    return asyncio.run(run())


def files(*contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.jpg", content)) for number, content in enumerate(contents)]


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
        return await asyncio.gather(*(client.post("/predict", files=files(image)) for image in images))

    together = run_with(predictor, ask, batch_wait_ms=20)
    assert sum(slow.passes) == 13 and len(slow.passes) <= 5  # the first of them to warm up
    alone = run_with(predictor, lambda client, service: client.post("/predict", files=files(*images)), max_batch=1)
    for response, expected in zip(together, alone.json()["images"], strict=True):
        said = response.json()["images"][0]["prediction"]["probabilities"]
        assert [each["probability"] for each in said] == pytest.approx(
            [each["probability"] for each in expected["prediction"]["probabilities"]], abs=1e-5
        )
    assert max(slow.passes[-12:]) == 1


def test_an_image_waits_a_moment_for_others(predictor: Predictor) -> None:
    predictor.logits = slow = Slow(predictor, 0)

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        first = asyncio.create_task(client.post("/predict", files=files(JPEG)))
        await asyncio.sleep(0.2)
        await asyncio.gather(first, client.post("/predict", files=files(JPEG)))

    run_with(predictor, ask, batch_wait_ms=600)
    assert slow.passes == [1, 2]


def test_a_full_queue_and_too_many_requests_are_turned_away_at_once(predictor: Predictor) -> None:
    predictor.logits = Slow(predictor, 0.1)

    async def ask(client: httpx.AsyncClient, service: Service) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/predict", files=files(JPEG)) for _ in range(8)))

    for limits in ({"max_requests": 3}, {"max_queue": 2, "max_files": 2, "max_batch": 1}):
        answers = run_with(predictor, ask, **limits)
        busy = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503} and len(busy) >= 4
        assert problem_of(busy[0], 503)["type"] == "/docs#busy" and busy[0].headers["retry-after"] == "1"


def test_an_answer_that_takes_too_long_is_a_problem_and_the_next_one_comes(predictor: Predictor) -> None:
    predictor.logits = slow = Slow(predictor, 0)

    async def ask(client: httpx.AsyncClient, service: Service) -> tuple[httpx.Response, httpx.Response, int]:
        slow._seconds = 0.4
        late, _ = await asyncio.gather(*(client.post("/predict", files=files(JPEG)) for _ in range(2)))
        slow._seconds = 0
        await asyncio.sleep(0.3)
        return late, await client.post("/predict", files=files(JPEG)), service.in_work

    late, next_one, in_work = run_with(predictor, ask, request_seconds=0.2, max_batch=1)
    assert len(slow.passes) == 3  # to warm up, the late one, the next one: not the one that waited and gave up
    assert kind_of(late, 504) == "time-limit"
    assert (next_one.status_code, in_work) == (200, 0)


def test_a_client_that_reads_too_slowly_gets_no_second_answer(predictor: Predictor) -> None:
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.sleep(10)

    app, _ = create_app(Settings(request_seconds=0.1, body_seconds=0.1), predictor)
    scope = {"type": "http", "method": "GET", "path": "/docs", "query_string": b"", "headers": [], "http_version": "1.1"}
    asyncio.run(app(scope | {"scheme": "http", "server": ("a", 80), "root_path": ""}, receive, send))
    assert sent == ["http.response.start", "http.response.body"]


def test_images_that_nobody_waits_for_still_count_and_a_server_that_is_stuck_on_them_is_not_ready(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr("api.service.available_cores", lambda: 2)
    monkeypatch.setattr("api.service.decode_upload", lambda data: release.wait(10) and decode_upload(data))

    async def ask(client: httpx.AsyncClient, service: Service) -> Any:
        late = await client.post("/predict", files=files(JPEG))
        assert (await client.get("/ready")).status_code == 200  # one of two decoders is free
        late_too = await client.post("/explain", files={"file": JPEG})
        await asyncio.sleep(0.25)
        ready, refused, in_work = await client.get("/ready"), await client.post("/predict", files=files(JPEG)), service.in_work
        release.set()
        await asyncio.sleep(0.1)
        return (late, late_too), ready, refused, in_work, await client.post("/predict", files=files(JPEG)), service.in_work

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
            answers.append(await client.post("/predict", files=files(JPEG)))
        assert service.ready
        return answers

    failed, answered = run_with(predictor, ask)
    assert kind_of(failed, 500) == "internal" and answered.status_code == 200


def test_sizes_and_counts_are_held_before_anything_is_decoded(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"max_files": 2, "max_file_bytes": len(JPEG), "max_body_bytes": 3 * len(JPEG), "rate_limit": 0}
    with serve(predictor, **limits) as served:
        one_too_large = served.predict(JPEG, JPEG + b"\0").json()["images"]
        assert one_too_large[0]["prediction"] and one_too_large[1]["problem"]["type"] == "/docs#too-large"
        monkeypatch.setattr("api.service.decode_upload", None)
        assert kind_of(served.predict(JPEG + b"\0"), 413) == "too-large"
        assert kind_of(served.predict(b"a", b"b", b"c"), 413) == "too-many-files"
        assert kind_of(served.predict(JPEG * 4), 413) == "body-too-large"
        many = b"".join(b'--x\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n' % number for number in range(9))
        assert "no field '0'" in problem_of(served.client.post("/predict", content=many, headers=MULTIPART), 422)["detail"]
        headers = b"--x\r\n" + b"A: b\r\n" * 100
        assert kind_of(served.client.post("/predict", content=headers, headers=MULTIPART), 400) == "malformed"


def test_of_a_file_beyond_its_limit_nothing_is_kept() -> None:
    messages = [BODY_START + bytes(100), bytes(100), b"\r\n--x--\r\n"]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": messages.pop(0), "more_body": bool(messages)}

    headers = {name.encode(): value.encode() for name, value in MULTIPART.items()}
    form = asyncio.run(read_form(receive, headers, Limits(1, 150, 10_000, 5), file_field="files", fields=()))
    assert (form.files[0].size, len(form.files[0].data)) == (200, 0)


def body_of(predictor: Predictor, chunks: Callable[[], AsyncIterator[bytes]], **settings: Any) -> tuple[httpx.Response, int]:
    """The answer to a body that comes in pieces without a length, and how many bytes of it were taken."""
    taken = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in chunks():
            taken += len(chunk)
            yield chunk

    response = run_with(
        predictor, lambda client, service: client.post("/predict", content=counted(), headers=MULTIPART), **settings
    )
    return response, taken


def test_a_body_without_end_is_cut_off(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.middleware.DISCARD_BYTES", 50_000)

    async def endless() -> AsyncIterator[bytes]:
        yield BODY_START
        while True:
            yield bytes(10_000)

    response, taken = body_of(predictor, endless, max_body_bytes=100_000, max_file_bytes=100_000)
    assert kind_of(response, 413) == "body-too-large" and response.headers["connection"] == "close"
    assert taken < 200_000


def test_a_body_that_trickles_is_cut_off(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.middleware.DISCARD_SECONDS", 0.1)

    async def trickle() -> AsyncIterator[bytes]:
        yield BODY_START
        while True:
            yield b"a"
            await asyncio.sleep(0.05)

    started = time.monotonic()
    response, _ = body_of(predictor, trickle, body_seconds=0.3)
    assert kind_of(response, 408) == "body-too-slow"
    assert time.monotonic() - started < 3


def test_a_body_that_ends_early_is_no_request(predictor: Predictor) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield BODY_START + JPEG

    assert kind_of(body_of(predictor, cut)[0], 400) == "malformed"


def test_a_client_has_so_many_requests_a_minute(predictor: Predictor) -> None:
    with serve(predictor, rate_limit=2) as served:
        assert [served.client.get("/model").status_code for _ in range(2)] == [200, 200]
        response = served.client.get("/model")
        assert kind_of(response, 429) == "too-many-requests" and 1 <= int(response.headers["retry-after"]) <= 30
        assert served.client.get("/health").status_code == served.client.get("/ready").status_code == 200


def test_the_bucket_fills_again_and_its_memory_is_bounded() -> None:
    now = [0.0]
    limit = RateLimit(60, clock=lambda: now[0])
    assert [limit.take("a") for _ in range(61)] == [0] * 60 + [1] and limit.take("b") == 0
    now[0] = 0.4
    assert limit.take("a") == 1
    now[0] = 1.5
    assert limit.take("a") == 0
    for number in range(2 * MAX_CLIENTS):
        limit.take(str(number))
    assert len(limit._buckets) == MAX_CLIENTS
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff") != client_of("2001:db8:0:1::1")
    assert client_of("10.0.0.1") == "10.0.0.1" and client_of("") == ""


def test_with_a_key_only_probes_and_documentation_are_open(predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    with serve(predictor, api_key=KEY) as served:
        for path in ("/model", "/metrics"):
            response = served.client.get(path)
            assert kind_of(response, 401) == "unauthorized" and response.headers["www-authenticate"].startswith("Bearer")
            for wrong in ("Bearer 0123456789abcdeg", f"Basic {KEY}", "Bearer ", f"bearer {KEY}x", "Bearer \u00fc"):
                answer = served.client.get(path, headers={"authorization": wrong.encode()})
                assert kind_of(answer, 401) == "unauthorized"
            assert served.client.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        assert kind_of(served.predict(JPEG), 401) == "unauthorized"
        assert served.predict(JPEG, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        assert {served.client.get(path).status_code for path in ("/health", "/ready", "/docs", "/openapi.json")} == {200}
        document = served.client.get("/openapi.json").json()
        assert document["paths"]["/predict"]["post"]["security"] and "security" not in document["paths"]["/health"]["get"]
    assert KEY not in caplog.text and KEY not in repr(served.service.settings)


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
    with pytest.raises(PipelineError, match=r"cannot be served, as it failed on a black image: a logit is not finite$"):
        server.main()


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY + "\n", encoding="utf-8")
    environment = {"SKINLESION_PORT": "9000", "SKINLESION_API_KEY_FILE": str(key), "SKINLESION_BATCH_WAIT_MS": "2.5", "HOME": "/"}
    environment |= {
        "SKINLESION_CORS_ORIGINS": "https://a.example:8443, http://[::1]:80",
        "SKINLESION_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
    }
    settings = read_settings(environment)
    assert settings.origins == ["https://a.example:8443", "http://[::1]:80"] and len(settings.proxies) == 2
    assert (settings.port, settings.batch_wait_ms, settings.host) == (9000, 2.5, "127.0.0.1")
    assert settings.api_key is not None and settings.api_key.get_secret_value() == KEY


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PORTS": "1"}, "SKINLESION_PORTS is no setting of the API; did you mean 'SKINLESION_PORT'"),
        ({"PORT": "eighty"}, "SKINLESION_PORT: Input should be a valid integer.*not 'eighty'"),
        ({"ENGINE": "onnx-int4"}, "SKINLESION_ENGINE: Input should be 'torch', 'onnx' or 'onnx-int8'"),
        ({"API_KEY": ""}, "SKINLESION_API_KEY is empty"),
        ({"API_KEY": "short"}, "16 characters"),
        ({"API_KEY": KEY, "API_KEY_FILE": "key"}, "both set"),
        ({"API_KEY_FILE": "nowhere"}, "nowhere cannot be read"),
        ({"MAX_QUEUE": "3"}, "MAX_QUEUE is below"),
        ({"MAX_FILE_BYTES": "10000001"}, "less than or equal to 10000000"),
        ({"MAX_BODY_BYTES": "9999999"}, "MAX_BODY_BYTES is below"),
        ({"REQUEST_SECONDS": "19"}, "BODY_SECONDS is above"),
        ({"TRUSTED_PROXIES": "10.0.0.1, proxy"}, "SKINLESION_TRUSTED_PROXIES: 'proxy' is no address or network"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "no address or network"),
        ({"CORS_ORIGINS": "https://a.example/"}, "SKINLESION_CORS_ORIGINS: 'https://a.example/' is no origin"),
        ({"CORS_ORIGINS": "a.example"}, "no origin"),
        ({"CORS_ORIGINS": "https://a.example, *"}, "no origin"),
        ({"HOSTS": "a.example:80"}, "SKINLESION_HOSTS: 'a.example:80' is no name"),
        ({"DRAIN_SECONDS": "nan"}, "finite"),
    ],
)
def test_a_setting_that_cannot_be_stops_the_start(environment: dict[str, str], said: str) -> None:
    with pytest.raises(PipelineError, match=said) as raised:
        read_settings({f"SKINLESION_{name}": value for name, value in environment.items()})
    assert "short" not in str(raised.value) and KEY not in str(raised.value)


def test_the_documentation_has_every_setting_as_it_is() -> None:
    table = [
        f"| `{PREFIX}{name.upper()}` | {'' if field.default in (None, '') else f'`{field.default}`'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in text if line.startswith(f"| `{PREFIX}")] == table
