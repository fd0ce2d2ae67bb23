"""What somebody meets who starts a script by its path, or whose editor or git writes the line ends of Windows."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skinlesion.config.params import read_params
from tests.conftest import ROOT, WriteParams, refuses

FOLDERS = ("stages", "extras", "tools", "api", "recipes", "benchmarks", "skinlesion")
COMMANDS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8") and path.name != "check_setup.py"  # which is started by its path
)


def start(cwd: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_started_by_its_path_says_how_to_start_it(command: str, tmp_path: Path) -> None:
    module = command.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
    given = str(ROOT / command)
    told = f"error: {given} is started as a module, from the root of the project: cd {ROOT} && python -m {module} --seed 'a b'\n"
    assert start(tmp_path, given, "--seed", "a b") == (1, "", told)
    assert not list(tmp_path.iterdir())


def test_from_the_root_and_from_a_folder_of_it() -> None:
    told = "error: {} is started as a module, from the root of the project: {}python -m stages.report\n"
    assert start(ROOT, "stages/report.py") == (1, "", told.format(ROOT / "stages/report.py", ""))
    inside = ROOT / "stages"
    assert start(inside, "-m", "report") == (1, "", told.format(inside / "report.py", f"cd {ROOT} && "))
    code, _, said = start(inside, "-c", "import skinlesion.base.errors")
    assert code == 1 and said.endswith(f"are found from its root alone: start Python in {ROOT}\n")


@pytest.mark.parametrize("module", ["stages.train", "extras.leak", "tools.verify_cache", "skinlesion.predict", "api"])
def test_a_python_without_the_packages_is_named_with_the_way_out(module: str) -> None:
    code, said, refused = start(ROOT, "-S", "-m", module)  # -S: no site-packages
    told = r"error: No module named '\w+' in \S+: activate the environment that `make run` made \(\. \.venv/bin/activate\)\n"
    assert (code, said) == (1, "") and re.fullmatch(told, refused), refused


def test_the_demo_opens_by_streamlit_run_from_anywhere(tmp_path: Path) -> None:
    """`streamlit run app/demo.py` has app/ first on the path, and the root nowhere."""
    page = f"AppTest.from_file({str(ROOT / 'app' / 'demo.py')!r}, default_timeout=90).run()"
    lines = f"import sys; sys.path[0] = {str(ROOT / 'app')!r}\nfrom streamlit.testing.v1 import AppTest"
    code = f"{lines}\nprint({page}.title[0].value)"
    assert start(tmp_path, "-c", code)[:2] == (0, "Skin lesion classifier: research demo\n")


@pytest.mark.parametrize("setting", ["core.autocrlf=true", "core.autocrlf=input", "core.eol=crlf"])
def test_a_clone_has_the_committed_bytes_whatever_git_makes_of_line_ends(setting: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    files = {"run.sh": b"#!/bin/sh\n", "params.yaml": b"a: 1\n", "a.csv": b"x\n1\n", "a.md": b"# a\n", "a.webp": b"\r\n\n\xff"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    git = ["git", "-c", setting, "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "x"], ["clone", "-q", ".", "clone"]):
        subprocess.run([*git, *words], cwd=tmp_path, capture_output=True, check=True)
    assert {name: (tmp_path / "clone" / name).read_bytes() for name in files} == files
    (tmp_path / "clone" / "a.csv").write_bytes(b"x\r\n1\r\n")  # as a Windows editor saves it
    subprocess.run([*git, "add", "a.csv"], cwd=tmp_path / "clone", capture_output=True, check=True)
    stored = subprocess.run(["git", "show", ":a.csv"], cwd=tmp_path / "clone", capture_output=True, check=True).stdout
    assert stored == files["a.csv"]


def test_git_takes_every_committed_file_for_text_with_lf_or_for_binary() -> None:
    command = ["git", "ls-files", "--eol"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    kinds = {re.sub(r" +\t.*", "", line) for line in listed}
    known = {"i/lf w/lf attr/text=auto eol=lf", "i/none w/none attr/text=auto eol=lf", "i/-text w/-text attr/-text"}
    assert {re.sub(" +", " ", kind) for kind in kinds} <= known


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
    ],
    ids=["CRLF", "byte order mark and CRLF", "CR"],
)
def test_params_from_another_editor_have_the_same_values(saved: object, write_params: WriteParams) -> None:
    path = write_params({"split.links": "links.csv"})
    before = read_params()
    path.write_bytes(saved(path.read_text(encoding="utf-8")))
    assert read_params() == before


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_params_that_are_not_utf_8_are_refused_with_the_way_out(encoding: str, write_params: WriteParams) -> None:
    path = write_params()
    path.write_bytes(("# Größe\n" + path.read_text(encoding="utf-8")).encode(encoding))
    refuses(r"params.yaml is not UTF-8 \('utf-8' codec .*\): save it in that encoding", read_params)
