"""What the tests of predictor, command line, demo and API share: a workspace as a run leaves it, around small random networks."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.base.files import write_json
from skinlesion.config.schema import TestTime
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.evaluation.metrics.classification import LEADING
from skinlesion.evaluation.results import decisions
from tests.model.classifier_cases import make_config, make_network, save_ensemble

TEMPERATURE = 1.6
FITTED: dict[str, Any] = {"method": "temperature", "scale": [1 / TEMPERATURE] * 7, "bias": [0.0] * 7}
FITTED |= {"fitted_on": "val", "temperature": TEMPERATURE}
POINTS: dict[str, Any] = {
    "target": "mel",
    "classes": ["mel"],
    "score": "sum of calibrated probabilities",
    "rule": "flag when score >= threshold",
    "chosen_on": "val",
    "points": {
        "everything": {"threshold": 1e-9, "val": {"sensitivity": 1.0, "specificity": 0.0}},
        "recall_0.90": {"threshold": 0.1, "val": {"sensitivity": 0.92, "specificity": 0.61}},
        "nothing": {"threshold": 1.0, "val": {"sensitivity": 0.0, "specificity": 1.0}},
    },
}
SET_SCALE = 3.0  # of the sets' own calibration
SETS: dict[str, Any] = {"method": "raps", "penalty": 0.01, "free": 2, "levels": {"0.9": 0.8, "0.99": None}}


def make_workspace(root: Path, members: Sequence[dict[str, Any]] = ({},), *, test_time: TestTime = "none") -> Path:
    """Lay `models/` of an ensemble out below `root`; each member is overrides of `tests.model.classifier_cases.make_config`."""
    configs = [make_config(**{"seed": seed} | overrides) for seed, overrides in enumerate(members)]
    save_ensemble([(make_network(config, seed=seed), config) for seed, config in enumerate(configs)], root)
    whose = {"classifier_sha256": classifier_digest(root / CLASSIFIER)}
    calibration = FITTED | {"test_time": test_time} | whose
    decisions.write_calibration(calibration, root / decisions.CALIBRATION)
    decisions.write_operating_points(POINTS | whose, root / decisions.OPERATING_POINTS)
    apart = calibration | {"scale": [SET_SCALE] * 7, "temperature": 1 / SET_SCALE}
    decisions.write_conformal(SETS | {"calibration": apart}, root / decisions.CONFORMAL)
    return root


def write_measured(root: Path, digest: str | None, value: float = 0.8) -> None:
    """What `evaluate` measured of the classifier with this digest."""
    intervals = {name: {"low": value - 0.1, "high": value + 0.1} for name in LEADING}
    test = {"images": 97, "lesions": 73, **dict.fromkeys(LEADING, value), "intervals": intervals}
    content = {decisions.CLASSIFIER_SHA256: digest, "bootstrap": {"confidence": 0.95}, "test": test}
    write_json(root / "metrics/evaluate.json", content)


def lesion_image(seed: int = 0, *, width: int = 90, height: int = 70) -> Image.Image:
    """A brown spot on pale skin under fine noise, which no warning is about; RGB."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    center_x, center_y = generator.uniform(0.4, 0.6, 2)
    distance = np.hypot(x / width - center_x, y / height - center_y)[..., None]
    skin, spot = np.array([225, 180, 160]), generator.uniform(0.4, 0.8) * np.array([190, 130, 100])
    pixels = np.where(distance < generator.uniform(0.15, 0.3), spot, skin) + generator.normal(0, 12, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file with its right checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def png_header(width: int, height: int, depth: int = 8, color: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)


PNG_END = (b"IEND", b"")


def with_scans(image: Image.Image, copies: int) -> bytes:
    """A progressive JPEG whose last scan, of a few bytes where the image is of one colour, is there so many times more."""
    data = encoded(image, progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * copies + data[-2:]
