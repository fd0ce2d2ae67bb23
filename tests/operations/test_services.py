"""The services of compose.yaml without a container engine: run without rights where nothing but /tmp can be written."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import ROOT
from tests.loopback import free_port, wait_until_answered
from tests.operations.proxy import CONFIGURATION, nginx
from tests.serving.predictor_cases import encoded, lesion_image, make_workspace

pytestmark = pytest.mark.operations

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))["services"]
# In a mount name space of its own: everything that is mounted becomes read-only, and /tmp a small memory.
LOCK = """set -e
mount --make-rprivate /
while read -r _ place _; do
  case "$place" in /proc*|/dev*|/sys*) ;; *) mount -o remount,ro,bind "$place" 2>/dev/null || true ;; esac
done < /proc/self/mounts
mount -t tmpfs -o size=256m,mode=1777,noexec,nosuid,nodev tmpfs /tmp
cd "$SERVED"
if touch "$SERVED/written" 2>/dev/null; then echo "not read-only" >&2; exit 9; fi
exec setpriv $RIGHTS --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
"""
USER = "--reuid=10001 --regid=10001 --clear-groups"
ROOT_WITHOUT = "--securebits=+noroot"
UNSHARE = ["unshare", "--mount", "sh", "-c", LOCK, "sh"]


def rights() -> str:
    """Options of setpriv for the container's user; root without capabilities where others cannot reach this Python."""
    environment = os.environ | {"SERVED": "/var/tmp", "RIGHTS": USER}
    probe = [*UNSHARE, "sh", "-c", 'test -x "$0" && "$0" -c "import h11"', sys.executable]
    return USER if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode == 0 else ROOT_WITHOUT


@pytest.fixture(scope="module")
def served() -> Iterator[Path]:
    """What the image holds, and a model. Not below /tmp, which the services have for themselves."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("needs root, unshare and setpriv, to take rights away")
    folder = Path("/var/tmp") / f"served-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        for name in (".streamlit", "skinlesion", "api", "app"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        make_workspace(folder)
        (folder / "metrics").mkdir()
        environment = os.environ | {"SERVED": str(folder), "RIGHTS": ""}
        probe = subprocess.run([*UNSHARE, "true"], env=environment, capture_output=True, text=True, check=False)
        if "Operation not permitted" in probe.stderr or "ermission denied" in probe.stderr:
            pytest.skip(f"this machine lets nobody mount: {probe.stderr}")
        assert probe.returncode == 0, probe.stderr
        yield folder
    finally:
        shutil.rmtree(folder)


def image_environment() -> dict[str, str]:
    """The ENV of Dockerfile.serving, but for PATH."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "deploy/Dockerfile.serving").read_text(encoding="utf-8"))
    pairs = [pair for line in text.splitlines() if line.startswith("ENV ") for pair in line.removeprefix("ENV ").split()]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name != "PATH"}


@contextmanager
def run_locked(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command behind `LOCK` until the block ends."""
    process = subprocess.Popen([*UNSHARE, *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def output_of(process: subprocess.Popen[str]) -> str:
    """All that a process said, once it has ended."""
    return process.stdout.read() if process.stdout else ""


def start(name: str, served: Path, port: int) -> AbstractContextManager[subprocess.Popen[str]]:
    service = SERVICES[name]
    environment = image_environment() | service["environment"]
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "SERVED": str(served), "RIGHTS": rights()}
    if name == "api":
        environment["SKINLESION_PORT"] = str(port)
    return run_locked([str(port) if word == "8501" else word for word in service["command"]], environment)


def status_of(process: subprocess.Popen[str]) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":\t" in line)


@pytest.mark.parametrize(("name", "ready"), [("api", "/ready"), ("app", "/_stcore/health")])
def test_a_service_runs_without_rights_on_a_read_only_file_system(served: Path, name: str, ready: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with start(name, served, port) as process:
        wait_until_answered(f"{url}{ready}", process, lambda: output_of(process))
        status = status_of(process)
        assert Path(f"/proc/{process.pid}/exe").resolve() == Path(sys.executable).resolve()
        assert status["Uid"].split()[0] == ("10001" if "10001" in rights() else "0")  # 0 without capabilities: see `rights`
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and status["NoNewPrivs"].strip() == "1"
        if name == "api":
            answer = httpx.post(f"{url}/predict", files={"files": encoded(lesion_image())}, timeout=30)
            assert answer.status_code == 200 and "mel" in answer.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM, 143), output_of(process)
    assert not (served / "written").exists()


def test_the_proxy_runs_without_rights_on_a_read_only_file_system(served: Path) -> None:
    port, text = free_port(), CONFIGURATION.read_text(encoding="utf-8")
    text = text.replace("listen 8080", f"listen {port}").replace("listen 8501", f"listen {free_port()}")
    (served / "nginx.conf").write_text(text, encoding="utf-8")
    service = SERVICES["proxy"]
    command = [nginx(), "-c", str(served / "nginx.conf"), *service["command"]]
    environment = os.environ | {"SERVED": str(served), "RIGHTS": USER}
    with run_locked(command, environment) as process:
        health = f"http://127.0.0.1:{port}/health"
        wait_until_answered(health, process, lambda: output_of(process), statuses=(502,))  # no API is there
        status = status_of(process)
        assert status["Uid"].split()[0] == "10001" and int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        process.send_signal(signal.Signals[service["stop_signal"]])
        assert process.wait(30) == 0
