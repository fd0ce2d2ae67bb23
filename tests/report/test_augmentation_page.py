"""The page of augmentations: its rows, that it changes with the run's values, and that its text can be read."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from skinlesion.config.augmentation import AugmentationParams
from skinlesion.report import augmentation_page
from skinlesion.report.augmentation_page import chosen_augmentations, draw_augmentation_page, switched_on
from skinlesion.training.augmentation.presets import NONE, PRESETS, resolve
from skinlesion.training.augmentation.transforms import train_transform

EVERY_VALUE = {
    "horizontal_flip": True,
    "vertical_flip": True,
    "rotation": 172.5,
    "min_scale": 0.45,
    "zoom": 0.15,
    "color_jitter": 0.25,
    "hue": 0.035,
    "rand_augment": 9,
    "hair": 0.25,
    "random_erasing": 0.25,
    "mixup": 0.25,
    "cutmix": 1.25,
    "mix_share": 0.75,
}
LABELS = [4, 0, 6, 0, 0, 2, 1]


def chosen(preset: str = "light", **values: Any) -> AugmentationParams:
    return AugmentationParams.model_validate({**dict.fromkeys(AugmentationParams.model_fields), "preset": preset, **values})


def images(number: int = 6, size: int = 32) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(60, 230, (size, size, 3), dtype=np.uint8) for _ in range(number)]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, in order."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def test_a_row_for_each_preset_and_one_for_values_of_the_runs_own() -> None:
    rows = chosen_augmentations(chosen("medium"))
    assert list(rows) == ["preset none", "preset light", "preset medium, chosen in this run", "preset strong"]
    assert list(rows.values()) == list(PRESETS.values())
    rows = chosen_augmentations(chosen("medium", rotation=5.0))
    assert list(rows) == [*(f"preset {name}" for name in PRESETS), "this run: preset medium with changed values"]
    assert list(rows.values())[-1] == PRESETS["medium"].model_copy(update={"rotation": 5.0})


def test_the_values_that_are_on_are_named() -> None:
    assert switched_on(NONE) == "images as they are"
    assert switched_on(NONE.model_copy(update={"mix_share": 0.9})) == "images as they are"
    assert switched_on(PRESETS["light"]) == "horizontal_flip, vertical_flip, rotation 20, min_scale 0.8, color_jitter 0.1"
    everything = switched_on(resolve(chosen("none", **EVERY_VALUE)))
    expected = [name if value is True else f"{name} {value:g}" for name, value in EVERY_VALUE.items()]
    assert everything.split(", ") == expected


def test_what_is_shown_is_what_training_sees(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_augmentation_page(images(), LABELS, chosen("light"), tmp_path / "page.png")
    panels = pictures(drawn[0])
    for panel, image in zip(panels[:6], images(), strict=True):
        np.testing.assert_array_equal(panel, image)
    transform = train_transform(PRESETS["light"], size=32)
    torch.manual_seed(augmentation_page.SEED + 2)
    np.testing.assert_array_equal(panels[6 + 2], transform(torch.from_numpy(images()[2]).permute(2, 0, 1)).permute(1, 2, 0))
    assert texts(drawn[0]).count("mel") == len(PRESETS)
    # medium mixes by MixUp, strong by both: two panels each
    assert len(panels) == 6 * len(PRESETS) + 2 + 4


def test_mixed_panels_say_what_they_are_made_of(tmp_path: Path, drawn: list[Figure]) -> None:
    white, black = (np.full((32, 32, 3), value, dtype=np.uint8) for value in (255, 0))
    run = chosen("none", mixup=1.0, cutmix=1.0, mix_share=0.1)
    draw_augmentation_page([white, black], [4, 5], run, tmp_path / "page.png")
    mixup, _, cutmix, _ = pictures(drawn[0])[-4:]
    captions = texts(drawn[0])[-8:]
    shares = [float(caption.removeprefix("+ ").split()[0]) for caption in captions]
    assert [round(own + other, 9) for own, other in zip(shares[::2], shares[1::2], strict=True)] == [1] * 4
    assert mixup.mean() / 255 == pytest.approx(shares[0], abs=0.01)
    assert set(np.unique(cutmix)) == {0, 255}
    assert cutmix.mean() / 255 == pytest.approx(shares[4], abs=0.01)
    assert 0.2 < shares[0] < 0.8  # the most even of some draws


@pytest.mark.parametrize(("values", "mixed"), [({"hair": 0.5}, 0), ({"mixup": 1.0, "mix_share": 0.01}, 2)])
def test_what_is_mixed_is_shown_however_seldom(tmp_path: Path, drawn: list[Figure], values: dict[str, float], mixed: int) -> None:
    draw_augmentation_page(images(3), LABELS[:3], chosen("none", **values), tmp_path / "page.png")
    assert len(pictures(drawn[0])) == 5 * 3 + 2 + 4 + mixed


def test_each_value_of_the_run_changes_the_page(tmp_path: Path) -> None:
    pages = set()
    for name, value in {"rotation": 40.0, "hair": 1.0, "color_jitter": 0.9, "mixup": 0.3}.items():
        draw_augmentation_page(images(3), LABELS[:3], chosen("none", **{name: value}), tmp_path / "page.png")
        pages.add((tmp_path / "page.png").read_bytes())
    assert len(pages) == 4


def test_equal_input_gives_equal_bytes_and_no_generator_moves(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for name in ("one", "other"):
        draw_augmentation_page(images(8), LABELS, chosen("strong"), tmp_path / "new" / f"{name}.png")
    assert torch.equal(torch.get_rng_state(), state)
    assert (tmp_path / "new" / "one.png").read_bytes() == (tmp_path / "new" / "other.png").read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["one.png", "other.png"]
    with Image.open(tmp_path / "new" / "one.png") as page:
        assert page.format == "PNG"
        assert set(page.info) <= {"dpi"}


@pytest.mark.parametrize("number", [1, 2, 6, 7])
def test_no_text_is_cut_off_or_lies_on_another(tmp_path: Path, drawn: list[Figure], number: int) -> None:
    draw_augmentation_page(images(number), [0] * number, chosen("none", **EVERY_VALUE), tmp_path / "page.png")
    figure = drawn[0]
    assert ("needs two images" in texts(figure)) is (number == 1)
    assert len(pictures(figure)) == min(number, 6) * 5 + (10 if number > 1 else 0)
    figure.set_dpi(augmentation_page.DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = {text: text.get_window_extent(renderer) for text in figure.texts}
    for text, box in boxes.items():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text
        for axes in figure.axes:
            assert not (axes.images and axes.bbox.overlaps(box)), text
    for (one, box), (other, beside) in combinations(boxes.items(), 2):
        assert not box.overlaps(beside), (one, other)
