"""Running DVC from Python: always the one of this interpreter, so that a virtual environment need not be activated."""

import json
import subprocess
import sys
from typing import Any

from skinlesion.base.errors import PipelineError


def run_dvc(*arguments: str) -> str:
    """Run `dvc` with `arguments` in the working directory; its standard output. Its warnings go to our standard error.

    Raises
    ------
    PipelineError
        DVC ended with an error, which is part of the message.
    """
    ended = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise PipelineError(f"`dvc {' '.join(arguments)}` failed: {ended.stderr.strip() or ended.stdout.strip()}")
    sys.stderr.write(ended.stderr)
    return ended.stdout


def run_dvc_json(*arguments: str) -> dict[str, Any]:
    """The JSON object that a `dvc` command prints with `--json`."""
    printed = run_dvc(*arguments, "--json")
    try:
        return json.loads(printed)
    except json.JSONDecodeError as error:
        raise PipelineError(f"`dvc {' '.join(arguments)} --json` printed no JSON ({error}): is dvc 3.67 installed?") from None
