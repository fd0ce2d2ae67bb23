"""Exported classifiers, `models/export`, run by ONNX Runtime on the CPU in place of torch.

What stays torch is everything around the network: preparation, normalisation, views and the mean over members are the same code
(`skinlesion.evaluation.inference.inference.predict_batch`), which an `OnnxNetwork` is given to.
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from pydantic import Field

from skinlesion.artifacts.paths import CLASSIFIER
from skinlesion.artifacts.patients import WIDTH
from skinlesion.base.cores import available_cores
from skinlesion.base.errors import PipelineError, brief, find_known, reason_of
from skinlesion.base.files import file_digest, read_json
from skinlesion.config.contents import Content, check_content
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import Member
from skinlesion.model.classifier import WEIGHTS_FILE, ClassifierConfig, read_classifier_config, read_member_names

Precision = Literal["float32", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

EXPORT = Path("models/export")
EXPORT_FILE = "export.json"
MODEL_FILES: dict[Precision, str] = {"float32": "model.onnx", "int8": "model-int8.onnx"}
STAGE = "dvc repro extras/dvc.yaml:export"
AGAIN = f"run `{STAGE}`"

IMAGES, METADATA, LOGITS = "images", "metadata", "logits"  # names of the graph's inputs and of its output
# An optimiser that gives weights which were left in float32 between two quantised layers eight bits all the same, with one scale
# for all channels: of a MobileNetV2 with such a depthwise layer, two thirds of the diagnoses changed.
WEIGHT_BIAS_QUANTIZATION = "WeightBiasQuantization"
IDENTITY = "skinlesion."  # what the keys of a graph's metadata begin with


def identity(name: str, precision: Precision, weights_sha256: str) -> dict[str, str]:
    """What a graph says of itself in its metadata: member, precision, and sha256 of the `weights.safetensors` that it is of."""
    facts = {"member": name, "precision": precision, "weights_sha256": weights_sha256}
    return {f"{IDENTITY}{key}": value for key, value in facts.items()}


class OnnxNetwork:
    """A network in ONNX Runtime, called as `inference.Network`; several threads may call it at once.

    Raises
    ------
    PipelineError
        The file is not a graph that ONNX Runtime can load.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        import onnxruntime  # a second, and not needed by whoever stays with torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # A pool whose threads wait by spinning takes the cores from the next member's, and from whoever else is on the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; what it warns of is of its own optimisations
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"], disabled_optimizers=[WEIGHT_BIAS_QUANTIZATION]
            )
        except (OSError, MemoryError):
            raise
        except Exception as error:  # ONNX Runtime has a class an error code, none of them documented
            raise PipelineError(f"{path} is damaged ({reason_of(error)}): {AGAIN} again") from None
        self.needs_metadata = METADATA in {each.name for each in self.session.get_inputs()}

    def __call__(self, images: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Logits, float32 (N, 7), on the CPU.

        Parameters
        ----------
        images : float32 (N, 3, size, size), normalised, in any memory order.
        metadata : float32 (N, WIDTH) of `artifacts.patients.encode_metadata`; not looked at by a network without metadata.

        Raises
        ------
        ValueError
            The network needs metadata and got none.
        """
        inputs = {IMAGES: _array(images)}
        if self.needs_metadata:
            if metadata is None:
                raise ValueError("this network was exported with metadata: pass encode_metadata(...) beside the images")
            inputs[METADATA] = _array(metadata)
        return torch.from_numpy(self.session.run([LOGITS], inputs)[0])


def _array(tensor: torch.Tensor) -> np.ndarray:
    """The values of a tensor on any device, in C order."""
    return tensor.detach().cpu().contiguous().numpy()


class _Graph(Content):
    sha256: str


class ExportedMember(Content):
    """What export.json says of a member: sha256 of the weights that were exported, and of the graph of each precision."""

    weights_sha256: str
    files: dict[Precision, _Graph] = Field(min_length=len(PRECISIONS))


class Exported(Content):
    """What is read of export.json; the file holds more."""

    members: dict[str, ExportedMember]


def load_onnx_ensemble(folder: Path, precision: str, *, classifier: Path = CLASSIFIER) -> dict[str, Member]:
    """Load every member of an ensemble from its export, by name (`base-0`), in the classifier's order.

    Parameters
    ----------
    folder : what the extra `export` wrote, `models/export`.
    precision : float32 | int8.
    classifier : the ensemble that must have been exported; of it the configs are read, and sha256 of the weights.

    Raises
    ------
    PipelineError
        An unknown precision; nothing was exported; a file is missing, damaged or of another member or precision; or the export is
        of other weights than `classifier` has now.
    """
    chosen, path = find_known("precision", precision, PRECISIONS), folder / EXPORT_FILE
    if not path.is_file():
        raise PipelineError(f"{path} not found, the classifier was not exported: {AGAIN} first")
    exported = check_content(Exported, read_json(path), path, stage=STAGE).members
    names = read_member_names(classifier)
    if list(exported) != names:
        raise stale(folder, classifier, f"members are {brief(names)}, exported were {brief(list(exported))}")
    return {name: load_onnx_member(folder, name, chosen, exported[name], classifier=classifier) for name in names}


def load_onnx_member(folder: Path, name: str, precision: Precision, exported: ExportedMember, *, classifier: Path) -> Member:
    """Load one member; `exported` is what `export.json` says of it, for the rest see `load_onnx_ensemble`."""
    config, weights = read_classifier_config(classifier / name), classifier / name / WEIGHTS_FILE
    if not weights.is_file():
        raise PipelineError(f"{weights} not found: run `train` first, or `dvc repro`")
    digest = file_digest(weights, "sha256")
    if digest != exported.weights_sha256:
        raise stale(folder, classifier, f"{weights} has other weights than were exported")
    path = folder / name / MODEL_FILES[precision]
    if not path.is_file():
        raise PipelineError(f"{path} not found: {AGAIN} again")
    if file_digest(path, "sha256") != exported.files[precision].sha256:
        raise PipelineError(f"{path} is damaged (its sha256 is not the one in {folder / EXPORT_FILE}): {AGAIN} again")
    network = OnnxNetwork(path, threads=available_cores())
    check_graph(network, config, path, identity(name, precision, digest))
    return Member(network, config)


def stale(folder: Path, classifier: Path, cause: str) -> PipelineError:
    """The error of an export that is of another classifier."""
    return PipelineError(f"{folder} is not of the classifier in {classifier} ({cause}): {AGAIN}, or choose the engine torch")


def check_graph(network: OnnxNetwork, config: ClassifierConfig, path: Path, wanted: dict[str, str]) -> None:
    """Insist that a graph is of the member, weights and precision that it lies under, and takes what the classifier gives it."""
    stored = network.session.get_modelmeta().custom_metadata_map
    odd = [
        f"{key.removeprefix(IDENTITY)} is {brief(stored.get(key))}" for key, value in wanted.items() if stored.get(key) != value
    ]
    inputs = {each.name: list(each.shape[1:]) for each in network.session.get_inputs()}
    expected = {IMAGES: [3, config.size, config.size]} | ({METADATA: [WIDTH]} if config.needs_metadata else {})
    if inputs != expected:
        odd.append(f"inputs are {brief(inputs)}, not {brief(expected)}")
    outputs = {each.name: list(each.shape[1:]) for each in network.session.get_outputs()}
    if outputs != {LOGITS: [len(CLASSES)]}:
        odd.append(f"outputs are {brief(outputs)}")
    if odd:
        raise PipelineError(f"{path} is of another network ({'; '.join(odd)}): {AGAIN} again")
