"""One predictor for the app, the API and the command line: an image in, what the pipeline knows of it out.

It reads what a run leaves behind: `models/classifier`, `models/calibration.json`, `models/operating_points.json` and, where they
are there, `models/conformal.json`, `models/export` and `metrics/`. Images are prepared, predicted, averaged and calibrated by the
code of the stages, so that an image of the test list gets the probabilities that stand in its prediction table.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.special import softmax

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.patients import Patient, as_table, encode_metadata
from skinlesion.base.errors import PipelineError, find_known
from skinlesion.config.contents import Conformal
from skinlesion.config.evaluation import CamMethod
from skinlesion.config.schema import TestTime
from skinlesion.data.preparing import square_of
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.identity import check_belongs, classifier_digest
from skinlesion.evaluation.inference.inference import Member, Predicted, predict_batch
from skinlesion.evaluation.inference.predictions import vote
from skinlesion.evaluation.metrics.calibration import Calibrator
from skinlesion.evaluation.results.decisions import CALIBRATION, CLASSIFIER_SHA256, CONFORMAL, read_calibration, read_conformal
from skinlesion.model.classifier import ClassifierConfig, load_ensemble
from skinlesion.model.float32 import full_float32
from skinlesion.serving.engines import ENGINES, Engine, device_of, load_members
from skinlesion.serving.explainer import Explainer
from skinlesion.serving.image_quality import quality_warnings
from skinlesion.serving.model_card import describe_model, measured_in_eight_bits, measured_on_test
from skinlesion.serving.operating_point import DEFAULT, OperatingPoint, read_points
from skinlesion.serving.prediction import Prediction, conformal_sets

ENSEMBLE = "ensemble"
SYNTHETIC_WARNING = "The classifier was trained on drawn images: its answers say nothing about skin."
BATCH = 32  # images a pass of the network; more would take memory and gain nothing on a CPU


@dataclass
class Predictor:
    """Made by `load_predictor`. Safe to call from several threads; the network runs for one of them at a time.

    root : the workspace. member : name of the member that is used, or `ensemble`. engine : what runs the networks.
    members : the networks that vote, by name. names : of all members of the ensemble.
    calibrator : None for one member of several, whose logits it was not fitted to.
    points : operating points by name; empty without a calibrator.
    conformal : how sets of diagnoses are formed; None where that is not there.
    explainer : makes the maps; by torch, whatever the engine.
    """

    root: Path
    member: str
    engine: Engine
    device: torch.device
    members: Mapping[str, Member]
    names: tuple[str, ...]
    test_time: TestTime
    calibrator: Calibrator | None
    points: dict[str, OperatingPoint]
    conformal: Conformal | None
    explainer: Explainer
    _network_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def config(self) -> ClassifierConfig:
        """Of the first member, for what all members share: classes, size, fit, data, fingerprint."""
        return next(iter(self.members.values())).config

    @property
    def needs_metadata(self) -> bool:
        """Whether a member predicts from age, sex and site besides the image."""
        return any(member.config.needs_metadata for member in self.members.values())

    @property
    def source(self) -> dict[str, str]:
        """What gives the answers, as `skinlesion.serving.prediction.SOURCE_COLUMNS`."""
        return {"model": self.member, "engine": self.engine, CLASSIFIER_SHA256: self.explainer.digest}

    @property
    def default_point(self) -> str | None:
        """Name of the operating point that is applied where none is asked for."""
        return DEFAULT if DEFAULT in self.points else next(iter(self.points), None)

    def square(self, image: Image.Image) -> np.ndarray:
        """What the networks are shown of an RGB image: uint8 (size, size, 3). Needs no lock, and most of an image's time."""
        config = self.config
        return square_of(image, size=config.size, fit=config.fit, color_constancy=config.color_constancy)

    def logits(self, squares: np.ndarray, patients: Sequence[Patient] | None = None) -> np.ndarray:
        """The vote's logits, float64 (N, 7), before calibration.

        squares : uint8 (N, size, size, 3). patients : one an image; nothing is known of any where None.

        Raises
        ------
        PipelineError
            A logit is not finite.
        ValueError
            Another number of patients than of squares.
        """
        known = as_table(patients if patients is not None else [Patient()] * len(squares))
        if len(known) != len(squares):
            raise ValueError(f"{len(known)} patients for {len(squares)} images")
        metadata = torch.from_numpy(encode_metadata(known)) if self.needs_metadata else None
        starts = range(0, len(squares), BATCH)
        with self._network_lock, full_float32():
            batches = [self._vote(squares[s : s + BATCH], None if metadata is None else metadata[s : s + BATCH]) for s in starts]
        return np.concatenate(batches) if batches else np.zeros((0, len(CLASSES)))

    def _vote(self, squares: np.ndarray, metadata: torch.Tensor | None) -> np.ndarray:
        images = torch.from_numpy(np.array(squares)).to(self.device)  # a copy: Pillow's pixels are read-only
        predicted: dict[str, Predicted] = {}
        for name, (network, config) in self.members.items():
            known = metadata.to(self.device) if metadata is not None and config.needs_metadata else None
            predicted[name] = predict_batch(network, config, images, known, test_time=self.test_time)
        return vote(predicted, self.test_time)

    def predict(
        self, images: Sequence[Image.Image], patients: Sequence[Patient] | None = None, *, point: str | None = None
    ) -> list[Prediction]:
        """Predict RGB images, one at least.

        point : name of an operating point; None is `default_point`.

        Raises
        ------
        PipelineError
            No such operating point, or a logit is not finite.
        """
        chosen = self.find_point(point)
        squares = np.stack([self.square(image) for image in images])
        return [
            self.conclude(logits, square, self.quality(image), chosen)
            for logits, square, image in zip(self.logits(squares, patients), squares, images, strict=True)
        ]

    def find_point(self, name: str | None) -> OperatingPoint | None:
        """The operating point of that name; the default one for None, and None where there is none to apply.

        Raises
        ------
        PipelineError
            No such point; or this is one member of several, for which none was chosen.
        """
        if name is None:
            return self.points[self.default_point] if self.default_point else None
        if not self.points:
            raise PipelineError(
                f"operating point '{name}' was chosen for the ensemble and says nothing of member '{self.member}' alone: "
                f"use the model '{ENSEMBLE}'"
            )
        return self.points[find_known("operating point", name, self.points)]

    def quality(self, image: Image.Image) -> tuple[str, ...]:
        """Sentences on what is wrong with a picture. Who has these and its `square` needs the picture no more."""
        return tuple(quality_warnings(image, size=self.config.size))

    def conclude(
        self, logits: np.ndarray, square: np.ndarray, quality: tuple[str, ...], point: OperatingPoint | None
    ) -> Prediction:
        """What is said of one image, from its logits, float (7,), and its `square` and `quality`; point : to apply."""
        row = logits[None]
        probabilities = (softmax(row, axis=1) if self.calibrator is None else self.calibrator.probabilities(row))[0]
        named = {dx: float(value) for dx, value in zip(CLASSES, probabilities, strict=True)}
        score = None if point is None else sum(named[dx] for dx in point.classes)
        return Prediction(
            probabilities=named,
            point=point,
            score=score,
            flagged=None if point is None or score is None else score >= point.threshold,
            sets={} if self.conformal is None else conformal_sets(self.conformal, row, square),
            warnings=(*quality, *self._model_warnings()),
        )

    def _model_warnings(self) -> list[str]:
        warnings = [SYNTHETIC_WARNING] if self.config.data.get("synthetic") else []
        if self.calibrator is None:
            warnings.append("The probabilities of one member alone are not calibrated, and no operating point was chosen for it.")
        if self.engine == "onnx-int8":
            warnings.append(
                "The network ran in 8 bits and was calibrated in 32; metrics/export.json says how far its answers differ."
            )
        return warnings

    def explain(
        self, image: Image.Image, patient: Patient | None = None, *, diagnosis: str, method: str = "GradCAM", layer: str = "auto"
    ) -> np.ndarray:
        """Where the members found what speaks for a diagnosis: float64 (height, width) from 0 to 1, on the image's pixels.

        As `skinlesion.serving.explainer.Explainer.explain`, which says what is refused.
        """
        return self.explainer.explain(
            image, self.square(image), patient or Patient(), diagnosis=diagnosis, method=method, layer=layer
        )

    def usable_methods(self) -> tuple[CamMethod, ...]:
        """The methods that can be used on all these networks, in the order of `skinlesion.explanation.cam.methods.METHODS`."""
        return self.explainer.usable_methods()

    def card(self) -> dict[str, Any]:
        """What the model is, as JSON: members, classes, data and its fingerprint; its figures on test where they are there."""
        configs = [member.config for member in self.members.values()]
        read = measured_in_eight_bits if self.engine == "onnx-int8" else measured_on_test
        measured = None if self.calibrator is None else read(self.root, self.explainer.digest)  # None for a member alone
        return describe_model(configs, measured=measured) | {
            "model": self.member,
            "engine": self.engine,
            "test_time": self.test_time,
            "calibration": None if self.calibrator is None else self.calibrator.method,
        }


