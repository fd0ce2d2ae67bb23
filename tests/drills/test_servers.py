"""Drill: a server that cuts, stalls, lies and refuses, in any order. An honest one's data or a refusal; never a wrong file."""

import multiprocessing
import os
import random
import shutil
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from skinlesion.base.errors import run_stage
from skinlesion.data.sources import dataverse, transfer
from stages import download
from tests.conftest import WriteParams
from tests.data.download_cases import dataverse_files, pack, publish
from tests.data.scripted_server import Answer, Scripted, serve
from tests.drills.conftest import wants_full
from tests.drills.ledger import Corrupt, Ledger
from tests.stage_cases import bytes_below

SHORT, FULL = 8, 200  # rounds of answers drawn at random
ANSWERS = 16  # bad ones in a round, at most
SCRATCH = Path(".resume/download/dataverse")
# How a run may end that does not bring the data; each message says what came, and what to do.
REFUSALS = ("tries in a row brought nothing", "has the MD5", "cannot be downloaded: HTTP", "sends more than the")

Files = tuple[dataverse.RemoteFile, ...]
Ended = tuple[int, str]  # exit code of a process, and what it said
Draw = Callable[[random.Random], Answer]
BAD_ANSWERS: dict[str, Draw] = {
    "cut": lambda chance: Answer(cut_after=chance.randrange(0, 6000)),
    "cut without a length": lambda chance: Answer(cut_after=chance.randrange(0, 6000), chunked=True),
    "stall": lambda chance: Answer(stall=0.6),
    "503": lambda chance: Answer(status=chance.choice([500, 502, 503, 504]), headers=_wait(chance)),
    "429": lambda chance: Answer(status=429, headers=_wait(chance)),
    "wrong bytes": lambda chance: Answer(body=chance.randbytes(chance.randrange(0, 9000))),
    "wrong bytes of another file": lambda chance: Answer(body=pack({"ISIC_0000000.jpg": chance.randbytes(300)})),
    "a web page": lambda chance: Answer(body=b"<html>maintenance</html>", headers={"Content-Type": "text/html"}),
    "a false length": lambda chance: Answer(announced=chance.randrange(0, 20_000)),
    "Range ignored": lambda chance: Answer(ignore_range=True),
    "all of it as a part": lambda chance: Answer(whole=True),
    "a false part": lambda chance: Answer(content_range=f"bytes {chance.randrange(0, 500)}-999/1000"),
    "a part without a place": lambda chance: Answer(content_range="nonsense"),
    "said to be packed": lambda chance: Answer(headers={"Content-Encoding": "gzip"}),
    "sent elsewhere": lambda chance: Answer(status=302, headers={"Location": "/nowhere"}),
    "refused": lambda chance: Answer(status=chance.choice([204, 401, 403, 404, 410])),
}


def _wait(chance: random.Random) -> dict[str, str]:
    """A Retry-After in any of the forms that there are, or none."""
    value = chance.choice([None, "0", "1", "86400", "-1", "soon", "", formatdate(usegmt=True), "Mon, 99 Foo 2026", "9" * 400])
    return {} if value is None else {"Retry-After": value}


def play(place: str, url: str, files: Files, log: str) -> None:
    """`python -m stages.download` in a process of its own, with our server and its checksums in the place of Harvard's."""
    os.chdir(place)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    dataverse.SERVER, dataverse.FILES = url, files
    transfer.FIRST_WAIT = 0.001
    transfer.RETRY = transfer.RETRY.new(backoff_factor=0.001, backoff_max=0.01, retry_after_max=0.02)
    transfer.TIMEOUT, transfer.PIECE = (5.0, 0.3), 100
    run_stage(download.main)


def run(server: Scripted, files: Files) -> Ended:
    """One run of the stage in the working directory, begun from a process that has imported what it needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stages.download", "torchvision"])
    log = Path("log.txt").absolute()
    process = context.Process(target=play, args=(str(Path.cwd()), server.url, files, str(log)))
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"still running after 120 s: {log.read_text(encoding='utf-8')}")
    return process.exitcode, log.read_text(encoding="utf-8")


@pytest.fixture
def published(workspace: Path, write_params: WriteParams) -> dict[str, bytes]:
    """The four files of the data set, small; `params.yaml` asks for them."""
    write_params({"download.source": "dataverse", "download.expect": "any"})
    return dataverse_files()


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serve() as scripted:
        yield scripted


@pytest.fixture
def files(published: dict[str, bytes], server: Scripted) -> Files:
    """As `dataverse.FILES`, with the checksums of ours; the server has them."""
    return publish(published, server)


def check_scratch(published: dict[str, bytes]) -> None:
    """A file that is there under its own name was verified; what is not whole is called `.part`."""
    for path in SCRATCH.iterdir() if SCRATCH.is_dir() else ():
        if path.suffix != ".part" and path.read_bytes() != published[path.name]:
            raise Corrupt(f"{path.name} is not what is published")


def check_end(ended: Ended, expected: dict[str, bytes], published: dict[str, bytes]) -> bool:
    """Whether the data came; raises where something wrong came, or where it is not said why nothing did."""
    code, output = ended
    assert "Traceback" not in output, output
    check_scratch(published)
    left = bytes_below("data")
    if code == 0:
        if left != expected:
            raise Corrupt("the stage succeeded with other data than an honest server's")
        return True
    last = output.strip().splitlines()[-1]
    assert code == 1 and last.startswith("error: "), output
    assert any(refusal in last for refusal in REFUSALS), last
    if left:
        raise Corrupt(f"left behind after a refusal: {', '.join(left)}")
    return False


def test_bad_answers(server: Scripted, files: Files, published: dict[str, bytes], ledger: Ledger) -> None:
    assert run(server, files)[0] == 0
    expected = bytes_below("data")
    full = wants_full()
    plans = [(name, [name] * count) for name in BAD_ANSWERS for count in ((1, 12) if full else ())]
    for seed in range(FULL if full else SHORT):
        chance = random.Random(seed)
        plans.append(("a mixture of these", chance.choices(sorted(BAD_ANSWERS), k=chance.randint(1, ANSWERS))))
    for number, (fault, kinds) in enumerate(plans):
        shutil.rmtree("data")
        shutil.rmtree(".resume", ignore_errors=True)
        chance = random.Random(number)
        with ledger.round("servers", fault) as facts:
            server.answers = [BAD_ANSWERS[kind](chance) for kind in kinds]
            for place in sorted(chance.sample(range(len(kinds) + 1), k=min(2, len(kinds)))):
                server.answers.insert(place, Answer())  # an honest answer now and then, so that later files have their turn
            came = check_end(run(server, files), expected, published)
            facts["refused"] = not came
            # What is wrong in a partial file shows at the end of it: it is deleted, and the next run begins anew.
            for _ in range(3):
                server.answers = []
                if not came:
                    came = check_end(run(server, files), expected, published)
            assert came, "an honest server does not help any more"
