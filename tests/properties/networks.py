"""What `evaluate` reads besides the lists: the classifier's files and the prepared images; and the weights to begin with."""

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.prepared import PREPARED
from skinlesion.artifacts.splits import SPLIT_NAMES, SPLITS, fingerprint, read_split
from skinlesion.model import backbones
from stages import evaluate
from tests.conftest import WriteParams
from tests.model.classifier_cases import make_config, make_network, save_ensemble
from tests.properties.documents import Written, judge, written
from tests.properties.mutations import changed_bytes
from tests.properties.outcome import Property, keep, message_of, refused_by_name
from tests.properties.tables import FEW_DRAWS
from tests.training.training_cases import write_inputs

BACKBONE = "shufflenet_v2_x0_5"
MEMBER = CLASSIFIER / "base-0"
CONFIG = json.loads(json.dumps(vars(make_config(BACKBONE)) | {"needs_metadata": False}))
ENSEMBLE = {"members": [{"name": "base-0", "seed": 0}], "vote": "mean of the members' probabilities"}
FACTS = {"fingerprint": "f00d", "source": "sample", "synthetic": True}
NAMES = ("base-0", "classifier", "prepare", "split", "backbone", "dropout", "member")
IDS = [f"SYNTH_{number:07d}" for number in range(70)]


def lay_out(write_params: WriteParams) -> None:
    """A tiny data set and an untrained network of its size."""
    write_params(FEW_DRAWS)
    write_inputs(images=len(IDS))
    own = fingerprint({name: read_split(name) for name in SPLIT_NAMES})
    (SPLITS / "facts.json").write_text(json.dumps(FACTS | {"fingerprint": own}))
    config = make_config(BACKBONE, fingerprint=own)
    save_ensemble([(make_network(config), config)])


def prepare(write_params: WriteParams) -> None:
    """The same, and that the stage works with it."""
    lay_out(write_params)
    assert message_of(evaluate.main) is None


def judge_evaluate(path: Path, example: Written) -> None:
    """Judge an example of a file, and put the good one back: others read it too."""
    good = path.read_bytes()
    try:
        judge(path, evaluate.main, (*NAMES, str(path.parent)), example)
    finally:
        path.write_bytes(good)


def judge_array(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused_by_name(message_of(evaluate.main), path.name, "prepare")


def as_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text: str) -> bytes:
    """An .npy file with nothing behind its header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


ARRAY = as_npy(np.zeros((70, 32, 32, 3), np.uint8))
ARRAYS: tuple[bytes, ...] = (
    *(b"", as_npy(np.zeros((70, 32, 32, 3))), as_npy(np.array([{}], dtype=object)), b"PK\x03\x04", b"\x80\x04N."),
    *(
        header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({images}, 32, 32, 3)}}")
        for images in (-1, 2**63 - 1, "'x'", 70)
    ),
    header("{'descr': '|O', 'fortran_order': False, 'shape': (70,)}"),
    header("__import__('os').system('touch owned')"),
    header("[" * 60_000),
)


def state_bytes(pickled: bool) -> bytes:
    """A checkpoint of the smallest thing that has weights."""
    state, buffer = dict(torch.nn.Linear(3, 2).state_dict()), io.BytesIO()
    if not pickled:
        return safetensors.torch.save(state)
    torch.save(state, buffer)
    return buffer.getvalue()


def judge_start(name: str, content: bytes) -> None:
    """A checkpoint to begin with: it cannot fit, and is refused under its name, whatever its bytes."""
    Path(name).write_bytes(content)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 7))
    message = message_of(lambda: backbones.load_pretrained(model, name, backbone="resnet18"))
    refused_by_name(message, name, must=True)


WEIGHTS = safetensors.torch.save(dict(make_network(make_config(BACKBONE)).state_dict()))
arrays = st.sampled_from(ARRAYS) | changed_bytes(ARRAY[:160]).map(lambda start: start + ARRAY[160:])

PROPERTIES = (
    *(
        Property(f"{path.name} in evaluate", prepare, examples, partial(judge_evaluate, path), cost=40)
        for path, examples in (
            (MEMBER / "config.json", written(CONFIG)),
            (CLASSIFIER / "ensemble.json", written(ENSEMBLE)),
            (SPLITS / "facts.json", written(FACTS)),
            (MEMBER / "weights.safetensors", changed_bytes(WEIGHTS).map(Written)),
        )
    ),
    Property("images.npy in evaluate", prepare, arrays, partial(judge_array, PREPARED / "images.npy"), cost=40),
    *(
        Property(f"a {kind} to begin with", keep, changed_bytes(good) | st.binary(), partial(judge_start, f"start{kind}"))
        for kind, good in ((".pth", state_bytes(True)), (".safetensors", state_bytes(False)))
    ),
)
