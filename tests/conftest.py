"""What the tests share: a workspace to run stages in, its `params.yaml`, a small `data/raw`, and the real data set if any."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from skinlesion.diagnoses import CLASSES

# Before anything imports torch, also in the processes that tests start: on tiny tensors threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]

# The files of tests that take longest, the longest first. `make test` deals files to two processes as they become free: begun
# last, by their few tests or by their names, these would leave one process idle for minutes. What is not named comes behind.
LONGEST = (
    *("test_pipeline", "test_training", "test_distributed", "test_training_options"),
    *("test_training_memory", "test_benchmarks", "test_leak"),
)

WriteParams = Callable[..., Path]
MakeRaw = Callable[[pd.DataFrame], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files of `LONGEST` first, in that order; within a file and among the others the order stays."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


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


@pytest.fixture
def write_params(workspace: Path, repository_params: dict[str, Any]) -> WriteParams:
    """Write the workspace's `params.yaml`: the repository's, with some keys set (`{"split.fold": 2}`) or left out."""

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
        path = workspace / "params.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(document, file)
        return path

    return write


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
def ham10000() -> Path:
    """HAM10000 in Kaggle's layout, where the machine has it beside the repository."""
    folder = ROOT.parent / "shared" / "ham10000"
    if not (folder / "HAM10000_metadata.csv").is_file():
        pytest.skip("needs HAM10000 in ../shared/ham10000")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread of torch: more cost more than they give on networks of a few thousand weights."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
