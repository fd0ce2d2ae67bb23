"""A download from Dataverse killed between its files and within them: the next one asks for what is missing, and no more."""

import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import sleep

import pytest

from skinlesion.base.errors import run_stage
from skinlesion.data.sources import transfer
from stages import download
from tests.conftest import WriteParams
from tests.data.scripted_server import Answer, Scripted
from tests.data.test_download_servers import harvard
from tests.drills.conftest import seed_of_moments, wants_full
from tests.drills.ledger import Ledger
from tests.drills.project import hold, wait_for
from tests.stage_cases import bytes_below

__all__ = ["harvard"]  # the fixture: a server of our own with a small data set

STALL = 0.5  # seconds before the last byte of each file


@pytest.fixture
def slow(harvard: Scripted, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """That server, slow enough to be hit at each file."""
    write_params({"download.source": "dataverse", "download.expect": "any"})
    harvard.always = Answer(stall=STALL)
    monkeypatch.setattr(transfer.time, "sleep", sleep)  # which the server's fixture takes away
    yield harvard


@pytest.mark.parametrize("files", (1, 2, 3, 4) if wants_full() else (3,))
def test_only_what_is_missing_is_asked_for_again(slow: Scripted, workspace: Path, ledger: Ledger, files: int) -> None:
    seed = seed_of_moments()
    moment = Random(f"{seed} file {files}").uniform(0.0, STALL / 2)  # of the last file no more, or it would be whole
    with ledger.round("interrupted", "SIGKILL of a download from Dataverse") as facts:
        download.main()
        raw = workspace / "data/raw"
        undisturbed = bytes_below(raw)
        kept = workspace / ".resume/download/dataverse"
        shutil.rmtree(kept)
        before = len(slow.asked)
        process = multiprocessing.get_context("fork").Process(target=run_stage, args=(download.main,))
        process.start()
        wait_for(lambda: len(slow.asked) >= before + files, "a request")
        sleep(moment)
        process.kill()
        process.join()
        facts |= {"seed": seed, "moment": round(moment, 3)}
        hold("data/raw after the kill", bytes_below(raw), undisturbed)  # the old content stays until the new one is whole
        whole = [path.name for path in kept.iterdir() if path.suffix != ".part"]
        assert len(whole) >= files - 1
        before = len(slow.asked)
        download.main()
        assert len(slow.asked) - before == 4 - len(whole)
        hold("data/raw", bytes_below(raw), undisturbed)
        assert list((workspace / "data").glob(".*.partial")) == []
