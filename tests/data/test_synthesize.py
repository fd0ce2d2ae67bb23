"""Synthetic images: what is drawn, what the generator was trained on and what it never sees, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import stages.synthesize
from skinlesion.artifacts.patients import AGE_CENTER, AGE_SCALE
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.synthetic import SYNTHETIC, SyntheticImages, read_synthetic, training_fingerprint
from skinlesion.artifacts.tables import METADATA_COLUMNS
from skinlesion.data.synthesis.fitting import balanced_batches, draw_images, flip, shrink_images, working_side
from skinlesion.data.synthesis.model import PIXEL_DEVIATION, ConditionalVAE, objective
from skinlesion.diagnoses import CLASSES
from skinlesion.training.setup import gather_data
from tests.conftest import ROOT, WriteParams, refuses
from tests.stage_cases import PATIENT, write_lists, write_prepared

COLOURS = {"akiec": (200, 40, 40), "df": (40, 200, 40), "mel": (30, 30, 60), "nv": (150, 100, 60), "vasc": (60, 40, 200)}
SIZE = 32
QUICK = {"synthesize.epochs": 1, "synthesize.batch_size": 16, "synthesize.latent": 4, "synthesize.images": {"df": 5, "vasc": 3}}


def write_data(images: dict[str, int] | None = None, *, size: int = SIZE) -> pd.DataFrame:
    """Write `data/prepared` and the lists: noisy images of their class's colour, dealt 4 : 1 : 1; returns every row."""
    numbers = images or {"akiec": 6, "df": 12, "mel": 18, "nv": 42, "vasc": 12}
    generator = np.random.default_rng(0)
    dx = generator.permutation([dx for dx, number in numbers.items() for _ in range(number)])
    noise = generator.normal(0, 12, (len(dx), size, size, 3))
    frame = pd.DataFrame({"image_id": [f"ISIC_{row:07d}" for row in range(len(dx))], "dx": dx}).assign(**PATIENT)
    frame["lesion_id"] = frame["image_id"]
    frame["split"] = (frame.groupby("dx").cumcount() % 6).map({4: "val", 5: "test"}).fillna("train")
    write_prepared(frame["image_id"], np.array([COLOURS[name] for name in dx])[:, None, None] + noise)
    write_lists(dict(list(frame.groupby("split"))))
    return frame


@pytest.fixture
def synthesize(write_params: WriteParams) -> Callable[..., dict[str, bytes]]:
    """Run the stage with `QUICK` params and others, and return the files of `data/synthetic`."""

    def run(overrides: dict[str, Any] | None = None) -> dict[str, bytes]:
        write_params({**QUICK, "machine.device": "cpu", **(overrides or {})})
        stages.synthesize.main()
        return {path.name: path.read_bytes() for path in sorted(SYNTHETIC.iterdir())}

    return run


Synthesize = Callable[..., dict[str, bytes]]


@pytest.mark.parametrize("images", [{}, {"df": 0, "vasc": 0}])
def test_off_it_writes_an_empty_array_and_never_meets_torch(write_params: WriteParams, images: dict[str, int]) -> None:
    write_params({"synthesize.images": images})
    counts = write_data().query("split == 'train'")["dx"].value_counts()
    program = "import sys, stages.synthesize as s; s.main(); sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    synthetic = read_synthetic(SIZE)
    assert (synthetic.images.shape, synthetic.images.dtype, synthetic.dx) == ((0, SIZE, SIZE, 3), np.uint8, [])
    assert (SYNTHETIC / "index.csv").read_text() == "synthetic_id,dx\n"
    assert json.loads((SYNTHETIC / "facts.json").read_text())["losses"] is None
    assert [path.name for path in Path("plots/synthesize").iterdir()] == ["counts.csv"]
    table = pd.read_csv("plots/synthesize/counts.csv", index_col="dx")
    assert table["training_images"].to_dict() == {dx: counts.get(dx, 0) for dx in CLASSES}
    assert table["synthetic_images"].tolist() == [0] * len(CLASSES)


def test_exactly_what_is_asked_for_is_drawn(synthesize: Synthesize) -> None:
    train = write_data().query("split == 'train'")
    synthesize({"synthesize.images": {"vasc": 3, "df": 5, "nv": 0}})
    index = pd.read_csv(SYNTHETIC / "index.csv")
    assert index["dx"].tolist() == ["df"] * 5 + ["vasc"] * 3
    names = [f"synthetic_{dx}_{n:05d}" for dx, number in (("df", 5), ("vasc", 3)) for n in range(number)]
    assert index["synthetic_id"].tolist() == names
    synthetic = read_synthetic(SIZE)
    assert (synthetic.images.shape, synthetic.dx) == ((8, SIZE, SIZE, 3), index["dx"].tolist())
    assert len(np.unique(synthetic.images, axis=0)) == 8
    facts = json.loads((SYNTHETIC / "facts.json").read_text())
    assert facts["fingerprint"] == synthetic.fingerprint == training_fingerprint(train)
    assert facts["training_images"] == {dx: int(train["dx"].eq(dx).sum()) for dx in CLASSES}
    assert facts["synthetic_images"] == {dx: {"df": 5, "vasc": 3}.get(dx, 0) for dx in CLASSES}
    assert set(facts["losses"]) == {"reconstruction", "kl"} and all(loss > 0 for loss in facts["losses"].values())
    with Image.open("plots/synthesize/samples.png") as page:
        assert page.width > 500 and page.height > 500


