"""The command line: a row for every file, in order, whatever is wrong with some of them."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skinlesion import predict
from skinlesion.base.errors import PipelineError
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.serving.prediction import ROW_COLUMNS
from skinlesion.serving.predictor import load_predictor
from skinlesion.serving.uploads import decode_upload
from tests.conftest import ROOT, refuses
from tests.serving.predictor_cases import encoded, lesion_image, make_workspace


@pytest.fixture
def images(workspace: Path) -> Path:
    """A workspace with a model, and a folder with good images, bad ones and other files."""
    make_workspace(workspace)
    folder = workspace / "images"
    (folder / "more").mkdir(parents=True)
    for seed, name in enumerate(("b.jpg", "a.PNG", "more/c.jpeg")):
        (folder / name).write_bytes(encoded(lesion_image(seed), "PNG" if name.endswith("PNG") else "JPEG"))
    (folder / "cut.jpg").write_bytes(encoded(lesion_image())[:900])
    (folder / "small.jpg").write_bytes(encoded(lesion_image(width=20)))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["predict", *arguments])
    try:
        predict.main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def rows() -> list[dict[str, str]]:
    with Path("out.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_file_has_a_row(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "images", "images/notes.txt", "images/b.jpg", "--csv", "out.csv") == 3
    table = rows()
    names = ["images/a.PNG", "images/b.jpg", "images/cut.jpg", "images/more/c.jpeg", "images/small.jpg", "images/notes.txt"]
    assert [row["file"] for row in table] == names and tuple(table[0]) == ROW_COLUMNS
    whose = {"model": "ensemble", "engine": "torch", "classifier_sha256": classifier_digest()}
    assert all({name: row[name] for name in whose} == whose for row in table)
    errors = {row["file"]: row["error"] for row in table if row["error"]}
    assert errors == {
        "images/cut.jpg": "The file is damaged or incomplete: export or copy it again.",
        "images/small.jpg": "The image has 20 x 70 pixels; each side must have 50: send the original.",
        "images/notes.txt": "This is not an image of a known kind: send a JPEG or a PNG.",
    }
    assert all("trained on drawn images" in row["warnings"] for row in table if not row["error"])
    assert all(row["most_probable"] == row["flagged"] == row["probability_mel"] == "" for row in table if row["error"])
    predictor = load_predictor()
    for row in table:
        if not row["error"]:
            expected = predictor.predict([decode_upload(Path(row["file"]).read_bytes()).image])[0]
            assert float(row["probability_mel"]) == pytest.approx(expected.probabilities["mel"], abs=1e-6)
            assert row["flagged"] == ("yes" if expected.flagged else "no") and row["operating_point"] == "recall_0.90"
            (most_probable, probability), *_ = expected.top(1)
            assert row["most_probable"] == most_probable and float(row["probability"]) == pytest.approx(probability)


def test_all_good_is_exit_code_0_and_more_files_than_a_batch(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = images / "many"
    many.mkdir()
    for seed in range(predict.BATCH + 3):
        (many / f"{seed:02d}.jpg").write_bytes(encoded(lesion_image(seed)))
    assert run(monkeypatch, str(many), "--csv", "out.csv", "--operating-point", "everything") == 0
    assert [Path(row["file"]).stem for row in rows()] == [f"{seed:02d}" for seed in range(predict.BATCH + 3)]
    assert {row["flagged"] for row in rows()} == {"yes"}
    assert run(monkeypatch, str(many), "--csv", "out.csv", "--operating-point", "nothing") == 0
    assert {row["flagged"] for row in rows()} == {"no"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_a_row(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "b.jpg").chmod(0)
    assert run(monkeypatch, "images/b.jpg", "--csv", "out.csv") == 3
    assert "check the permissions" in rows()[0]["error"]


def test_a_file_that_vanishes_is_a_row(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "dangling.jpg").symlink_to("nowhere.jpg")
    predictor = load_predictor()
    decoded = predict.decode(predictor, images / "dangling.jpg")
    assert decoded.square is None and decoded.error.startswith("The file could not be read: No such file")


def test_no_photograph_is_overwritten(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a slip of the shell makes the table's name."""
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    (images / "link.csv").symlink_to("b.jpg")
    for out in ("images/b.jpg", "images/new.png", "images/notes.txt", "images/link.csv", "images"):
        with pytest.raises(PipelineError, match="is not a table of this command and is left as it is: name another file"):
            run(monkeypatch, "images/a.PNG", "images/b.jpg", "--csv", out)
    assert {path: path.read_bytes() for path in before} == before and not (images / "new.png").exists()
    Path("empty.csv").touch()
    Path("link.csv").symlink_to("empty.csv")
    for _ in range(2):  # an own table is renewed, and through a link
        assert run(monkeypatch, "images/b.jpg", "--csv", "link.csv") == 0
    assert Path("link.csv").is_symlink() and Path("empty.csv").read_text().startswith("file,error")


