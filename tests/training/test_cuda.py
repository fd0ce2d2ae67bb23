"""What only a GPU can show: it says what a CPU says, trains the same bytes twice, and goes on where it was killed."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from skinlesion.artifacts.prepared import PreparedImages
from skinlesion.config.training import SynthesizeParams
from skinlesion.data.synthesis.fitting import draw_images, fit_vae
from skinlesion.diagnoses import CLASSES
from skinlesion.evaluation.inference.inference import predict
from skinlesion.explanation.cam.maps import compute_maps
from skinlesion.explanation.cam.methods import DEFAULT_SAMPLES, METHODS, MapOptions
from skinlesion.model.classifier import Classifier
from skinlesion.serving.predictor import load_predictor
from skinlesion.training import fit
from tests.conftest import WriteParams
from tests.model.classifier_cases import make_config, make_network
from tests.serving.predictor_cases import lesion_image, make_workspace
from tests.training.training_cases import MEMBER, TINY, train_base, write_inputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
PIXELS = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3), dtype=np.uint8)
BACKBONES = ("resnet18", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "swin_v2_t", "vit_b_16", "densenet121")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_gpu_predicts_what_a_cpu_does(backbone: str) -> None:
    config = make_config(backbone, size=64)
    network = make_network(config)
    ids = [f"I{number}" for number in range(len(PIXELS))]
    index = pd.DataFrame({"image_id": ids, "width": 64, "height": 64, "fit": "squash", "color_constancy": "none"})
    prepared, listed = PreparedImages(PIXELS, index), pd.DataFrame({"image_id": ids})
    given, options = (Classifier(network, config), prepared, listed), {"batch_size": 4, "test_time": "square"}
    expected, found = (predict(*given, device=device, **options).logits for device in (CPU, GPU))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_makes_the_maps_that_a_cpu_makes(method: Any) -> None:
    backbone = "vit_b_16" if method == "LeGrad" else "resnet18"
    config = make_config(backbone, size=64)
    network = make_network(config)
    options = MapOptions(method, CPU, batch_size=4, samples=2 if method in DEFAULT_SAMPLES else None)
    expected, found = (compute_maps(network, config, PIXELS[:2], [4, 5], replace(options, device=each)) for each in (CPU, GPU))
    # The quotient of small numbers of the one, and the many passes of the other, magnify rounding.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2 if method in ("SmoothGradCAMpp", "Occlusion") else 1e-3)


def test_twice_or_killed_the_same_bytes(workspace: Path, write_params: WriteParams, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs()
    write_params(TINY | {"machine.device": "cuda", "train.loggers": [], "train.average": "ema"})
    train_base()
    first = (MEMBER / "weights.safetensors").read_bytes()
    train_base()
    assert (MEMBER / "weights.safetensors").read_bytes() == first and torch.cuda.max_memory_allocated() > 0
    validate, calls = fit.validate, []

    def killed(training: Any) -> dict[str, float]:
        calls.append(training)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(training)

    monkeypatch.setattr(fit, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        train_base()
    monkeypatch.setattr(fit, "validate", validate)
    train_base()
    assert (MEMBER / "weights.safetensors").read_bytes() == first


def test_the_generator_of_rare_images_draws_the_same_twice() -> None:
    labels = np.arange(28) % 7
    images = np.random.default_rng(1).integers(0, 255, (28, 32, 32, 3), dtype=np.uint8)
    params = SynthesizeParams(seed=0, images={"df": 5}, epochs=3, batch_size=8, lr=0.001, latent=8, kl_weight=0.5)
    models = [fit_vae(images, labels, params, device=GPU)[0] for _ in range(2)]
    drawn = [np.concatenate(list(draw_images(model, "df", 5, seed=0, size=32))) for model in models]
    np.testing.assert_array_equal(*drawn)


def test_threads_of_a_predictor_on_a_gpu_get_what_the_cpu_says(tmp_path: Path) -> None:
    make_workspace(tmp_path, ({}, {"metadata": True, "member": "b"}), test_time="flips")
    images = [lesion_image(seed) for seed in range(8)]
    on_cpu, on_gpu = (load_predictor(tmp_path, device=name) for name in ("cpu", "cuda"))
    expected = [[each.probabilities[dx] for dx in CLASSES] for each in on_cpu.predict(images)]
    maps = [on_cpu.explain(image, diagnosis="mel") for image in images]
    with ThreadPoolExecutor(8) as pool:
        mapped = [pool.submit(on_gpu.explain, image, diagnosis="mel") for image in images]
        predicted = [pool.submit(on_gpu.predict, [image]) for image in images]
        found = [[done.result()[0].probabilities[dx] for dx in CLASSES] for done in predicted]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose([done.result() for done in mapped], maps, rtol=0, atol=1e-3)
