"""The proxy before the API: slow clients, connections, bodies and malformed requests end at it, and the API lives on."""

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.api.cases import BODY_START, MULTIPART, image_file, kind_of
from tests.operations.api_process import Running, api_process, send_raw
from tests.operations.proxy import CONFIGURATION, configure, nginx, proxy
from tests.serving.predictor_cases import make_workspace

pytestmark = pytest.mark.operations

JPEG = image_file()
TEXT = CONFIGURATION.read_text(encoding="utf-8")
CLIENT, PAUSE = (int(re.search(pattern, TEXT)[1]) for pattern in (r"limit_conn client (\d+);", r"client_body_timeout (\d+)s;"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The API, called at the port of the proxy."""
    nginx()
    root, folder = make_workspace(tmp_path_factory.mktemp("served")), tmp_path_factory.mktemp("proxy")
    settings = {"rate_limit": 0, "trusted_proxies": "127.0.0.1", "request_seconds": 8}
    with api_process(root, tmp_path_factory.mktemp("process"), **settings) as one, proxy(folder, api=one.port) as ports:
        one.port = ports[0]
        yield one
        assert "temporary file" not in (folder / "nginx.log").read_text(encoding="utf-8")  # to which no body or answer went
        assert not any(line["level"] == "ERROR" for line in one.log())


def connect(running: Running, stack: ExitStack, address: str) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", running.port), source_address=(address, 0), timeout=30))


def request(headers: bytes, body: bytes = b"") -> bytes:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return head + headers + b"\r\n" + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def test_nginx_accepts_the_configuration(tmp_path: Path) -> None:
    file, *_ = configure(tmp_path, api=1)
    done = subprocess.run([nginx(), "-e", "stderr", "-t", "-c", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "warn" not in done.stderr, done.stderr


def test_a_prediction_passes_with_the_id_and_the_address_of_its_client(running: Running) -> None:
    files, headers = {"files": JPEG}, {"x-request-id": "mine-1", "x-forwarded-for": "10.9.9.9"}
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.77")) as client:
        response = client.post(f"{running.url}/predict", files=files, headers=headers)
    assert response.status_code == 200 and response.headers["x-request-id"] == response.json()["request_id"] == "mine-1"
    given = httpx.get(f"{running.url}/ready", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", given)
    assert kind_of(httpx.get(f"{running.url}/problem"), 404) == "not-found"  # the place of the proxy's own problems
    body = (BODY_START + bytes(9_000_000) + b"\r\n") * 3 + b"--x--\r\n"
    for content in (body, iter([body])):  # with a length, and in chunks
        many = httpx.post(f"{running.url}/predict", content=content, headers=MULTIPART, timeout=30)
        assert kind_of(many, 415) == "unsupported-type"
    line = next(line for line in running.log() if line["id"] == "mine-1")
    assert (line["client"], line["status"]) == ("127.0.0.77", 200)


def test_a_body_beyond_the_limit_is_refused_by_its_length_or_once_it_has_come(running: Running) -> None:
    def endless() -> Iterator[bytes]:
        yield request(b"Transfer-Encoding: chunked\r\n")
        yield b"%x\r\n%s\r\n" % (len(BODY_START), BODY_START)
        while True:
            yield b"%x\r\n%s\r\n" % (1_000_000, bytes(1_000_000))

    started = time.monotonic()
    assert status_of(send_raw(running.port, endless())) == 413
    assert time.monotonic() - started < 20
    stated = send_raw(running.port, [request(b"Content-Length: 99999999999\r\nConnection: close\r\n")])
    assert status_of(stated) == 413 and b'"/docs#body-too-large"' in stated and b"32 MB" in stated


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 99999999999999999999999\r\n", b""),
        (b"Content-Length: -1\r\n", b""),
        (b"Content-Length: 10\r\nConnection: close\r\n", BODY_START + JPEG),  # cut in the middle of a part
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\nConnection: close\r\n", b"zz\r\n"),
        (b"A: " + b"b" * 40_000 + b"\r\n", b""),
    ],
)
def test_a_length_or_header_that_is_not_true_is_a_problem(running: Running, headers: bytes, body: bytes) -> None:
    answer = send_raw(running.port, [request(headers, body)])
    assert status_of(answer) == 400
    assert b"application/problem+json" in answer and re.search(rb"(?i)x-request-id: [0-9a-f]{32}\r\n", answer)
    assert running.predict(JPEG).status_code == 200


def test_slow_clients_are_cut_off_and_nobody_else_waits(running: Running) -> None:
    """Silent ones, headers that trickle, and a body that pauses; each is closed without an answer."""
    started = time.monotonic()
    with ExitStack() as stack:
        silent = [connect(running, stack, f"127.0.0.{2 + number // 20}") for number in range(200)]
        trickling, pausing = connect(running, stack, "127.0.1.1"), connect(running, stack, "127.0.1.2")
        trickling.sendall(b"GET / HTTP/1.1\r\nA: ")
        pausing.sendall(request(b"Content-Length: 1000\r\n", BODY_START))
        for _ in range(2 * PAUSE):
            with suppress(OSError):  # closed by the proxy, as the end of the test demands
                trickling.sendall(b"a")
            assert running.predict(JPEG).status_code == 200
            time.sleep(1)
        for one in (*silent, trickling, pausing):
            one.settimeout(1)
            with suppress(ConnectionResetError):
                assert one.recv(100) == b""
    assert time.monotonic() - started < 5 * PAUSE


def test_a_client_has_so_many_requests_at_a_time_and_the_others_are_served(running: Running) -> None:
    with ExitStack() as stack:
        for _ in range(CLIENT):
            connect(running, stack, "127.0.0.9").sendall(request(b"Content-Length: 1000\r\n", BODY_START))
        time.sleep(0.3)
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.9")) as client:
            refused = client.get(f"{running.url}/model")
        assert kind_of(refused, 503) == "busy" and refused.headers["retry-after"] == "1"
        assert running.predict(JPEG).status_code == 200
        metrics = httpx.get(f"{running.url}/metrics").text
    assert "skinlesion_requests_in_work 0.0" in metrics  # a body that is not whole has not reached the API


def test_a_client_that_does_not_read_is_cut_off(running: Running) -> None:
    with ExitStack() as stack:
        connections = []
        for _ in range(2):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", running.port))
            connection.settimeout(0.5)
            connections.append(connection)
            with suppress(TimeoutError):
                connection.sendall(b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n" * 900)
        time.sleep(3 * PAUSE)
        for connection in connections:
            with pytest.raises(ConnectionResetError):
                while connection.recv(65_536):
                    pass
    assert running.predict(JPEG).status_code == 200


def test_a_client_that_goes_away_leaves_nothing_behind(running: Running) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(request(b"Content-Length: 100000\r\n", BODY_START))
    assert running.predict(JPEG).status_code == 200
    text = httpx.get(f"{running.url}/metrics").text
    assert "skinlesion_requests_in_work 0.0" in text and "skinlesion_queued_images 0.0" in text


@pytest.mark.parametrize("path", ["/health", "/ready", "/docs", "/openapi.json", "/nothing", "/predict"])
def test_head_passes_and_leaves_the_connection_whole(running: Running, path: str) -> None:
    with httpx.Client(base_url=running.url) as client:  # one connection: a body after HEAD would spoil the next answer
        for _ in range(2):
            head, get = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (get.status_code, b"") and get.content
            assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_while_the_api_is_away_requests_are_answered_by_a_problem(tmp_path: Path) -> None:
    with proxy(tmp_path, api=1) as (port, _):
        away = httpx.head(f"http://127.0.0.1:{port}/health")
        assert (away.status_code, away.content, away.headers["retry-after"]) == (502, b"", "1")
        assert kind_of(httpx.get(f"http://127.0.0.1:{port}/model"), 502) == "not-ready"


def test_the_demos_websocket_passes(tmp_path: Path) -> None:
    """A handshake reaches what stands for the demo as it is, and so does what follows."""
    with socket.create_server(("127.0.0.1", 0)) as demo:
        heard: list[bytes] = []

        def answer() -> None:
            connection, _ = demo.accept()
            with connection:
                heard.append(connection.recv(10_000))
                connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
                heard.append(connection.recv(100))

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            proxy(tmp_path, api=1, app=demo.getsockname()[1]) as (_, port),
            socket.create_connection(("127.0.0.1", port), timeout=20) as client,
        ):
            client.sendall(b"GET /_stcore/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 101 ")
            client.sendall(b"frame")
            thread.join(20)
    assert b"upgrade: websocket" in heard[0].lower() and heard[1] == b"frame"