def test_files_left_out_are_said(images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    (images / "more/photo.HEIC").touch()
    (images / "photo.heic").touch()
    with caplog.at_level("WARNING"):
        run(monkeypatch, "images", "--csv", "out.csv")
    assert "images: 3 other files are left out (more/photo.HEIC, notes.txt, photo.heic)" in caplog.text


def test_pictures_by_content_links_once(images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    (images / "cut.jpg").rename(Path("cut.jpg"))
    (images / "small.jpg").unlink()
    (images / "d.jfif").write_bytes((images / "b.jpg").read_bytes())
    (images / "e").write_bytes((images / "a.PNG").read_bytes())
    Path("linked").mkdir()
    Path("linked/f.JPE").write_bytes((images / "b.jpg").read_bytes())
    for name, target in (("linked", "linked"), ("loop", "images"), ("up", ".")):
        (images / name).symlink_to(Path(target).absolute())
    assert run(monkeypatch, "images", "--csv", "out.csv") == 0
    names = ("a.PNG", "b.jpg", "d.jfif", "e", "linked/f.JPE", "more/c.jpeg")
    assert [row["file"] for row in rows()] == [f"images/{name}" for name in names]
    assert "left aside, links to folders that are looked through anyway: loop, up" in caplog.text


def test_a_file_is_predicted_once_by_whatever_path(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "images/b.jpg", str(images / "b.jpg"), "images/more/../b.jpg", "--csv", "out.csv")
    assert [row["file"] for row in rows()] == ["images/b.jpg"]


def test_no_name_is_a_formula(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("=1+1.jpg").write_bytes((images / "b.jpg").read_bytes())
    run(monkeypatch, "=1+1.jpg", "--csv", "out.csv")
    assert rows()[0]["file"] == "'=1+1.jpg"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere not found: name files or folders that exist"),
        (("images/empty",), r"images/empty holds no JPEG, PNG or DICOM file: name another folder"),
        (("images", "--age", "50"), "this classifier sees the image alone: leave out --age"),
        (("images", "--operating-point", "nothin"), r"no operating point 'nothin'; did you mean 'nothing'\?"),
        (("images", "--sex", "woman"), "no sex 'woman'; known: female, male"),
    ],
)
def test_errors_write_nothing(images: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str) -> None:
    (images / "empty").mkdir()
    refuses(message, lambda: run(monkeypatch, *arguments, "--csv", "out.csv"))
    assert not Path("out.csv").exists()


def test_as_a_user_calls_it(images: Path) -> None:
    """Also with a name that is no UTF-8."""
    (images / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encoded(lesion_image()))
    command = [sys.executable, "-m", "skinlesion.predict", "images", "--csv", "out.csv"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "4 of 6 files predicted, in out.csv. Not for clinical use." in done.stderr and "Traceback" not in done.stderr
    assert "An image is flagged when the probability of melanoma is at least 10.0 %" in done.stderr
    assert [row["file"] for row in rows() if "caf" in row["file"]] == ["images/caf\\udce9.jpg"]
