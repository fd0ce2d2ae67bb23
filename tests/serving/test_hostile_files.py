"""Files that somebody made to do harm: pickles with code in them, weights that lie, archives and pictures that are bombs."""

import ast
import io
import json
import os
import pickle
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image, PngImagePlugin

from skinlesion.artifacts.raw import MASK_SUFFIX
from skinlesion.data.originals import read_image, read_mask
from skinlesion.data.sources.archives import read_members
from skinlesion.data.sources.images import check_files
from skinlesion.data.sources.layout import find_inputs
from skinlesion.model import classifier
from skinlesion.model.backbones import check_numbers, load_pretrained
from skinlesion.training import checkpoint
from tests.conftest import ROOT, refuses
from tests.data.download_cases import HEIGHT, WIDTH, jpeg, kaggle_files, mask, pack, write_files
from tests.model.classifier_cases import make_config, make_network
from tests.serving.predictor_cases import encoded

OWNED = Path("owned")
BACKBONE = "shufflenet_v2_x0_5"
# Modules that run what a file says, and calls that do.
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen", "np.load", "numpy.load", "pd.read_pickle", "yaml.load", "jit.load"}


class Evil:
    """An object whose pickle runs a command when it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {OWNED}",)


def packed_pickle(payload: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer, **options)
    return buffer.getvalue()


PICKLES: dict[str, bytes] = {
    "plain": pickle.dumps(Evil()),
    "of torch": packed_pickle({"weight": Evil()}),
    "of torch before 1.6": packed_pickle({"weight": Evil()}, _use_new_zipfile_serialization=False),
    "beside weights": packed_pickle(torch.nn.Linear(2, 2).state_dict() | {"more": Evil()}),
    "whole module": packed_pickle(torch.nn.Linear(2, 2)),
}


def start_from(name: str) -> str | None:
    return load_pretrained(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 7)), name, backbone="resnet18")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", PICKLES)
@pytest.mark.parametrize("name", ["start.pth", "start.pt", "start.safetensors", "start"])
def test_weights_to_begin_with_run_no_code(workspace: Path, kind: str, name: str) -> None:
    Path(name).write_bytes(PICKLES[kind])
    refuses(rf"train\.weights: {name} is not a readable state dict", start_from, name)
    assert not OWNED.exists()


def test_the_pickles_of_these_tests_do_run_code_where_they_are_trusted(workspace: Path) -> None:
    pickle.loads(PICKLES["plain"])
    assert OWNED.exists()


NO_CHECKPOINTS = PICKLES | {"a list": packed_pickle([1]), "an epoch alone": packed_pickle({"epoch": 3}), "empty": b""}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_a_checkpoint_runs_no_code_and_is_one_of_a_training(workspace: Path, kind: str) -> None:
    resume = checkpoint.Checkpoint("key")
    resume.path.parent.mkdir(parents=True)
    resume.path.write_bytes(NO_CHECKPOINTS[kind])
    refuses(r"checkpoint .*key\.pt is damaged .*delete it to train from the start", resume.load)
    assert not OWNED.exists()


def with_header(text: str, *, length: int | None = None) -> bytes:
    """A safetensors file of a header alone, whose length it may lie about."""
    return struct.pack("<Q", len(text) if length is None else length) + text.encode()


def tensor_header(**tensor: Any) -> bytes:
    return with_header(json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | tensor}))


LIES = {
    "a huge header": with_header("{}", length=2**62),
    "a negative header": with_header("{}", length=2**64 - 1),
    "no JSON": with_header("{]"),
    "no header": b"\0\0",
    "no bytes": tensor_header(),
    "bytes of others": tensor_header(data_offsets=[0, 2**40]),
    "turned offsets": tensor_header(data_offsets=[4, 0]),
    "a shape of its own": tensor_header(shape=[2**40]),
    "an unknown type": tensor_header(dtype="OBJECT"),
    "a pickle": PICKLES["of torch"],
}


@pytest.mark.parametrize("lie", LIES)
def test_weights_that_lie_about_themselves(workspace: Path, lie: str) -> None:
    Path("start.safetensors").write_bytes(LIES[lie])
    refuses(r"train\.weights: start\.safetensors is not a readable state dict", start_from, "start.safetensors")
    config = make_config(BACKBONE)
    classifier.save_classifier(make_network(config).state_dict(), config, Path("base-0"))
    Path("base-0/weights.safetensors").write_bytes(LIES[lie])
    refuses(r"weights\.safetensors is damaged or does not fit", classifier.load_classifier, Path("base-0"))
    assert not OWNED.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight * float("nan"), r"holds NaN or infinity in .*weight"),
        (lambda weight: weight / 0, r"holds NaN or infinity in .*weight"),
        (lambda weight: weight.long(), r"has tensors of another type: .*weight int64"),
        (lambda weight: weight.bool(), r"has tensors of another type: .*weight bool"),
    ],
)
def test_weights_that_are_no_numbers(workspace: Path, change: Callable[[torch.Tensor], torch.Tensor], message: str) -> None:
    config = make_config(BACKBONE)
    state = make_network(config).state_dict()
    name = next(name for name in state if name.startswith("backbone.") and name.endswith("weight"))
    classifier.save_classifier(state | {name: change(state[name])}, config, Path("base-0"))
    refuses(rf"base-0/weights\.safetensors {message}: run `train` again", classifier.load_classifier, Path("base-0"))
    state = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 7)).state_dict()
    safetensors.torch.save_file(state | {"0.weight": change(state["0.weight"])}, "start.safetensors")
    refuses(rf"train\.weights=start\.safetensors {message}", start_from, "start.safetensors")


def test_weights_in_half_precision_are_taken_counters_and_all(workspace: Path) -> None:
    """`{name: tensor.half() ...}` of a whole state dict: batch norm's counters are floating then, and decide nothing."""
    network = make_network(make_config(BACKBONE)).backbone
    state = {name: tensor.half() for name, tensor in network.state_dict().items()}
    counters = {name: tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")}
    assert counters
    check_numbers(state, "here", like=network.state_dict(), way_out="")
    broken = state | {next(iter(counters)): torch.tensor(float("nan"), dtype=torch.float16)}
    like = network.state_dict()
    refuses(r"here holds NaN or infinity in .*num_batches_tracked", check_numbers, broken, "here", like=like, way_out="")


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "base", "base-0/../x", "", 5, "Base-0"])
def test_a_member_is_not_looked_for_elsewhere(workspace: Path, name: object) -> None:
    Path("ensemble.json").write_text(json.dumps({"members": [{"name": name}]}))
    refuses(r"ensemble\.json: members\.0\.name = .*: .* should .*: run `assemble` again", classifier.read_member_names, Path())