def test_validation_and_test_images_never_reach_it(synthesize: Synthesize) -> None:
    frame = write_data()
    expected = synthesize()
    page = Path("plots/synthesize/samples.png").read_bytes()
    for name in ("val.csv", "test.csv", "facts.json"):
        (Path("data/splits") / name).unlink(missing_ok=True)
    held_out = np.flatnonzero(frame["split"] != "train")
    path = Path("data/prepared/images.npy")
    pixels = np.load(path)
    np.save(path, np.where(frame["split"].eq("train").to_numpy()[:, None, None, None], pixels, 255 - pixels))
    assert len(held_out) == 30
    shutil.rmtree(SYNTHETIC)
    assert synthesize() == expected
    assert Path("plots/synthesize/samples.png").read_bytes() == page
    pixels[np.flatnonzero(frame["split"] == "train")[0]] = 0  # and a single training image does reach it
    np.save(path, pixels)
    assert synthesize()["images.npy"] != expected["images.npy"]


def test_another_training_list_is_another_result(synthesize: Synthesize) -> None:
    train = write_data().query("split == 'train'")
    first = synthesize()
    train.iloc[1:][list(METADATA_COLUMNS)].to_csv("data/splits/train.csv", index=False)
    second = synthesize()
    assert first["images.npy"] != second["images.npy"]
    read_synthetic(SIZE).check_training_list(train.iloc[1:])
    refuses(r"another training list.*run `synthesize` again", lambda: read_synthetic(SIZE).check_training_list(train))


def test_every_option_changes_the_images(synthesize: Synthesize) -> None:
    write_data({"df": 10, "nv": 20})
    asked = {"synthesize.images": {"df": 1}}
    expected = synthesize(asked)
    assert synthesize(asked) == expected
    options = {"epochs": 2, "batch_size": 10, "lr": 0.003, "latent": 5, "kl_weight": 4.0, "seed": 1}
    for option, value in options.items():
        assert synthesize({**asked, f"synthesize.{option}": value})["images.npy"] != expected["images.npy"], option


def test_the_device_is_what_params_say(synthesize: Synthesize, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data()
    monkeypatch.setattr("skinlesion.base.devices.available_devices", lambda: ["cpu"])
    refuses("device 'cuda' is not available", synthesize, {"machine.device": "cuda"})


def test_more_of_one_diagnosis_leaves_another_alone(synthesize: Synthesize) -> None:
    write_data({"df": 15, "vasc": 15})
    synthesize({"synthesize.images": {"vasc": 3}})
    alone = np.array(read_synthetic(SIZE).images)
    synthesize({"synthesize.images": {"vasc": 2, "df": 70}})
    together = read_synthetic(SIZE)
    assert together.dx == ["df"] * 70 + ["vasc"] * 2
    assert len(np.unique(together.images, axis=0)) == 72
    assert np.abs(together.images[70:].astype(int) - alone[:2]).max() <= 1  # another batch size may round otherwise


def test_it_learns_the_colour_of_each_class(synthesize: Synthesize) -> None:
    write_data()
    drawn_before = synthesize({"synthesize.images": dict.fromkeys(COLOURS, 10), "synthesize.epochs": 1})
    reconstruction = json.loads(drawn_before["facts.json"])["losses"]["reconstruction"]
    files = synthesize({"synthesize.images": dict.fromkeys(COLOURS, 10), "synthesize.epochs": 12})
    assert json.loads(files["facts.json"])["losses"]["reconstruction"] < reconstruction / 4
    synthetic = read_synthetic(SIZE)
    names = list(COLOURS)
    for dx in names:
        mean = synthetic.images[np.array(synthetic.dx) == dx].mean(axis=(0, 1, 2))
        distances = [np.linalg.norm(mean - COLOURS[other]) for other in names]
        assert names[int(np.argmin(distances))] == dx


@pytest.mark.parametrize(("size", "side"), [(32, 32), (47, 32), (48, 48), (63, 48), (64, 64), (224, 64), (1024, 64)])
def test_it_works_at_64_pixels_at_most(size: int, side: int) -> None:
    assert working_side(size) == side
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    assert shrink_images(images, np.array([1])).shape == (1, side, side, 3)


def test_other_sizes_of_prepared_images(synthesize: Synthesize) -> None:
    write_data({"df": 6, "nv": 6}, size=70)
    synthesize({"synthesize.images": {"df": 2}})
    assert read_synthetic(70).images.shape == (2, 70, 70, 3)


def test_images_are_shrunk_by_area() -> None:
    images = np.zeros((3, 128, 128, 3), np.uint8)
    images[2] = np.random.default_rng(0).integers(0, 256, (128, 128, 3))
    means = images[[2]].reshape(1, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(shrink_images(images, np.array([2])), np.round(means).astype(np.uint8))


def test_each_class_is_drawn_equally_often() -> None:
    labels = np.array([0] * 900 + [3] * 80 + [6] * 20)
    drawn = np.concatenate(list(balanced_batches(labels, 64, np.random.default_rng(0))))
    assert len(drawn) == 1000
    assert np.bincount(labels[drawn], minlength=7)[[0, 3, 6]] == pytest.approx([333, 333, 333], abs=60)
    assert [len(batch) for batch in balanced_batches(labels, 300, np.random.default_rng(0))] == [300, 300, 300, 100]


def test_flips_give_the_four_mirror_images() -> None:
    image = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    mirrored = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    flipped = flip(np.stack([image] * 400), np.random.default_rng(0))
    found = [next(at for at, wanted in enumerate(mirrored) if np.array_equal(pixels, wanted)) for pixels in flipped]
    assert np.bincount(found) == pytest.approx([100] * 4, abs=40)


def test_objective_by_hand() -> None:
    images, decoded = torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.1)
    mean, log_variance = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [np.log(2.0), 0.0]])
    terms = objective(images, decoded, mean=mean, log_variance=log_variance)
    assert terms.reconstruction.item() == pytest.approx(768 * 0.01 / (2 * PIXEL_DEVIATION**2))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).sum() / 2
    assert terms.kl.item() == pytest.approx(expected.item())


