"""What a trained classifier is, for who meets it outside the pipeline: its origin, its data and its figures on test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skinlesion.artifacts import METRICS
from skinlesion.classifier import ClassifierConfig
from skinlesion.contents import Named
from skinlesion.ensemble import SPREAD
from skinlesion.files import read_json

OF_MEMBER = ("name", "backbone", "epoch", "weights_sha256", "git_commit")
SHARED = ("size", "fit", "color_constancy", "fingerprint", "images_sha256")


def describe_model(root: Path, configs: Sequence[ClassifierConfig], *, whole: bool) -> dict[str, Any]:
    """The model card, as JSON.

    root : the workspace. configs : of the members that are used. whole : whether they are the whole ensemble, of which the
    metrics are; of a member alone `test` is null, as it is where no metrics are there.
    """
    first = configs[0]
    return {
        "members": [{key: getattr(config, key) for key in OF_MEMBER} for config in configs],
        "classes": list(first.classes),
        **{key: getattr(first, key) for key in SHARED},
        "needs_metadata": any(config.needs_metadata for config in configs),
        "data": dict(first.data),
        "versions": dict(first.versions),
        "test": _measured_on_test(root / METRICS / "evaluate.json") if whole else None,
    }


def _measured_on_test(path: Path) -> dict[str, Any] | None:
    """Headline metrics with intervals from metrics/evaluate.json; None where it is not there."""
    if not path.is_file():
        return None
    content = Named(read_json(path), str(path))
    test = content["test"]
    figures = {name: {"value": test[name], **test["intervals"][name]} for name in SPREAD}
    return {"images": test["images"], "lesions": test["lesions"], "confidence": content["bootstrap"]["confidence"], **figures}
