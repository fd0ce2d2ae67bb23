"""A real nginx on the loopback with the configuration of deploy/proxy, before an API or a demo that runs there."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.loopback import free_port, wait_until_answered

CONFIGURATION = ROOT / "deploy" / "proxy" / "nginx.conf"


def nginx() -> str:
    """The program; without it the test is skipped, or fails where BROWSER_REQUIRED is set, as those of Chromium."""
    path = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        reason = "needs nginx: `ci/browser.sh` installs it where it can, otherwise `sudo apt-get install nginx-light`"
        if os.environ.get("BROWSER_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def configure(folder: Path, *, api: int, app: int = 1) -> tuple[Path, int, int]:
    """The configuration with the ports of this machine, a folder in place of /tmp, and warnings; its ports for API and demo."""
    text = CONFIGURATION.read_text(encoding="utf-8")
    ports = free_port(), free_port()
    changes = {
        "listen 8080": f"listen 127.0.0.1:{ports[0]}",
        "listen 8501": f"listen 127.0.0.1:{ports[1]}",
        " /tmp/": f" {folder}/",
    }
    changes |= {"api:8000": f"127.0.0.1:{api}", "app:8501": f"127.0.0.1:{app}", "error_log stderr error": "error_log stderr warn"}
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = folder / "nginx.conf"
    # Started by root, it would change to a user who may not enter the tests' folders.
    file.write_text(f"user root;\n{text}" if os.geteuid() == 0 else text, encoding="utf-8")
    return file, *ports


@contextmanager
def proxy(folder: Path, *, api: int, app: int = 1) -> Iterator[tuple[int, int]]:
    """Run it; its ports for the API and the demo. `folder` gets nginx's messages, in `nginx.log`."""
    program = nginx()
    file, *ports = configure(folder, api=api, app=app)
    with (folder / "nginx.log").open("wb") as log:
        command = [program, "-e", "stderr", "-c", str(file), "-g", "daemon off;"]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        nginx_log = folder / "nginx.log"
        wait_until_answered(f"http://127.0.0.1:{ports[0]}/", process, lambda: nginx_log.read_text(), statuses=range(600))
        yield ports[0], ports[1]
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)
