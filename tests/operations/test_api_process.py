"""The API as a process: fuzzed by its own documentation, stopped under load, and started where it cannot be."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.api.cases import image_file
from tests.conftest import ROOT
from tests.operations.api_process import Running, api_process
from tests.serving.predictor_cases import make_workspace

pytestmark = pytest.mark.operations

JPEG = image_file()
FUZZ_SECONDS = 40
STOP_SECONDS = 15  # torch takes its time to be unloaded on a busy machine
# A file that is no image, and a name that is no operating point, are refused although the documentation's types allow them. In
# a multipart body everything is text besides, so that what violates a type on paper (a number for a name) need not on the wire.
NOT_CHECKED = "positive_data_acceptance,negative_data_rejection"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("served"), [{"metadata": True}])


def test_no_request_that_its_documentation_allows_or_forbids_breaks_it(root: Path, tmp_path: Path) -> None:
    with api_process(root, tmp_path, rate_limit=0) as running:
        command = [Path(sys.executable).parent / "schemathesis", "run", f"{running.url}/openapi.json", "--checks", "all"]
        command += ["--exclude-checks", NOT_CHECKED, "--max-time", str(FUZZ_SECONDS), "--max-examples", "1000", "--seed", "1"]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.operations.fuzz_files", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 300, done.stdout[-2000:]
        requests = [line for line in running.log() if line["message"] == "request"]
        answered = {(line["route"], line["status"]) for line in requests}
        assert {("/predict", 200), ("/explain", 200)} <= answered
        assert not any(line["level"] == "ERROR" or line.get("status") == 500 for line in running.log())


def ask_until_refused(running: Running, number: int, statuses: dict[str, int]) -> None:
    """Send requests, each over a connection of its own, until there is none to be had; note what they were answered."""
    for count in range(10_000):
        request_id = f"{number}-{count}"
        try:
            headers = {"x-request-id": request_id}
            response = httpx.post(f"{running.url}/predict", files={"files": JPEG}, headers=headers, timeout=30)
        except httpx.TransportError:
            if running.process.poll() is not None or count:
                return
            raise
        statuses[request_id] = response.status_code
        assert response.json()["request_id"] == request_id


@pytest.mark.parametrize("drain_seconds", [0, 1])
def test_a_stop_under_load_loses_no_request_that_was_taken(root: Path, tmp_path: Path, drain_seconds: int) -> None:
    with api_process(root, tmp_path, rate_limit=0, drain_seconds=drain_seconds) as running:
        statuses: dict[str, int] = {}
        clients = [threading.Thread(target=ask_until_refused, args=(running, number, statuses)) for number in range(8)]
        for client in clients:
            client.start()
        time.sleep(2)
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < STOP_SECONDS
        for client in clients:
            client.join(30)
        taken = {line["id"]: line["status"] for line in running.log() if line.get("route") == "/predict"}
        assert len(taken) > 16 and set(taken.values()) == {200}
        assert statuses == taken  # what the server has taken on, its clients have had answered
        assert running.log()[-1]["message"] == "stopped"


def test_while_it_drains_it_is_not_ready_and_answers(root: Path, tmp_path: Path) -> None:
    with api_process(root, tmp_path, drain_seconds=60) as running:
        assert any("for this machine alone" in line["message"] for line in running.log())
        running.process.terminate()
        time.sleep(0.5)
        ready = httpx.get(f"{running.url}/ready")
        assert (ready.status_code, ready.json()["detail"]) == (503, "The server is stopping.")
        assert httpx.post(f"{running.url}/predict", files={"files": JPEG}).status_code == 200
        running.process.terminate()  # the second time: no more draining
        assert running.process.wait(STOP_SECONDS) == 0


def test_a_request_in_work_is_cut_off_at_the_limit(root: Path, tmp_path: Path) -> None:
    with api_process(root, tmp_path, drain_seconds=0, stop_seconds=1) as running:
        connection = socket.create_connection(("127.0.0.1", running.port))
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n")
        connection.sendall(b"Content-Length: 9999\r\n\r\n--x")
        time.sleep(0.3)
        assert running.stop(STOP_SECONDS) == 0
        connection.close()


def start(environment: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Start the API where it should end at once."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SKINLESION_")}
    command = [sys.executable, "-m", "api"]
    return subprocess.run(command, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=90, check=False)


def test_what_keeps_it_from_starting_is_said_in_one_line(root: Path, tmp_path: Path) -> None:
    free = {"SKINLESION_PORT": "0"}
    no_model = start(free | {"SKINLESION_ROOT": str(tmp_path)})
    assert no_model.returncode == 1
    assert no_model.stderr.strip().startswith("error: ") and "`make run` trains one" in no_model.stderr
    assert "Traceback" not in no_model.stderr + no_model.stdout
    misspelt = start(free | {"SKINLESION_ENGIN": "torch"})
    assert misspelt.returncode == 1 and "did you mean 'SKINLESION_ENGINE'" in misspelt.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        second = start({"SKINLESION_PORT": str(port), "SKINLESION_ROOT": str(root)})
    assert second.returncode == 1
    assert f"error: port {port} of 127.0.0.1 is not available (Address already in use): set SKINLESION_PORT" in second.stderr
