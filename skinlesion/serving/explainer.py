"""Heat maps of single images, asked for by several threads, while others predict."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skinlesion.artifacts.patients import Patient, as_table
from skinlesion.base.errors import PipelineError, find_known
from skinlesion.config.evaluation import CamMethod
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.identity import classifier_digest
from skinlesion.explanation.cam.members import explain, find_layers, place_mean
from skinlesion.explanation.cam.methods import METHODS, MapOptions, check_method
from skinlesion.model.classifier import Classifier, load_ensemble


@dataclass
class Explainer:
    """Maps of some members of an ensemble. Safe to call from several threads; one map is made at a time.

    folder : `models/classifier`. names : of the members that are explained. digest : of the classifier that predicts
    (`skinlesion.evaluation.inference.identity.classifier_digest`): another one's maps would be no explanation.

    It has networks of its own, loaded for the first map: the hooks of a map must not see the images of other threads.
    """

    folder: Path
    names: Sequence[str]
    device: torch.device
    digest: str
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _members: dict[str, Classifier] = field(default_factory=dict, repr=False)

    def explain(
        self, image: Image.Image, square: np.ndarray, patient: Patient, *, diagnosis: str, method: str, layer: str = "auto"
    ) -> np.ndarray:
        """Where the members found what speaks for a diagnosis: their mean map, as on the pages of the stage `gradcam`.

        Parameters
        ----------
        image : the original, RGB. square : what the networks see of it, uint8 (size, size, 3).
        method : one of `skinlesion.explanation.cam.methods.METHODS`. layer : as `gradcam.layer` of params.yaml.

        Returns
        -------
        float64 (height, width) from 0 to 1, on the pixels of the original; 0 everywhere where nothing speaks for the diagnosis.

        Raises
        ------
        PipelineError
            No such diagnosis or method, the method cannot be used on these networks, or there is another classifier by now.
        """
        check_diagnosis(diagnosis)
        options = MapOptions(check_method(method), self.device, layer)
        table = as_table([patient]).assign(row=0, predicted=diagnosis)
        with self._lock:
            members = self._load()
            maps = explain(members, square[None], table, options)
        config = next(iter(members.values())).config
        return place_mean(list(maps.values()), 0, image.width, image.height, size=config.size, fit=config.fit)

    def usable_methods(self) -> tuple[CamMethod, ...]:
        """The methods that can be used on all these networks, in the order of `METHODS`."""
        with self._lock:
            members = self._load()
            return tuple(method for method in METHODS if _is_usable(members, method))

    def _load(self) -> Mapping[str, Classifier]:
        if not self._members:
            if classifier_digest(self.folder) != self.digest:
                raise PipelineError(
                    f"{self.folder} was written anew since its classifier was loaded: start again to use the new one"
                )
            whole = load_ensemble(self.folder)
            self._members.update({name: whole[name] for name in self.names})
        return self._members


def _is_usable(members: Mapping[str, Classifier], method: CamMethod) -> bool:
    try:
        find_layers(members, [method], "auto")
    except PipelineError:
        return False
    return True


def check_diagnosis(diagnosis: str) -> None:
    """Raise PipelineError on what is not a diagnosis of `CLASSES`, with the nearest one."""
    find_known("diagnosis", diagnosis, CLASSES)
