"""Whom the API lets in: clients that ask too often, pages of other origins, names that are not its own, and the key."""

import time

import pytest

from api.middleware import client_of
from skinlesion.serving.predictor import Predictor
from tests.api.cases import Served, image_file, kind_of, problem_of, serve

JPEG = image_file()
KEY = "0123456789abcdef"
GOOD, BAD = "https://a.example", "https://c.example"


def test_pages_that_are_named_may_call_and_read_every_answer(predictor: Predictor) -> None:
    preflight = {"origin": GOOD, "access-control-request-method": "POST"}
    with serve(predictor, cors_origins=f"{GOOD}, https://b.example", api_key=KEY, rate_limit=3) as served:
        allowed = served.client.options("/predict", headers=preflight)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, GOOD)
        assert served.client.options("/model", headers=preflight | {"access-control-request-method": "HEAD"}).status_code == 200
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
        ({}, ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "[::1]"), ("a.example", "localhost.a.example:80")),
        ({"host": "0.0.0.0"}, ("any.example", "10.0.0.1:8000"), ()),
        ({"host": "0.0.0.0", "hosts": "A.example, b.example"}, ("a.example:80", "b.example"), ("localhost", "c.example")),
    ],
    ids=["loopback", "open", "named"],
)
def test_called_by_its_names(predictor: Predictor, settings: dict[str, str], good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    with serve(predictor, rate_limit=0, **settings) as served:
        for name in good:
            assert served.client.get("/model", headers={"host": name}).status_code == 200, name
        for name in bad:
            same = {"host": name, "origin": f"http://{name}"}
            assert kind_of(served.predict(JPEG, headers=same), 421) == "wrong-host"
            assert served.client.get("/ready", headers={"host": name}).status_code == 200  # a probe calls it by its address


def test_with_a_key_only_probes_and_documentation_are_open(predictor: Predictor, caplog: pytest.LogCaptureFixture) -> None:
    with serve(predictor, api_key=KEY) as served:
        for path in ("/model", "/metrics"):
            response = served.client.get(path)
            assert problem_of(response, 401)["detail"].startswith("The request has no API key: send")
            assert response.headers["www-authenticate"].startswith("Bearer")
            for wrong in ("Bearer 0123456789abcdeg", f"Basic {KEY}", "Bearer ", f"bearer {KEY}x", "Bearer \u00fc"):
                problem = problem_of(served.client.get(path, headers={"authorization": wrong.encode()}), 401)
                assert problem["detail"].startswith("The API key of the request is wrong: send")
            assert served.client.get(path, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        assert kind_of(served.predict(JPEG), 401) == "unauthorized"
        assert served.predict(JPEG, headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        assert {served.client.get(path).status_code for path in ("/health", "/ready", "/docs", "/openapi.json")} == {200}
        document = served.client.get("/openapi.json").json()
        assert document["paths"]["/predict"]["post"]["security"] and "security" not in document["paths"]["/health"]["get"]
    assert KEY not in caplog.text and KEY not in repr(served.service.settings)


def test_a_client_may_send_so_many_requests_a_minute(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_015.0  # a quarter of a minute has gone
    monkeypatch.setattr(time, "time", lambda: now)
    with serve(predictor, rate_limit=2) as served:
        assert [served.client.get("/model").status_code for _ in range(2)] == [200, 200]
        response = served.client.get("/model")
        assert kind_of(response, 429) == "too-many-requests" and response.headers["retry-after"] == "45"
        assert served.client.get("/health").status_code == served.client.get("/ready").status_code == 200
        now += 46  # of the last minute's two requests, 59 sixtieths still count
        assert [served.client.get("/model").status_code for _ in range(2)] == [200, 429]
        now += 180
        assert [served.client.get("/model").status_code for _ in range(2)] == [200, 200]


def test_addresses_of_one_customer_are_one_client() -> None:
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff") != client_of("2001:db8:0:1::1")
    assert client_of("10.0.0.1") == "10.0.0.1" and client_of("") == ""
