"""The benchmark of serving: what its clients count, how engines are compared, and that what it builds can be served."""

import json
import math
import socketserver
import threading
from pathlib import Path
from typing import Any

import pytest

from benchmarks import serving
from skinlesion.serving.predictor import load_predictor
from tests.conftest import WriteParams
from tests.serving.predictor_cases import lesion_image, make_workspace

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"


class Scripted(socketserver.StreamRequestHandler):
    """Answers every third request with 503, and closes the connection in place of every seventh answer."""

    number = 0
    images: set[bytes] = set()  # noqa: RUF012 the server makes a handler a connection

    def handle(self) -> None:
        while line := self.rfile.readline():
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
            if line == b"\r\n":
                Scripted.images.add(self.rfile.read(length).split(b"\r\n")[-3])
                Scripted.number += 1
                if Scripted.number % 7 == 0:
                    return
                self.wfile.write(BUSY if Scripted.number % 3 == 0 else OK)


def test_what_was_answered_and_what_was_not_is_counted(tmp_path: Path) -> None:
    for name, content in {"a.jpg": b"a", "b.jpg": b"bb" * 5000}.items():
        (tmp_path / name).write_bytes(content)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Scripted) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        load = serving.load_server(server.server_address[1], tmp_path, clients=3, seconds=4)
        server.shutdown()
    assert load["images"] + load["errors"] == Scripted.number and Scripted.images == {b"a", b"bb" * 5000}
    assert load["errors"] == Scripted.number // 3 + Scripted.number // 7 - Scripted.number // 21 > 0
    assert load["error_rate"] == load["errors"] / Scripted.number
    assert 0 <= load["p50_ms"] <= load["p95_ms"] < 4000 and load["images_per_second"] > 0


def test_a_load_generator_that_fails_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LOCUSTFILE", tmp_path / "none.py")
    with pytest.raises(serving.PipelineError, match=r"(?s)Locust \(pip install -r .*\) ended with .* and no result.*none\.py"):
        serving.load_server(9, tmp_path, clients=1, seconds=1)


def test_engines_are_compared_within_a_round() -> None:
    def found(speed: float) -> dict[str, float]:
        return {"images_per_second": speed, "p50_ms": 1000 / speed, "p95_ms": 2000 / speed}

    rounds = {"torch": [found(10), found(20), found(5)], "onnx": [found(30), found(40), found(20)]}
    summary = serving.summarize(rounds)
    assert summary["torch"] == {"images_per_second": 10, "p50_ms": 100, "p95_ms": 200, "to_first": 1}
    assert (summary["onnx"]["images_per_second"], summary["onnx"]["to_first"]) == (30, 3)


def test_requests_that_fail_and_memory_that_grows_are_no_success() -> None:
    def found(*, images: int = 9, errors: int = 0, end: float = 104) -> dict[str, Any]:
        speeds = {"images_per_second": images / 3, "p50_ms": 1.0, "p95_ms": 1.0}
        return speeds | {"images": images, "errors": errors, "memory_mb": {"start": 50, "middle": 100, "end": end}}

    serving.check({"torch": [found()], "onnx": [found(), found()]})
    with pytest.raises(serving.PipelineError, match="onnx: 1 of 19 requests failed"):
        serving.check({"torch": [found()], "onnx": [found(errors=1), found()]})
    with pytest.raises(serving.PipelineError, match="torch: memory grew from 100 to 106 MB in the second half of round 2"):
        serving.check({"torch": [found(), found(end=106)]})
    nothing = {"torch": [found(images=0, errors=3)], "onnx": [found()]}
    assert math.isnan(serving.summarize(nothing)["onnx"]["to_first"])
    with pytest.raises(serving.PipelineError, match="torch: 3 of 3"):
        serving.check(nothing)


def test_what_it_builds_can_be_served(write_params: WriteParams, tmp_path: Path) -> None:
    write_params()
    serving.build_workspace(tmp_path / "built", "mobilenet_v3_small", 32)
    predictor = load_predictor(tmp_path / "built", device="cpu")
    assert predictor.config.size == 32 and len(predictor.predict([lesion_image()])[0].probabilities) == 7


@pytest.fixture
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "WARM_UP_SECONDS", 1)
    monkeypatch.setattr(serving, "MORE_MEMORY", 2)  # it grows until batches of every size were there


@pytest.mark.operations
def test_a_server_that_does_not_start_is_explained(tmp_path: Path) -> None:
    with pytest.raises(serving.PipelineError, match=r"the API did not start: error: .*no trained classifier"):  # noqa: SIM117
        with serving.serve(tmp_path, tmp_path / "log"):
            pass


@pytest.mark.operations
@pytest.mark.usefixtures("short_warm_up")
def test_the_exported_engines_are_served_too(write_params: WriteParams, capsys: pytest.CaptureFixture[str]) -> None:
    write_params()
    options = "--backbone mobilenet_v3_small --size 64 --engines torch onnx onnx-int8 --seconds 1 --clients 2"
    serving.main(options.split())
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[1:4]] == ["torch", "onnx", "onnx-int8"]
    assert all("errors 0.00 %" in line for line in printed[1:4])


@pytest.mark.operations
@pytest.mark.usefixtures("short_warm_up")
def test_the_command_measures_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_workspace(tmp_path / "workspace")
    serving.main(f"--workspace {root} --seconds 2 --rounds 2 --clients 4 --json {tmp_path / 'found.json'}".split())
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("torch") and "errors 0.00 %" in printed[1] and len(printed) == 4
    written = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    first = written["engines"]["torch"][0]
    assert first["errors"] == 0 and first["images"] > 10 and set(first["memory_mb"]) == {"start", "middle", "end"}
    assert 0 < first["client_cpu_share"] <= 1.05 and 0 < first["server_cpu_share"] <= 1.05
