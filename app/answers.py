"""What is known of the images on a page, kept for one visit and in memory, so that nothing is computed twice.

The network runs once an image and patient; another operating point only reads its logits again. A map is made when it is first
shown. What is no longer on the page is forgotten. The page runs anew at every touch, so nothing here reads all bytes of an image
to find what is known of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from app.opening import Opened
from skinlesion.artifacts.patients import Patient
from skinlesion.serving.operating_point import OperatingPoint
from skinlesion.serving.prediction import Prediction
from skinlesion.serving.upload_checks import UploadError
from skinlesion.serving.uploads import decode_upload

SHOWN = 800  # pixels of the longer side, of what the page shows and keeps of an image
MOST = 20  # images at a time


@dataclass(frozen=True)
class Handed:
    """An image as it was handed in.

    name : of the file. data : its bytes. id : of this upload or example, never that of others. drawn : whether it is an example.
    """

    name: str
    data: bytes
    id: str
    drawn: bool = False


@dataclass
class Seen:
    """What is kept of an image that was decoded.

    shown : RGB, at most `SHOWN` pixels long. square : what the networks were shown. notes : what was done to it.
    quality : warnings on the original. logits : by what was known of the patient.
    """

    shown: Image.Image
    square: np.ndarray
    notes: tuple[str, ...]
    quality: tuple[str, ...]
    logits: dict[Patient, np.ndarray] = field(default_factory=dict)


@dataclass
class Memory:
    """Of one visit. Keys begin with `Handed.id` after `Opened.key`, so that nothing is of another training."""

    seen: dict[tuple[str, str], Seen | str] = field(default_factory=dict)  # or why it was refused
    maps: dict[tuple[str, str, Patient, str, str], np.ndarray] = field(default_factory=dict)

    def forget_others(self, opened: Opened, handed: Iterable[Handed]) -> None:
        """Keep what is of these images and this predictor."""
        kept = {(opened.key, each.id) for each in handed}
        self.seen = {key: value for key, value in self.seen.items() if key in kept}
        self.maps = {key: value for key, value in self.maps.items() if key[:2] in kept}


@dataclass(frozen=True)
class Answer:
    """Of one image: either `error`, why it was refused, or what was seen and predicted."""

    handed: Handed
    error: str | None = None
    seen: Seen | None = None
    prediction: Prediction | None = None


def answer(memory: Memory, opened: Opened, handed: Handed, patient: Patient, point: OperatingPoint | None) -> Answer:
    """Decode and predict an image, as far as that was not done before.

    Raises
    ------
    PipelineError
        A logit is not finite.
    """
    key = (opened.key, handed.id)
    if key not in memory.seen:
        memory.seen[key] = _look(opened, handed)
    seen = memory.seen[key]
    if isinstance(seen, str):
        return Answer(handed, error=seen)
    if patient not in seen.logits:
        seen.logits[patient] = opened.predictor.logits(seen.square[None], [patient])[0]
    prediction = opened.predictor.conclude(seen.logits[patient], seen.square, seen.quality, point)
    return Answer(handed, seen=seen, prediction=prediction)


def _look(opened: Opened, handed: Handed) -> Seen | str:
    """Decode an image and look at it as it is, or say why it is refused. The original, which can be large, is not kept."""
    predictor = opened.predictor
    try:
        upload = decode_upload(handed.data)
    except UploadError as error:
        return str(error)
    square = predictor.square(upload.image)
    quality = predictor.quality(upload.image)
    upload.image.thumbnail((SHOWN, SHOWN))
    return Seen(upload.image, square, upload.notes, quality)


def has_map(memory: Memory, opened: Opened, handed: Handed, patient: Patient, *, method: str, diagnosis: str) -> bool:
    """Whether a map was made before."""
    return (opened.key, handed.id, patient, method, diagnosis) in memory.maps


def make_map(memory: Memory, opened: Opened, answered: Answer, patient: Patient, *, method: str, diagnosis: str) -> np.ndarray:
    """A map on the shown image, uint8 (H, W) from 0 to 255, made where it was not made before.

    Of what the networks saw of the original; only drawn at the size that is shown, as a map of 25 megapixels takes a gigabyte.

    Raises
    ------
    PipelineError
        The method cannot be used.
    """
    handed, seen = answered.handed, answered.seen
    if seen is None:
        raise ValueError("an image that was refused has no map")
    key = (opened.key, handed.id, patient, method, diagnosis)
    if key not in memory.maps:
        heat = opened.predictor.explainer.explain(seen.shown, seen.square, patient, diagnosis=diagnosis, method=method)
        memory.maps[key] = np.round(255 * heat).astype(np.uint8)
    return memory.maps[key]
