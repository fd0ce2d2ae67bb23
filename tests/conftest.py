"""What the tests share: a workspace to run stages in, its `params.yaml`, a small `data/raw`, and the real data set if any."""

import copy
import gc
import json
import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from skinlesion.base.errors import PipelineError
from skinlesion.config.schema import BootstrapParams
from skinlesion.diagnoses import CLASSES

# Before anything imports torch, also in the processes that tests start: on tiny tensors threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]

WriteParams = Callable[..., Path]
MakeRaw = Callable[[pd.DataFrame], Path]
BuildOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what is imported here, and stays, from the garbage collector, which would walk all of it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def resamples(draws: int, *, seed: int = 0, confidence: float = 0.95) -> BootstrapParams:
    """The section `bootstrap`, for functions that make intervals."""
    return BootstrapParams(draws=draws, confidence=confidence, seed=seed)


def refuses(message: str, call: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Expect that a call raises a PipelineError in whose message a regular expression is found."""
    with pytest.raises(PipelineError, match=message):
        call(*arguments, **options)


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> BuildOnce:
    """Fill a folder once for all processes of this run: the first one that asks for it builds it, the others wait for that."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def build(name: str, fill: Callable[[Path], None]) -> Path:
        done = shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                fill(shared / name)
                done.touch()
        return shared / name

    return build


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory, as the project's root is for a stage; no trace of a DVC around us."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def repository_params() -> dict[str, Any]:
    """The content of the repository's own `params.yaml`."""
    return YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def write_params_here(repository_params: dict[str, Any]) -> WriteParams:
    """Write `params.yaml` of the working directory: the repository's, with some keys set (`{"split.fold": 2}`) or left out."""

    def write(overrides: dict[str, Any] | None = None, without: tuple[str, ...] = ()) -> Path:
        document = copy.deepcopy(repository_params)
        for key in (*(overrides or {}), *without):
            *sections, last = key.split(".")
            section = document
            for name in sections:
                section = section[name]
            if key in without:
                del section[last]
            else:
                section[last] = (overrides or {})[key]
        path = Path("params.yaml").absolute()
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(document, file)
        return path

    return write


@pytest.fixture
def write_params(workspace: Path, write_params_here: WriteParams) -> WriteParams:
    """The same in the workspace."""
    return write_params_here


@pytest.fixture
def metadata() -> pd.DataFrame:
    """188 images of 110 lesions, imbalanced, one to three images a lesion, some values missing; in no particular order."""
    lesions = [dx for dx in CLASSES for _ in range({"nv": 50, "mel": 12, "bkl": 12}.get(dx, 9))]
    views = [(number, dx) for number, dx in enumerate(lesions) for _ in range(1 + number % 2 + (number % 5 == 0))]
    frame = pd.DataFrame(
        {
            "lesion_id": [f"L{number:03d}" for number, _ in views],
            "image_id": [f"ISIC_{image:07d}" for image in range(len(views))],
            "dx": [dx for _, dx in views],
            "dx_type": ["histo" if dx == "mel" else "follow_up" for _, dx in views],
            "age": [None if number % 20 == 7 else float(5 * (number % 18)) for number, _ in views],
            "sex": [("male", "female", "")[number % 3] for number, _ in views],
            "localization": [("back", "face", "unknown", "foot")[number % 4] for number, _ in views],
        }
    )
    return frame.sample(frac=1, random_state=1)


@pytest.fixture
def make_raw(workspace: Path) -> MakeRaw:
    """Build `data/raw` from metadata; the image files are empty, which is enough for whoever only lists them."""

    def make(frame: pd.DataFrame) -> Path:
        raw = workspace / "data" / "raw"
        (raw / "images").mkdir(parents=True)
        for image_id in frame["image_id"]:
            (raw / "images" / f"{image_id}.jpg").touch()
        frame.to_csv(raw / "metadata.csv", index=False)
        provenance = {"source": "sample", "synthetic": True, "licence": "CC0", "counts": {}}
        (raw / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
        return raw

    return make


@pytest.fixture
def raw_folder(make_raw: MakeRaw, metadata: pd.DataFrame) -> Path:
    """`data/raw` of the workspace, from `metadata`."""
    return make_raw(metadata)


@pytest.fixture(scope="session")
def plots_repository(build_once: BuildOnce) -> Path:
    """A repository with every plot and two revisions of their tables, to read."""
    from tests.report.plot_cases import make_repository

    return build_once("plots", make_repository)


@pytest.fixture(scope="session")
def evaluated(build_once: BuildOnce, write_params_here: WriteParams) -> Path:
    """A folder in which `evaluate` was run once on a small classifier, to read."""
    from tests.evaluation.evaluate_cases import run_evaluate

    return build_once("evaluated", lambda folder: run_evaluate(folder, write_params_here))


@pytest.fixture
def evaluated_project(evaluated: Path, workspace: Path) -> Path:
    """A copy of that folder to change, the working directory."""
    return shutil.copytree(evaluated, workspace, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def external_inputs(build_once: BuildOnce, write_params_here: WriteParams) -> Path:
    """A folder with all that `external` reads."""
    from tests.audits.external_cases import write_inputs

    return build_once("external", lambda folder: write_inputs(folder, write_params_here))


@pytest.fixture
def external_project(external_inputs: Path, workspace: Path) -> Path:
    """A copy of that folder, the working directory."""
    return shutil.copytree(external_inputs, workspace, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def ham10000() -> Path:
    """HAM10000 in Kaggle's layout, where the machine has it beside the repository."""
    folder = ROOT.parent / "shared" / "ham10000"
    if not (folder / "HAM10000_metadata.csv").is_file():
        pytest.skip("needs HAM10000 in ../shared/ham10000")
    return folder
