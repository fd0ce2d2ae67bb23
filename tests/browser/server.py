"""`make app`, started for the tests in a workspace of its own, in which it can write no file."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.evaluation.inference.identity import classifier_digest
from tests.conftest import ROOT
from tests.loopback import free_port, wait_until_answered
from tests.serving.predictor_cases import make_workspace, write_measured


@dataclass
class Served:
    """A running demo. folder : its workspace. home : home and temporary folder of the process. log : what it said so far."""

    url: str
    folder: Path
    home: Path
    log: list[str] = field(default_factory=list)

    def train(self, *members: dict[str, Any], synthetic: bool = True) -> None:
        """Put another classifier into the workspace; each member is overrides of `make_config`."""
        shutil.rmtree(self.folder / "models", ignore_errors=True)
        data = {"source": "sample" if synthetic else "dataverse", "synthetic": synthetic}
        make_workspace(self.folder, [{"backbone": "squeezenet1_1", "data": data} | member for member in members or ({},)])
        write_measured(self.folder, classifier_digest(self.folder / CLASSIFIER))


@contextmanager
def serve(folder: Path, home: Path, command: Sequence[str] = ()) -> Iterator[Served]:
    """Run `make app`, or the container's command, in a folder that has what a clone has, until the block ends.

    The process may not write a byte to a file (`ulimit -f 0`): what is uploaded cannot get to a disk, not even for a moment.
    """
    for name in ("app", "skinlesion", "Makefile", ".streamlit"):
        (folder / name).symlink_to(ROOT / name)
    home.mkdir()
    port = free_port()
    installed = f"{sys.prefix}/.installed-app"
    make = ["make", "--no-print-directory", f"--old-file={installed}", f"VENV={sys.prefix}", f"PORT={port}", "app"]
    words = [str(port) if word == "8501" else word for word in command or make]
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment.pop("PYTHONPATH", None)
    served = Served(f"http://127.0.0.1:{port}", folder, home)
    limited = ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(limited, cwd=folder, env=environment, start_new_session=True, **streams) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=served.log.extend, args=[process.stdout], daemon=True)
        reader.start()
        try:
            wait_until_answered(f"{served.url}/_stcore/health", process, lambda: "".join(served.log))
            yield served
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            reader.join(10)
