"""The index of the cases that `gradcam` shows: what it finds, and that each case is drawn with its own maps."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.artifacts.paths import PLOTS
from skinlesion.artifacts.prepared import read_prepared
from skinlesion.artifacts.raw import image_path
from skinlesion.artifacts.tables import PROBABILITY_COLUMNS
from skinlesion.diagnoses import CLASSES
from skinlesion.explanation.cam import gallery, index, panels
from skinlesion.explanation.cam.placing import map_to_original
from stages import gradcam
from tests.conftest import WriteParams
from tests.explanation import workspace as given
from tests.report.report_cases import Page


def test_the_index_is_one_accessible_file_that_finds_every_page_and_case(ready: Path, write_params: WriteParams) -> None:
    write_params({"machine.device": "cpu"})
    gradcam.main()
    folder = PLOTS / "gradcam"
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    table = pd.read_csv(folder / "cases.csv")
    links = page.values("a", "href")
    assert all((folder / str(link)).is_file() for link in links)
    assert set(links) == {path.name for path in folder.glob("*_*.png")}
    assert links[-len(table) :] == list(table["page"])  # the table's, in its order
    assert all(image_id in page.text for image_id in table["image_id"])
    headings = ["melanoma (mel)", "actinic keratosis / intraepithelial carcinoma (akiec)", "basal cell carcinoma (bcc)"]
    places = [page.text.index(heading) for heading in headings]
    assert places == sorted(places)
    assert "missed melanoma: 2; unsure correct: 1" in page.text
    assert "actinic keratosis / intraepithelial carcinoma (akiec) No case." in page.text
    assert index.SYNTHETIC in page.text
    assert page.values("html", "lang") == ["en"]
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags and "link" not in tags
    assert (tags.count("title"), tags.count("h1"), tags.count("main")) == (1, 1, 1)
    assert all(page.values("img", "alt"))
    assert set(page.values("th", "scope")) == {"col", "row"}
    assert {"width=device-width, initial-scale=1"} <= set(page.values("meta", "content"))
    sources = page.values("img", "src")
    assert len(sources) == len(table)  # no class has more than five
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(str(source).removeprefix("data:image/jpeg;base64,")))) as picture:
            assert picture.size == (44, 33)


def test_the_index_escapes_and_names_what_is_unknown(tmp_path: Path) -> None:
    case = given.make_case(image_id="<b>&1", age=np.nan, sex="unknown")
    table = pd.DataFrame([vars(case)]).assign(lesion_id="L1", probability=0.75, probability_true=0.125)
    rows = index.class_rows(table, [index.make_thumbnail(case)])
    index.write_index(rows, table, tmp_path / "index.html", title="a & b", synthetic=False)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;1" in text and "a &amp; b" in text
    assert ">unknown<" in text
    assert index.SYNTHETIC not in text


def test_the_index_shows_the_first_of_each_class() -> None:
    table = pd.DataFrame({"dx": ["mel"] * 7 + ["nv"] * 2 + ["mel"], "position": range(1, 11)})
    assert list(index.first_of_each_class(table.sample(frac=1, random_state=0))["position"]) == [1, 2, 3, 4, 5, 8, 9]


def test_nothing_of_the_index_is_cut_off(tmp_path: Path) -> None:
    several = [given.make_case(60, 45, position=number + 100, page=f"mel_{number // 2 + 1}.png") for number in range(5)]
    table = pd.DataFrame([{"dx": case.dx, "kind": case.kind, "page": case.page, "position": case.position} for case in several])
    rows = index.class_rows(table, [index.make_thumbnail(case) for case in several])
    assert [row.dx for row in rows] == ["mel", *(dx for dx in CLASSES if dx != "mel")]
    assert rows[0].pages == ("mel_1.png", "mel_2.png", "mel_3.png")
    assert rows[0].counts == {"missed melanoma": 5, "confident error": 0, "unsure correct": 0, "typical correct": 0}
    index.draw_index(rows, tmp_path / "index.png", title="SmoothGradCAMpp of layer " + "x y " * 60)
    index.draw_index(index.class_rows(table[:0], []), tmp_path / "none.png", title="GradCAM")
    for name in ("index.png", "none.png"):
        assert (given.grey_pixels(tmp_path / name) < 128).any() and given.nothing_is_cut_off(tmp_path / name)


def test_thumbnail_is_the_overlay_in_small_with_the_lesion_outlined() -> None:
    case = given.make_case(800, 600)
    small = index.make_thumbnail(case)
    assert small.pixels.shape == (150, 200, 3)
    assert small.caption == ("1. ISIC_0024306", "missed melanoma: akiec 0.97")
    plain = index.make_thumbnail(given.make_case(800, 600, lesion=None)).pixels
    np.testing.assert_allclose(plain[:3], panels.overlay(case.image, case.predicted_map)[:12:4, ::4], atol=4)
    rows, columns = np.nonzero((small.pixels == 255).all(axis=2))
    radii = np.hypot(rows + 0.5 - 75, columns + 0.5 - 100)
    np.testing.assert_allclose(radii, 37.5, atol=2)
    assert index.make_thumbnail(given.make_correct()).caption[1] == "typical correct: 1.00"
    assert index.make_thumbnail(given.make_correct(width=80, height=64)).pixels.shape == (64, 80, 3)


def test_each_case_has_its_own_image_and_maps(ready: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps that differ by image and by class, whichever images are asked for, in whatever order."""
    write_params({"machine.device": "cpu"})

    def map_of(row: int, dx: str) -> np.ndarray:
        return np.random.default_rng([row, CLASSES.index(dx)]).random((4, 4), dtype=np.float32)

    def compute_maps(*arguments: Any, rows: np.ndarray, **_: Any) -> np.ndarray:
        return np.stack([map_of(row, CLASSES[target]) for row, target in zip(rows, arguments[3], strict=True)])

    monkeypatch.setattr("skinlesion.explanation.cam.members.compute_maps", compute_maps)
    loaded: list[panels.Case] = []
    monkeypatch.setattr(gallery, "draw_pages", lambda drawn, *_, **__: loaded.extend(drawn))
    gradcam.main()
    prepared, probabilities = read_prepared(), given.make_predictions().set_index("image_id")
    assert {case.image_id for case in loaded} == set(given.IMAGE_IDS)
    for case in loaded:
        (row,) = prepared.rows_of([case.image_id])
        np.testing.assert_allclose(case.probabilities, probabilities.loc[case.image_id, list(PROBABILITY_COLUMNS)])
        with Image.open(image_path(case.image_id)) as file:
            np.testing.assert_array_equal(case.image, np.asarray(file.convert("RGB")))
        np.testing.assert_array_equal(case.lesion, given.disc(given.IMAGE_IDS.index(case.image_id)))
        size = {"size": given.SIZE, "fit": "squash", "centers": given.CENTERS}
        maps = (map_of(row, dx) for dx in (case.predicted, case.dx))
        predicted, true = (map_to_original(each, given.WIDTH, given.HEIGHT, **size) for each in maps)
        np.testing.assert_allclose(case.predicted_map, predicted)
        if case.dx == case.predicted:
            assert case.true_map is None
        else:
            np.testing.assert_allclose(case.true_map, true)