def test_an_archive_s_links_are_no_links(workspace: Path) -> None:
    Path("secret").write_text("secret")
    targets = {"ISIC_0000001.jpg": str(Path("secret").absolute()), "ISIC_0000002.jpg": "/etc"}
    with zipfile.ZipFile("evil.zip", "w") as archive:
        for name, target in targets.items():
            member = zipfile.ZipInfo(name)  # a symbolic link where an unpacker believes it
            member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, target)
    found = dict(read_members(Path("evil.zip"), lambda name: name.startswith("ISIC_")))
    assert found == {name: target.encode() for name, target in targets.items()}


def test_an_archive_in_an_archive_is_not_opened_and_names_that_are_no_text_are_named(workspace: Path) -> None:
    inner = pack({"ISIC_0000001.jpg": jpeg(1)})
    write_files(Path("source"), {"HAM10000_metadata.csv": b"a\n", "outer.zip": pack({"inner.zip": inner})})
    refuses(r"holds no images .*archives inside archives are not opened", find_inputs, Path("source"))
    content = pack({"ISIC_0000001.jpg": jpeg(1), "é": b""})
    Path("source/outer.zip").write_bytes(content.replace("é".encode(), b"\xff\xfe"))
    refuses(r"outer\.zip is no whole zip archive", find_inputs, Path("source"))


