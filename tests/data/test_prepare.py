"""Every image decoded once into one array: the pixels, the order, the memory, and what is said of a broken one."""

import errno
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stages.prepare
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.base.errors import PipelineError, run_stage
from skinlesion.base.files import atomic_folder
from skinlesion.base.parallel import map_in_order
from skinlesion.data import preparing
from skinlesion.data.color_constancy import shades_of_gray
from skinlesion.data.geometry import fit_image
from tests.conftest import WriteParams
from tests.stage_cases import bytes_below

IMAGES = Path("data/raw/images")
PREPARED = Path("data/prepared")


def draw(image_id: str, *, width: int = 60, height: int = 45, seed: int = 0) -> Image.Image:
    """Save a JPEG of smooth noise and return it as any reader decodes it."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(IMAGES / f"{image_id}.jpg", quality=95)
    return Image.open(IMAGES / f"{image_id}.jpg")


def refused() -> str:
    with pytest.raises(PipelineError) as caught:
        stages.prepare.main()
    assert not list(PREPARED.parent.glob(".prepared*"))
    return str(caught.value)


def test_pixels_order_and_index(write_params: WriteParams) -> None:
    write_params({"prepare.size": 32, "prepare.fit": "squash"})
    originals = {name: draw(name, width=40 + 20 * n, seed=n) for n, name in enumerate(("c", "a", "d", "b"))}
    stages.prepare.main()
    prepared = read_prepared()
    assert (prepared.images.shape, prepared.images.dtype) == ((4, 32, 32, 3), np.uint8)
    assert prepared.index["image_id"].tolist() == ["a", "b", "c", "d"]
    assert prepared.index["width"].tolist() == [60, 100, 40, 80]
    assert set(prepared.index["height"]) == {45}
    assert (prepared.size, prepared.fit) == (32, "squash")
    for image_id, pixels in zip(prepared.index["image_id"], prepared.images, strict=True):
        np.testing.assert_array_equal(pixels, originals[image_id].resize((32, 32), Image.Resampling.BILINEAR))


def test_colour_modes_become_rgb(write_params: WriteParams) -> None:
    write_params({"prepare.size": 32})
    IMAGES.mkdir(parents=True)
    for mode, colour in (("L", 100), ("CMYK", (0, 255, 255, 0)), ("RGB", (10, 200, 30))):
        Image.new(mode, (50, 50), colour).save(IMAGES / f"{mode}.jpg", quality=95)
    stages.prepare.main()
    prepared = read_prepared()
    for mode, colour in (("L", (100, 100, 100)), ("CMYK", (255, 0, 0)), ("RGB", (10, 200, 30))):
        pixels = prepared.images[prepared.rows_of([mode])[0]].astype(int)
        assert np.abs(pixels - colour).max() <= 4, mode


def test_stored_pixels_not_turned_by_exif(write_params: WriteParams) -> None:
    write_params({"prepare.size": 32})
    draw("plain")
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to show"
    segment = exif.tobytes()
    content = (IMAGES / "plain.jpg").read_bytes()
    turned = content[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + content[2:]
    (IMAGES / "turned.jpg").write_bytes(turned)
    assert Image.open(IMAGES / "turned.jpg").getexif()[0x0112] == 6
    stages.prepare.main()
    prepared = read_prepared()
    assert prepared.index[["width", "height"]].to_numpy().tolist() == [[60, 45], [60, 45]]
    np.testing.assert_array_equal(prepared.images[0], prepared.images[1])


def test_same_bytes_with_any_threads_each_image_opened_once(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params({"prepare.size": 32})
    for number in range(40):
        draw(f"i{number:02d}", width=30 + number * 7 % 90, seed=number)
    opened: Counter[str] = Counter()
    real_read = Path.read_bytes

    def counting_read(path: Path) -> bytes:
        opened[path.stem] += path.suffix == ".jpg"
        return real_read(path)

    monkeypatch.setattr(Path, "read_bytes", counting_read)
    found = set()
    for workers in (1, 5):
        monkeypatch.setattr(stages.prepare, "available_cores", lambda workers=workers: workers)
        stages.prepare.main()
        found.add(tuple(bytes_below(PREPARED).items()))
    assert len(found) == 1 and +opened == Counter({f"i{number:02d}": 2 for number in range(40)})


def test_few_results_wait_however_many_items_there_are() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = map_in_order(lambda number: number * number, endless(), workers=3)
    for expected in range(1, 200):
        assert next(results) == expected**2
        assert taken < expected + 4 * 3
    results.close()


def test_broken_images_are_named_and_the_old_array_stays(write_params: WriteParams) -> None:
    write_params({"prepare.size": 32})
    for number in range(9):
        draw(f"i{number}", seed=number)
    stages.prepare.main()
    before = (PREPARED / "images.npy").read_bytes()
    content = (IMAGES / "i3.jpg").read_bytes()
    (IMAGES / "i3.jpg").write_bytes(content[: len(content) // 2])
    message = refused()
    assert message.startswith("1 broken image(s) in data/raw/images: i3 (image file is truncated")
    assert message.endswith("run `download` again")
    for number in (4, 5, 6, 7):
        (IMAGES / f"i{number}.jpg").write_bytes(b"no image")
    Image.new("RGB", (40, 40)).save(IMAGES / "i1.jpg", format="PNG")  # only a JPEG is decoded, whatever the name says
    (IMAGES / "i0.jpg").write_bytes(b"")
    message = refused()
    assert "7 broken image(s)" in message
    assert "i0 (not a JPEG file), i1 (not a JPEG file), i3 (image file is truncated" in message
    assert "and 2 more: run `download` again" in message
    assert (PREPARED / "images.npy").read_bytes() == before


def test_a_decompression_bomb_is_refused_before_it_is_decoded(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params({"prepare.size": 32})
    for name, size in (("a", (5000, 5000)), ("b", (5001, 5000)), ("c", (65000, 65000))):
        draw(name)
        content = bytearray((IMAGES / f"{name}.jpg").read_bytes())
        start_of_frame = content.index(b"\xff\xc0") + 5  # marker, length, precision; then height and width
        content[start_of_frame : start_of_frame + 4] = struct.pack(">HH", size[1], size[0])
        (IMAGES / f"{name}.jpg").write_bytes(content)
    decoded = []
    monkeypatch.setattr(preparing, "fit_image", lambda image, **_: decoded.append(image.size) or Image.new("RGB", (32, 32)))
    message = refused()
    assert "b (5001 x 5000 pixels, more than 25 megapixels)" in message
    assert "c (Image size (4225000000 pixels) exceeds limit" in message
    assert message.startswith("2 broken image(s)")
    assert decoded == [(5000, 5000)]  # 25 megapixels to the pixel are let through


def test_without_images(write_params: WriteParams) -> None:
    write_params()
    assert "data/raw/images not found: run `download` first" in refused()
    IMAGES.mkdir(parents=True)
    assert "holds no image" in refused()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_an_error_and_leaves_the_old_array(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params({"prepare.size": 32})
    draw("a")
    stages.prepare.main()
    before = (PREPARED / "images.npy").read_bytes()

    @contextmanager
    def on_a_full_disk(path: Path) -> Iterator[Path]:
        with atomic_folder(path) as partial:
            (partial / "images.npy").symlink_to("/dev/full")
            yield partial

    monkeypatch.setattr(preparing, "atomic_folder", on_a_full_disk)
    draw("b")
    with pytest.raises(SystemExit, match=r"error: No space left on device.*: free some space and run the same command again"):
        run_stage(stages.prepare.main)
    assert (PREPARED / "images.npy").read_bytes() == before
    assert [path.name for path in PREPARED.parent.glob("*prepared*")] == ["prepared"]


def test_a_file_the_system_cannot_read_is_not_called_broken(write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params({"prepare.size": 32})
    draw("a")

    def no_access(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", no_access)
    with pytest.raises(SystemExit, match=r"error: Permission denied at .*a\.jpg: check the permissions"):
        run_stage(stages.prepare.main)
    assert not PREPARED.exists()


def draw_under_red_light() -> np.ndarray:
    """Save an image whose left part, which a crop leaves out, is redder than the rest; its pixels as decoded."""
    pixels = np.full((60, 120, 3), (120, 110, 100), dtype=np.uint8)
    pixels[:, :24] = (250, 60, 60)
    IMAGES.mkdir(parents=True)
    Image.fromarray(pixels).save(IMAGES / "a.jpg", quality=95)
    return np.asarray(Image.open(IMAGES / "a.jpg"))


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("color_constancy", ["none", "shades_of_gray"])
def test_colour_constancy_is_of_params_and_the_whole_original(write_params: WriteParams, color_constancy: str, fit: str) -> None:
    write_params({"prepare.size": 32, "prepare.fit": fit, "prepare.color_constancy": color_constancy})
    original = draw_under_red_light()
    stages.prepare.main()
    prepared = read_prepared()
    assert (prepared.fit, prepared.color_constancy) == (fit, color_constancy)
    corrected = shades_of_gray(original) if color_constancy == "shades_of_gray" else original
    np.testing.assert_array_equal(prepared.images[0], fit_image(Image.fromarray(corrected), size=32, fit=fit))
    if color_constancy == "shades_of_gray":
        after = shades_of_gray(np.asarray(fit_image(Image.fromarray(original), size=32, fit=fit)))
        assert fit != "crop" or np.abs(prepared.images[0].astype(int) - after).max() > 20
        assert np.abs(corrected.astype(int) - original).max() > 30