def load_predictor(root: Path = Path(), *, model: str = ENSEMBLE, engine: str = "torch", device: str = "auto") -> Predictor:
    """Load what a run left in a workspace.

    Parameters
    ----------
    model : `ensemble`, or the name of a member (`base-0`). A member of several is not calibrated alone.
    engine : `torch`; `onnx` or `onnx-int8`, which run on the CPU what the optional stage `export` wrote.
    device : as `machine.device`; the ONNX engines take `auto` and `cpu`.

    Raises
    ------
    PipelineError
        There is no trained classifier, no such member or engine, or a file is missing or damaged; with the command that helps.
    """
    runs = find_known("engine", engine, ENGINES)
    if not (root / CLASSIFIER).is_dir():
        raise PipelineError(
            f"{root / CLASSIFIER} not found, so there is no trained classifier: `make run` trains one, on synthetic images "
            "unless params.yaml says otherwise"
        )
    every = load_ensemble(root / CLASSIFIER)
    names = tuple(every)
    find_known("model", model, (ENSEMBLE, *names))
    chosen = names if model == ENSEMBLE else (model,)
    whole = len(chosen) == len(names)
    calibration = read_calibration(root / CALIBRATION)
    digest = classifier_digest(root / CLASSIFIER)
    check_belongs(calibration, CALIBRATION, digest)
    place = device_of(runs, device)
    return Predictor(
        root=root,
        member=model,
        engine=runs,
        device=place,
        members=load_members(root, every, chosen, runs, place),
        names=names,
        test_time=calibration.test_time,
        calibrator=Calibrator.of(calibration) if whole else None,
        points=read_points(root, digest, eight_bits=runs == "onnx-int8") if whole else {},
        conformal=_read_sets(root, digest) if whole else None,
        explainer=Explainer(root / CLASSIFIER, chosen, place, digest),
    )


def _read_sets(root: Path, digest: str) -> Conformal | None:
    """How sets are formed, None where that was never written."""
    if not (root / CONFORMAL).is_file():
        return None
    content = read_conformal(root / CONFORMAL)
    check_belongs(content.calibration, CONFORMAL, digest)
    return content
