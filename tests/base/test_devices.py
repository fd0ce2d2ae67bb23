"""Arithmetic on a GPU: in full float32 wherever a classifier is asked, and the switch thrown back behind everybody."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.evaluation.inference.inference import predict
from skinlesion.explanation.cam.fusing import fuse_batch_norms
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import MapOptions
from skinlesion.explanation.cam.randomization import renew_batch_norm
from skinlesion.explanation.cam.subject import Subject
from skinlesion.explanation.neighbors.embedding import embed
from skinlesion.model.classifier import Classifier, ClassifierConfig
from skinlesion.model.float32 import full_float32
from skinlesion.model.network import SkinNetwork
from skinlesion.serving.predictor import load_predictor
from tests.model.classifier_cases import make_config, make_network
from tests.serving.predictor_cases import lesion_image, make_workspace

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
LISTED = pd.DataFrame({"image_id": ["a", "b"], "row": [0, 1], "predicted": ["mel", "nv"]})

Use = Callable[[SkinNetwork, ClassifierConfig], object]


def prepared() -> PreparedImages:
    index = pd.DataFrame({"image_id": ["a", "b"], "width": 32, "height": 32, "fit": "squash", "color_constancy": "none"})
    return PreparedImages(PIXELS, index)


def score(network: SkinNetwork, config: ClassifierConfig) -> object:
    subject = Subject({"base-0": Classifier(network, config)}, PIXELS, LISTED, MapOptions("GradCAM", CPU))
    return subject.score()(torch.from_numpy(PIXELS), np.arange(2))


def maps(network: SkinNetwork, config: ClassifierConfig) -> object:
    return compute_maps(network, config, PIXELS, [4, 5], MapOptions("GradCAM", CPU, "layer2"))


USES: dict[str, Use] = {
    "predictions": lambda n, c: predict(Classifier(n, c), prepared(), LISTED, device=CPU, batch_size=2),
    "embeddings": lambda n, c: embed({"base-0": Classifier(n, c)}, prepared(), ["a", "b"], device=CPU, batch_size=2),
    "maps": maps,
    "deletion": score,
    "batch norms of the sanity check": lambda n, c: renew_batch_norm(n, [(torch.zeros(2, 3, 32, 32), None)], device=CPU),
    "folded batch norms": lambda n, c: fuse_batch_norms(n, size=32),
}


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether TF32 was allowed whenever a convolution ran, forward or backward."""
    seen: list[bool] = []
    forward = torch.nn.Conv2d.forward

    def watched(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        output = forward(self, images)
        if output.requires_grad:
            output.register_hook(lambda _: seen.append(torch.backends.cudnn.allow_tf32))
        return output

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    return seen


@pytest.mark.parametrize("use", USES)
def test_a_classifier_is_asked_in_full_float32(use: str, tf32: list[bool]) -> None:
    config = make_config()
    network = make_network(config)
    tf32.clear()
    USES[use](network, config)
    # Of maps also the backward passes; before it they may look for the layer, which is no arithmetic that counts.
    assert tf32 and not any(tf32[-20:])
    assert torch.backends.cudnn.allow_tf32


def test_so_does_the_predictor(tmp_path: Path, tf32: list[bool]) -> None:
    predictor = load_predictor(make_workspace(tmp_path))
    tf32.clear()
    predictor.predict([lesion_image()])
    assert tf32 and not any(tf32)
    assert torch.backends.cudnn.allow_tf32


def test_the_switch_stays_while_anybody_is_within() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with full_float32():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with full_float32():
        thread.start()
        assert entered.wait(10)
    assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.deterministic
    with full_float32(), pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    assert not torch.backends.cudnn.allow_tf32
    leave.set()
    thread.join()
    assert torch.backends.cudnn.allow_tf32 and not torch.backends.cudnn.deterministic