def test_two_members_of_one_name_are_not_mixed(workspace: Path) -> None:
    with zipfile.ZipFile("two.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("ISIC_0000001.jpg", b"first")
        archive.writestr("ISIC_0000001.jpg", b"second")
    assert [content for _, content in read_members(Path("two.zip"), lambda name: True)] == [b"first", b"second"]


def test_pipes_and_links_to_nowhere_are_left_aside(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_files(Path("source"), kaggle_files())
    os.mkfifo(source / "metadata.csv")  # reading it would wait forever
    (source / "ISIC_0000077.jpg").symlink_to("nowhere")
    with caplog.at_level("WARNING"):
        inputs = find_inputs(source)
    assert inputs.metadata_name == "HAM10000_metadata.csv"
    assert "ISIC_0000077.jpg" not in {path.name for path in inputs.loose}
    assert "left aside, no files or links to nowhere: ISIC_0000077.jpg, metadata.csv" in caplog.text


def frames(kind: str, number: int) -> bytes:
    """A picture of many frames."""
    images = [Image.new("RGB", (WIDTH, HEIGHT), (shade, 0, 255 - shade)) for shade in range(number)]
    return encoded(images[0], kind, save_all=True, append_images=images[1:])


def raw_of(image: bytes, segmentation: bytes | None = None) -> Path:
    files = {"images/ISIC_0000001.jpg": image}
    files |= {} if segmentation is None else {f"segmentations/ISIC_0000001{MASK_SUFFIX}.png": segmentation}
    return write_files(Path("raw"), files)


def test_of_many_frames_the_first_one_is_the_image(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []
    load = Image.Image.load
    raw = raw_of(frames("MPO", 200))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: loads.append(1) or load(image))
    assert check_files(raw, ["ISIC_0000001"]) == 0
    assert len(loads) == 1
    refuses(r"ISIC_0000001\.jpg \(a GIF, not a JPEG file\)", check_files, raw_of(frames("GIF", 100)), ["ISIC_0000001"])


def test_a_picture_s_words_are_no_bomb(workspace: Path) -> None:
    words = PngImagePlugin.PngInfo()
    words.add(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))
    raw = raw_of(jpeg(1), encoded(Image.open(io.BytesIO(mask())), "PNG", pnginfo=words))
    tracemalloc.start()
    assert check_files(raw, ["ISIC_0000001"]) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    inside = read_mask("ISIC_0000001", raw=raw, width=WIDTH, height=HEIGHT)
    assert inside is not None and inside.sum() == 15 * 15


def test_an_original_that_changed_its_kind_since_is_refused(workspace: Path) -> None:
    size = {"width": WIDTH, "height": HEIGHT}
    raw = raw_of(mask(), jpeg(1))
    refuses(r"ISIC_0000001\.jpg is not readable .*run `download` again", read_image, "ISIC_0000001", raw=raw, **size)
    message = r"mask .*ISIC_0000001_segmentation\.png is not readable .*delete the mask"
    refuses(message, read_mask, "ISIC_0000001", raw=raw, **size)


def unsafe(call: ast.Call) -> bool:
    """Whether a call runs what a file or a text says, or asks a shell."""
    called, options = ast.unparse(call.func), {each.arg: ast.unparse(each.value) for each in call.keywords}
    trusts = options.get("shell", "False") != "False" or options.get("allow_pickle", "False") != "False"
    return called in UNSAFE_CALLS or trusts or (called == "torch.load" and options.get("weights_only") != "True")


def test_no_code_of_ours_runs_what_a_file_says() -> None:
    loads = 0
    folders = ("skinlesion", "stages", "extras", "benchmarks", "api")
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.partition(".")[0] for name in names} & UNSAFE_MODULES, f"{path.name}: {ast.unparse(node)}"
            if isinstance(node, ast.Call):
                assert not unsafe(node), f"{path.name}: {ast.unparse(node)}"
                loads += ast.unparse(node.func) == "torch.load"
    assert loads >= 2  # of checkpoints and of weights to begin with: the walk sees them
