"""The precision that a name means on a device."""

from typing import Any

import pytest
import torch

from skinlesion.training import engine
from tests.conftest import refuses
from tests.training.training_cases import MakeParams


@pytest.mark.parametrize(
    ("precision", "kind", "bf16", "expected"),
    [
        ("auto", "cpu", True, "32-true"),
        ("auto", "mps", True, "32-true"),
        ("auto", "xpu", True, "32-true"),
        ("auto", "cuda", True, "bf16-mixed"),
        ("auto", "cuda", False, "16-mixed"),
        ("32", "cuda", True, "32-true"),
        ("bf16", "cpu", True, "bf16-mixed"),
        ("16", "cuda", True, "16-mixed"),
    ],
)
def test_precision_by_name_and_device(
    train_params: MakeParams, monkeypatch: pytest.MonkeyPatch, precision: str, kind: str, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    assert engine.choose_precision(train_params(precision=precision), torch.device(kind)) == expected


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"precision": "16"}, "cpu", "precision=16 needs a GPU"),
        ({"precision": "bf16"}, "xpu", "precision=bf16 is not supported on an XPU"),
        ({"precision": "auto", "sam_rho": 0.05}, "cuda", "does not go with sam_rho: set train.precision=32"),
    ],
)
def test_a_precision_that_a_device_lacks_is_refused(
    train_params: MakeParams, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], kind: str, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    refuses(message, engine.choose_precision, train_params(**values), torch.device(kind))
