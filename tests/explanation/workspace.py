"""What the tests of `gradcam` share: a workspace in which it can run, noise with dark discs, and cases to be drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skinlesion.artifacts.paths import METRICS, PLOTS
from skinlesion.artifacts.raw import RAW, image_path, mask_path
from skinlesion.base.files import write_json
from skinlesion.config.schema import Fit
from skinlesion.data.geometry import fit_image
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.results.predictions import write_predictions
from skinlesion.explanation.cam import members, panels
from tests.model.classifier_cases import make_config, make_network, save_ensemble
from tests.stage_cases import bytes_below, predictions_of, write_prepared

SIZE, WIDTH, HEIGHT = 32, 44, 33

CENTERS = (0.5, 8.0)  # of layer2's cells in resnet18: stride 8, from the first pixel's centre

# image_id, lesion_id, truth, prediction, its probability
PREDICTED = [
    ("ISIC_01", "L1", "mel", "mel", 0.90),
    ("ISIC_02", "L1", "mel", "nv", 0.50),
    ("ISIC_03", "L2", "mel", "bkl", 0.70),
    ("ISIC_04", "L3", "nv", "nv", 0.80),
    ("ISIC_05", "L3", "nv", "nv", 0.95),
    ("ISIC_06", "L4", "nv", "mel", 0.99),
    ("ISIC_08", "L5", "bkl", "nv", 0.60),
    ("ISIC_07", "L5", "bkl", "nv", 0.60),
    ("ISIC_09", "L6", "nv", "nv", 0.95),
    ("ISIC_10", "L7", "df", "df", 0.40),
    ("ISIC_11", "L8", "bcc", "bcc", 0.65),
    ("ISIC_12", "L9", "vasc", "akiec", 0.85),
]

IMAGE_IDS = [row[0] for row in PREDICTED]


def make_predictions() -> pd.DataFrame:
    """`PREDICTED` as a prediction table."""
    return predictions_of(PREDICTED)


def make_classifier(*backbones: str, **overrides: Any) -> None:
    """Save networks with seeded random weights, members m0-0, m1-0, ... of an ensemble; one resnet18 by default."""
    configs = [make_config(name, member=f"m{at}", size=SIZE, **overrides) for at, name in enumerate(backbones or ("resnet18",))]
    save_ensemble((make_network(config, seed=number), config) for number, config in enumerate(configs))


def disc(number: int) -> np.ndarray:
    """The lesion of an image: a disc that wanders with `number`, bool (HEIGHT, WIDTH)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - 14 - number) ** 2 + (rows - 16) ** 2 < (5 + number / 3) ** 2


def write_mask(image_id: str, lesion: np.ndarray) -> None:
    """Save a mask where `download` would."""
    path = mask_path(image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(lesion.astype(np.uint8) * 255).save(path)


def write_images(images: dict[str, np.ndarray], fit: Fit = "squash") -> None:
    """Originals, and the prepared array of them in another order, that is backwards."""
    squares = []
    for image_id, pixels in images.items():
        path = image_path(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        squares.append(np.asarray(fit_image(Image.open(path), size=SIZE, fit=fit)))
    write_prepared([*images][::-1], np.stack(squares)[::-1], width=WIDTH, height=HEIGHT, fit=fit)


def make_workspace(fit: Fit, *, masks: bool = True) -> None:
    """Everything that the stage reads but `params.yaml`, from 12 images of noise with a dark disc."""
    images = {}
    for number, image_id in enumerate(IMAGE_IDS):
        images[image_id] = np.random.default_rng(number).integers(150, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        images[image_id][disc(number)] //= 3
        if masks:
            write_mask(image_id, disc(number))
    write_images(images, fit)
    provenance = {"source": "sample", "synthetic": True, "licence": "CC0-1.0", "counts": {}}
    write_json(RAW / "provenance.json", provenance)
    write_predictions({"test": make_predictions()})
    make_classifier(fit=fit)


SHOW_ONLY_MISSES = {"machine.device": "cpu", "gradcam.deletion_steps": 2} | dict.fromkeys(
    ("gradcam.confident_errors", "gradcam.unsure_correct", "gradcam.typical_correct"), 0
)


def outputs(stage: str) -> dict[str, bytes]:
    """Every file that a stage wrote, by its name."""
    return {Path(path).name: content for path, content in bytes_below(METRICS, PLOTS / stage).items()}


def read_plot(name: str) -> pd.DataFrame:
    return pd.read_csv(PLOTS / "gradcam" / name)


def stub_maps(monkeypatch: pytest.MonkeyPatch, maps: np.ndarray) -> None:
    """Have these maps, in the order of `PREDICTED`, in place of computed ones."""
    rows = np.arange(len(IMAGE_IDS))[::-1]  # of the images in the prepared array
    monkeypatch.setattr(members, "compute_maps", lambda *_, **options: maps[[list(rows).index(row) for row in options["rows"]]])


def make_case(width: int = 200, height: int = 150, **changes: Any) -> panels.Case:
    """An error on a plain image with a map that grows to the right, one that grows to the left, and a disc as lesion."""
    rows, columns = np.mgrid[:height, :width]
    lesion = (columns - width / 2) ** 2 + (rows - height / 2) ** 2 < (min(width, height) / 4) ** 2
    fields = {
        "image_id": "ISIC_0024306",
        "kind": "missed melanoma",
        "dx": "mel",
        "predicted": "akiec",
        "position": 1,
        "page": "mel_1.png",
        "age": 55.0,
        "sex": "female",
        "localization": "lower extremity",
        "probabilities": np.array([0.97, 0.0, 0.01, 0.0, 0.02, 0.0, 0.0]),
        "image": np.where(lesion[..., None], 90, 200).astype(np.uint8).repeat(3, axis=2),
        "predicted_map": columns / (width - 1),
        "true_map": 1 - columns / (width - 1),
        "lesion": lesion,
    }
    return panels.Case(**fields | changes)


def make_correct(**changes: Any) -> panels.Case:
    """A correct prediction, as sure as can be: the widest labels."""
    certain = np.eye(len(CLASSES))[CLASSES.index("mel")]
    defaults = {"predicted": "mel", "true_map": None, "probabilities": certain, "kind": "typical correct"}
    return make_case(**defaults | changes)


def nothing_is_cut_off(path: Path) -> bool:
    """Whether the outermost pixels of a page are white."""
    pixels = grey_pixels(path)
    return all((edge == 255).all() for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]))


def grey_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file.convert("L"))
