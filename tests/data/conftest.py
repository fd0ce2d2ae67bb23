"""The stage `download` on files of a local source."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stages import download
from tests.conftest import WriteParams
from tests.data.download_cases import Content, write_files


@pytest.fixture
def take(write_params: WriteParams, workspace: Path) -> Callable[[Content], Path]:
    """Run the stage on a local folder with the given files; returns `data/raw`."""

    def run(files: Content, path: str = "source", expect: str = "any") -> Path:
        write_files(workspace / "source", files)
        write_params({"download.source": "local", "download.path": path, "download.expect": expect})
        download.main()
        return workspace / "data" / "raw"

    return run
