"""`download` from Harvard Dataverse (a server of our own plays it) and from Kaggle (its package, real and replaced)."""

import hashlib
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kagglesdk import kaggle_env

from skinlesion.artifacts.raw import read_provenance
from skinlesion.base.web import user_agent
from skinlesion.data.sources import dataverse, transfer
from stages import download
from tests.conftest import ROOT, WriteParams, refuses
from tests.data.download_cases import dataverse_files, kaggle_files, pack, publish
from tests.data.scripted_server import FORBIDDEN, Answer, Scripted, serve
from tests.pipeline.clone import copy_working_tree, user_environment

SCRATCH = Path(".resume/download")


@pytest.fixture
def harvard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """A server with a small data set under Dataverse's names and ids."""
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(transfer, "PIECE", 100)
    with serve() as scripted:
        monkeypatch.setattr(dataverse, "SERVER", scripted.url)
        monkeypatch.setattr(dataverse, "FILES", publish(dataverse_files(), scripted))
        yield scripted


def test_dataverse_through_cuts_and_refusals(harvard: Scripted, workspace: Path, write_params: WriteParams) -> None:
    write_params({"download.source": "dataverse", "download.expect": "any"})
    harvard.answers = [Answer(), Answer(cut_after=500), Answer(status=503), Answer(status=429, headers={"Retry-After": "0"})]
    download.main()
    provenance = read_provenance(workspace / "data" / "raw")
    assert {entry["name"]: entry["md5"] for entry in provenance["files"]} == {file.name: file.md5 for file in dataverse.FILES}
    assert (provenance["source"], provenance["origin"]) == ("dataverse", "https://doi.org/10.7910/DVN/DBW86T")
    assert provenance["counts"]["masks"] == 10
    header = (workspace / "data" / "raw" / "metadata.csv").read_text().splitlines()[0]
    assert header == "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"
    assert harvard.asked[0] == ("/4338392?format=original", None)
    assert harvard.asked[2] == ("/3838943", "bytes=500-")


def test_dataverse_keeps_what_is_verified(harvard: Scripted, workspace: Path, write_params: WriteParams) -> None:
    write_params({"download.source": "dataverse"})
    refuses("not the whole of HAM10000", download.main)
    assert len(list((workspace / SCRATCH / "dataverse").iterdir())) == 4
    asked = len(harvard.asked)
    write_params({"download.source": "dataverse", "download.expect": "any"})
    download.main()
    download.main()
    assert len(harvard.asked) == asked
    archive = workspace / SCRATCH / "dataverse" / "HAM10000_images_part_2.zip"
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    before = (workspace / "data/raw/provenance.json").read_bytes()
    download.main()
    assert harvard.asked[asked:] == [("/3172584", None)]  # the damaged one alone
    assert (workspace / "data/raw/provenance.json").read_bytes() == before


def test_dataverse_with_wrong_bytes(harvard: Scripted, workspace: Path, write_params: WriteParams) -> None:
    write_params({"download.source": "dataverse", "download.expect": "any"})
    content = harvard.files["/3172585"]
    harvard.files["/3172585"] = content[:-1] + bytes([content[-1] ^ 1])
    refuses(r"HAM10000_images_part_1\.zip has the MD5", download.main)
    assert not (workspace / "data" / "raw").exists()
    kept = {path.name for path in (workspace / SCRATCH / "dataverse").iterdir()}
    assert kept == {"HAM10000_metadata", "HAM10000_segmentations_lesion_tschandl.zip"}