def test_the_network_is_told_the_class_and_does_not_mix_images() -> None:
    torch.manual_seed(0)
    vae = ConditionalVAE(side=32, latent=4, num_classes=7).eval()
    images, codes = torch.rand(2, 3, 32, 32), torch.randn(2, 4)
    first, second = torch.tensor([0, 1]), torch.tensor([0, 2])
    for run in (lambda classes: vae.encode(images, classes)[0], lambda classes: vae.decode(codes, classes)):
        one, other = run(first), run(second)
        torch.testing.assert_close(one[0], other[0])
        assert not torch.allclose(one[1], other[1])
    with pytest.raises(ValueError, match="multiple of 16, not 40"):
        ConditionalVAE(side=40, latent=4, num_classes=7)


def test_a_diagnosis_without_a_training_image_is_refused(synthesize: Synthesize) -> None:
    write_data({"df": 6, "nv": 6})
    message = "asks for bcc, vasc, of which the training list has no image"
    refuses(message, synthesize, {"synthesize.images": {"df": 1, "vasc": 2, "bcc": 1}})
    assert not [*Path("data").glob("*synthetic*")]


def test_a_loss_that_is_not_finite_is_refused(synthesize: Synthesize) -> None:
    write_data({"df": 6, "nv": 6})
    overrides = {"synthesize.images": {"df": 1}, "synthesize.lr": 1e30, "synthesize.epochs": 3}
    refuses(r"not finite in epoch 2: lower synthesize.lr \(1e\+30\)", synthesize, overrides)
    assert not [*Path("data").glob("*synthetic*")]


def test_drawn_values_that_are_not_finite_are_refused() -> None:
    vae = ConditionalVAE(side=32, latent=4, num_classes=7)
    torch.nn.init.constant_(vae.spread.bias, torch.nan)
    refuses(r"draws values that are not finite: lower synthesize.lr", lambda: next(draw_images(vae, "df", 1, seed=0, size=32)))


def test_missing_inputs_are_named(synthesize: Synthesize) -> None:
    refuses("train.csv not found", synthesize)
    write_data()
    Path("data/prepared/images.npy").unlink()
    refuses("images.npy not found: run `prepare` first", synthesize)


def test_a_synthetic_image_borrows_the_metadata_of_a_training_image_of_its_class(workspace: Path) -> None:
    frame = write_data()
    ages = {dx: 20.0 + 10 * number for number, dx in enumerate(sorted(COLOURS))}
    frame["age"] = frame["dx"].map(ages) + frame.groupby("dx").cumcount() % 2
    frame.loc[frame["split"] != "train", "age"] = 1.0
    splits = dict(list(frame.groupby("split")))
    drawn = SyntheticImages(np.zeros((40, SIZE, SIZE, 3), np.uint8), ["vasc", "df"] * 20, "unchecked")
    data = gather_data(read_prepared(), splits, drawn, with_metadata=True)
    borrowed = pd.DataFrame({"dx": drawn.dx, "age": data.synthetic.metadata[:, 0] * AGE_SCALE + AGE_CENTER})
    for dx, rows in borrowed.groupby("dx"):
        assert sorted(rows["age"].round().unique()) == [ages[dx], ages[dx] + 1], "of several training images, none of others"
    assert (data.synthetic.metadata[:, 1] == 1).all(), "known, as in the training images"
    assert gather_data(read_prepared(), splits, drawn, with_metadata=False).synthetic.metadata.shape == (40, 0)