def page(body: str, status: int | None = None, kind: str = "text/html", **headers: str) -> Answer:
    """A page or another text in place of the file."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body=body.encode(), headers={"Content-Type": kind} | named)


LOGIN = '<!DOCTYPE html><title>Harvard Key</title><form><input name="p" type="password"></form>'
ANSWERS_THAT_STAY = [
    (Answer(status=403, body=FORBIDDEN), r"HTTP 403 \(access is refused, which says '403 Forbidden'\)"),
    (page('{"status":"ERROR","message":"Guestbook required"}', 403, "application/json"), r"refused, which says 'Guestbook requi"),
    (page("<Error><Message>Request has expired</Message></Error>", 403, "application/xml"), "says 'Request has expired'"),
    (page("", 202, x_amzn_waf_action="challenge"), r"HTTP 202 \(a firewall's challenge, .*x-amzn-waf-action: challenge"),
    (page("", 405, x_amzn_waf_action="captcha"), r"HTTP 405 \(a firewall's challenge, .*captcha"),
    (page("<title>Just a moment...</title>", 403, cf_mitigated="challenge"), r"HTTP 403 \(a firewall's chall.*cf-mitigated"),
    (page("<title>Just a moment...</title>", 429, cf_mitigated="challenge"), r"HTTP 429 \(a firewall's challenge"),
    (page("<title>Just a moment...</title>", 503), r"HTTP 503 \(a challenge page came"),
    (page("<html><script src='/_Incapsula_Resource?x'></script>"), r"HTTP 200 \(a challenge page came"),
    (page("<html>Verify you are human", kind="application/zip"), r"HTTP 200 \(a challenge page came"),
    (page(LOGIN), r"HTTP 200 \(a login page came .*'Harvard Key'"),
    (page(f"\ufeff \n{LOGIN}", kind="application/octet-stream"), r"HTTP 200 \(a login page came"),
    (page("<html><title>Log In - Dataverse</title>"), r"HTTP 200 \(a login page came"),
    (Answer(status=401), r"HTTP 401 \(access needs an account"),
    (Answer(status=410), r"HTTP 410 \(it was removed: look whether the data set has moved"),
]
ANSWERS_THAT_PASS = [
    (page("<title>We'll be back soon</title>"), r"HTTP 200 \(a maintenance page came .*We.ll be back soon"),
    (page("<h1>Scheduled maintenance</h1>", 503, "application/xhtml+xml"), r"HTTP 503 \(a maintenance page came"),
    (page("<html>Sorry, unavailable", kind="application/zip"), r"HTTP 200 \(a maintenance page came"),
    (page("<title>HAM10000</title>"), r"HTTP 200 \(a web page came instead of the file, which says 'HAM10000'"),
    (Answer(status=502), r"HTTP 502 \(Bad Gateway\)"),
]


@pytest.mark.parametrize(("answer", "message"), ANSWERS_THAT_STAY + ANSWERS_THAT_PASS)
def test_what_came_is_named(harvard: Scripted, workspace: Path, write_params: WriteParams, answer: Answer, message: str) -> None:
    write_params({"download.source": "dataverse"})
    harvard.answers, harvard.always = [Answer()], answer
    refuses(rf"{message}.*browser.*doi\.org/10\.7910/DVN/DBW86T.*download\.source=local and download\.path", download.main)
    assert len(harvard.asked) == (2 if (answer, message) in ANSWERS_THAT_STAY else 1 + transfer.TRIES)
    assert not (workspace / "data" / "raw").exists()
    assert [path.name for path in (workspace / SCRATCH / "dataverse").iterdir()] == ["HAM10000_metadata"]


def test_a_login_page_to_which_the_server_sends(harvard: Scripted, write_params: WriteParams) -> None:
    write_params({"download.source": "dataverse"})
    harvard.files["/loginpage.xhtml"] = b"<html>Choose your institution"
    harvard.answers = [Answer(status=302, headers={"Location": "/loginpage.xhtml"})]
    refuses(r"/loginpage\.xhtml cannot be downloaded: HTTP 200 \(a login page came", download.main)


def test_a_files_part_may_begin_as_a_page(harvard: Scripted, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PIECE", 1)
    write_params({"download.source": "dataverse", "download.expect": "any"})
    at = harvard.files["/3172585"].index(b"<")
    harvard.answers = [Answer(), Answer(), Answer(cut_after=at)]
    download.main()
    assert ("/3172585", f"bytes={at}-") in harvard.asked


@pytest.mark.operations
def test_the_command_of_the_readme(harvard: Scripted, tmp_path: Path) -> None:
    """By DVC in a clone, from a server that refuses the names of libraries, cuts, and once challenges."""
    assert user_agent().startswith("skin-lesion/0.")  # which alone our server answers
    command = "dvc exp run -S download.source=dataverse"
    assert f"`{command}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    project = tmp_path / "project"
    copy_working_tree(project, {"download.expect": "any"})  # ours is no whole HAM10000
    with (project / "skinlesion/data/sources/dataverse.py").open("a", encoding="utf-8") as code:
        code.write(f"\n\nSERVER, FILES = {harvard.url!r}, {dataverse.FILES!r}\n")

    def run() -> subprocess.CompletedProcess[str]:
        words = [*command.split(), "download"]
        return subprocess.run(words, cwd=project, env=user_environment(), capture_output=True, text=True, check=False)

    harvard.answers = [Answer(), Answer(cut_after=500), Answer(status=202, headers={"x-amzn-waf-action": "challenge"})]
    refused = run()
    assert refused.returncode != 0
    assert "a firewall's challenge" in refused.stderr + refused.stdout
    assert "download.source=local" in refused.stderr + refused.stdout and not (project / "data/raw").exists()
    harvard.answers = [Answer(cut_after=500)]
    taken = run()
    assert taken.returncode == 0, taken.stderr
    assert read_provenance(project / "data/raw")["counts"]["images"] == 10


def test_the_published_files_are_those_of_the_data_set() -> None:
    files = {file.name: file for file in dataverse.FILES}
    assert files["HAM10000_images_part_1.zip"].number == 3172585  # part 1 has the higher id
    assert files["HAM10000_images_part_2.zip"].number == 3172584
    assert files["HAM10000_metadata"].query == "?format=original"


@pytest.fixture
def no_credentials(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without anything of Kaggle's; returns it."""
    home = workspace / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    names = ("API_TOKEN", "API_V1_TOKEN", "USERNAME", "KEY", "CONFIG_DIR")
    for name in (*(f"KAGGLE_{name}" for name in names), "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.mark.parametrize("content", [None, "{}"])
def test_as_a_script_the_real_package_without_credentials_and_with_some_that_it_refuses(
    no_credentials: Path, workspace: Path, write_params: WriteParams, content: str | None
) -> None:
    if content is not None:  # no key in it: refused without asking the server
        (no_credentials / ".kaggle").mkdir()
        (no_credentials / ".kaggle" / "kaggle.json").write_text(content)
    write_params({"download.source": "kaggle"})
    options = {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run([sys.executable, "-m", "stages.download"], check=False, **options)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    told = r"error: there are no credentials that Kaggle accepts.*KAGGLE_API_TOKEN.*dataverse.*local.*sample"
    assert re.search(told, done.stderr)
    assert not (workspace / "data" / "raw").exists()


class FakeKaggle:
    """Stands for `KaggleApi`; `content` is what it downloads, or the exception that it raises."""

    content: bytes | BaseException = b""

    def authenticate(self) -> None:
        if isinstance(self.content, SystemExit):
            raise self.content

    def dataset_download_files(self, dataset: str, path: str, quiet: bool) -> None:
        assert dataset == "kmader/skin-cancer-mnist-ham10000"
        if isinstance(self.content, BaseException):
            raise self.content
        Path(path, "skin-cancer-mnist-ham10000.zip").write_bytes(self.content)


@pytest.fixture
def kaggle(no_credentials: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> type[FakeKaggle]:
    """Kaggle's package replaced, with credentials in place."""
    module: Any = ModuleType("kaggle.api.kaggle_api_extended")
    module.KaggleApi = FakeKaggle
    for name in ("kaggle", "kaggle.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "a token")
    write_params({"download.source": "kaggle", "download.expect": "any"})
    return FakeKaggle


def test_kaggle_with_its_doubled_folders(kaggle: type[FakeKaggle], workspace: Path) -> None:
    files = kaggle_files(masks=False)
    doubled = {path.replace("HAM10000_images", "ham10000_images"): c for path, c in files.items() if "images" in path}
    kaggle.content = pack(files | doubled | {"hmnist_8_8_L.csv": b"pixel0000,label\n1,2\n"})
    download.main()
    provenance = read_provenance(workspace / "data" / "raw")
    assert provenance["counts"]["images"] == 10
    assert provenance["origin"].endswith("kmader/skin-cancer-mnist-ham10000")
    archive = "skin-cancer-mnist-ham10000.zip"
    assert [entry["name"] for entry in provenance["files"]] == [f"{archive}: HAM10000_metadata.csv", archive]
    assert provenance["files"][1]["md5"] == hashlib.md5(kaggle.content).hexdigest()
    assert not (workspace / SCRATCH / "kaggle").exists()


def test_kaggle_with_two_images_of_one_name(kaggle: type[FakeKaggle], workspace: Path) -> None:
    files = kaggle_files()
    kaggle.content = pack(files | {"ham10000_images_part_1/ISIC_0000001.jpg": files["HAM10000_images_part_1/ISIC_0000002.jpg"]})
    refuses("ISIC_0000001 is there twice with different content", download.main)
    assert (workspace / SCRATCH / "kaggle" / "skin-cancer-mnist-ham10000.zip").exists()  # not to be downloaded again


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(), "holds no metadata"),  # came, and is no HAM10000
        (page("", 202, x_amzn_waf_action="challenge"), r"HTTP 202 \(a firewall's challenge"),
        (page("<title>Just a moment...</title>", 403, cf_mitigated="challenge"), r"HTTPError: HTTP 403 \(a firewall's challenge"),
        (page('{"code":403,"message":"Accept the rules"}', 403, "application/json"), "refused, which says 'Accept the rules'"),
        (page("<html>Maintenance", 503), r"HTTP 503 \(a maintenance page came"),
        (page(LOGIN), r"HTTP 200 \(a login page came"),
    ],
)
def test_kaggles_own_package_carries_our_name_and_what_comes_is_named(
    no_credentials: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch, answer: Answer, message: str
) -> None:
    write_params({"download.source": "kaggle"})
    importlib.import_module("kaggle")  # logs in
    monkeypatch.setenv("KAGGLE_API_TOKEN", "a token")
    with serve() as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
        server.files["/v1/security.OAuthService/IntrospectToken"] = b'{"active": true, "username": "somebody"}'
        server.files["/v1/datasets.DatasetApiService/DownloadDataset"] = pack({"ISIC_0000001.jpg": b""})
        server.answers = [Answer(headers={"Content-Type": "application/json"}), answer]
        refuses(message if not answer.headers else rf"{message}.*download\.source=local", download.main)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SystemExit(1), "no credentials that Kaggle accepts.*download.source=dataverse"),
        (ConnectionError("no route"), r"could not download kmader/.* \(ConnectionError: no route\).*goes on where it was cut"),
        (ValueError("size"), r"could not download kmader/.* \(ValueError: size\)"),
        (b"PK half an archive", "no usable skin-cancer-mnist-ham10000.zip; what had come was deleted"),
    ],
)
def test_kaggle_failing(kaggle: type[FakeKaggle], workspace: Path, content: bytes | BaseException, message: str) -> None:
    kaggle.content = content
    refuses(message, download.main)
    assert not (workspace / "data" / "raw").exists()
    assert list((workspace / SCRATCH / "kaggle").iterdir()) == []
